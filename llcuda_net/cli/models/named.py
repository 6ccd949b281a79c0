"""What `llcuda-server --model NAME` means: files, which may have to be pulled first."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.settings import Settings
from llcuda_net.util.terminal import echo

if TYPE_CHECKING:
    from llcuda_net.models.files.local_file import LocalFile


def with_files(settings: Settings, *, ask: bool = False) -> Settings:
    """The settings with a file for each model that they name. Pulls what is not there, if it may.

    Args:
        ask: a person who is there may be asked whether to pull.

    Raises:
        ConfigError: there is no such model, it is not wanted, or it cannot be pulled; one line.
    """
    models = tuple(_with_file(spec, settings, ask=ask) for spec in settings.model)
    return replace(settings, model=models)


def _with_file(spec: ModelSpec, settings: Settings, *, ask: bool) -> ModelSpec:
    named = spec.file or spec.name
    if Path(named).expanduser().exists() or named.endswith(".gguf"):
        return spec  # what is wrong with a file says who reads it
    from llcuda_net.cli.progress import StatusLine
    from llcuda_net.models.files.folder import default_folder
    from llcuda_net.models.pull.resolve import resolve

    folder = default_folder() if settings.models is None else Path(settings.models).expanduser()
    with StatusLine() as line:

        def report(what: str, done: int, total: int | None) -> None:
            line.show(f"{what}: {100 * done // total} %" if total else what)

        found = resolve(
            named,
            folder,
            yes=settings.yes,
            ask=_ask if ask and sys.stdin.isatty() and sys.stderr.isatty() else None,
            report=report,
            elsewhere=_elsewhere,
        )
    mmproj = None if found.mmproj is None else str(found.mmproj)
    return replace(spec, file=str(found.file), mmproj=spec.mmproj or mmproj)


def _ask(question: str) -> bool:
    echo(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _elsewhere() -> Iterable[LocalFile]:
    """The models that other programs have on this machine."""
    return ()

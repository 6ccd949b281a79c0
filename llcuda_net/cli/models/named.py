"""What `llcuda-server --model NAME` means: files, which may have to be pulled first."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo, is_terminal

if TYPE_CHECKING:
    from llcuda_net.models.pull.resolve import Found


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
    from llcuda_net.models.files.folder import default_folder
    from llcuda_net.models.pull.resolve import is_path

    named = spec.file or spec.name
    if is_path(named) and Path(named).expanduser().is_dir():
        raise ConfigError(
            f"model file {named} is a directory; give a .gguf file, or --models {named} for all"
        )
    folder = default_folder() if settings.models is None else Path(settings.models).expanduser()
    if (found := find_named(named, folder, yes=settings.yes, ask=ask)) is None:
        return spec
    mmproj = None if found.mmproj is None else str(found.mmproj)
    return replace(spec, file=str(found.file), mmproj=spec.mmproj or mmproj)


def find_named(name: str, folder: Path, *, yes: bool = False, ask: bool = False) -> Found | None:
    """The model of that name, pulled if it is not on this machine; None for the path of a file.

    `NAME.gguf`, where there is no such file, is that of the models folder.

    Args:
        folder: the models folder.
        yes: pull without asking.
        ask: a person who is there may be asked whether to pull.

    Raises:
        ConfigError: there is no such model, it is not wanted, or it cannot be pulled; one line.
    """
    from llcuda_net.models.pull.resolve import by_file_name, is_path, resolve

    if is_path(name):
        return by_file_name(name, folder)  # what is wrong with a file says who reads it
    from llcuda_net.cli.models.pull import Rate
    from llcuda_net.cli.progress import Ticker

    line, rate = Ticker(), Rate()

    def report(what: str, done: int, total: int | None) -> None:
        line.say(rate.text(what, done, total))

    may_ask = ask and is_terminal(sys.stdin) and is_terminal(sys.stderr)
    with line:
        return resolve(name, folder, yes=yes, ask=_ask if may_ask else None, report=report)


def _ask(question: str) -> bool:
    """Ask on stderr, and read a line from stdin: only a plain yes is one."""
    echo(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")

"""The other tools in environments of their own, as pip installs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .adapters import Program

ROOT = Path(__file__).resolve().parents[2]
#: The end of pip's own words, where it failed.
_TOLD = 300


class NotInstalledError(Exception):
    """A tool is not to be had, and why."""


def environment(program: Program) -> Path:
    """Where its environment is."""
    return ROOT / f".venv-{program.name}"


def installed(program: Program) -> Path:
    """Its program.

    Raises:
        NotInstalledError: it is not there, or of another version.
    """
    if not program.requirement:
        return Path(program.command)
    place = environment(program)
    stamp = place / "installed"
    if not stamp.is_file() or stamp.read_text("utf-8") != program.requirement:
        raise NotInstalledError(f"{program.requirement} is not installed: say --install")
    return place / "bin" / program.command


def install(program: Program) -> None:
    """Install it, where it is not yet.

    Raises:
        NotInstalledError: that failed.
    """
    try:
        installed(program)
    except NotInstalledError:
        place = environment(program)
        shutil.rmtree(place, ignore_errors=True)
        try:
            _call([sys.executable, "-m", "venv", str(place)])
            pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            _call([*pip, "install", "--quiet", program.requirement])
        except subprocess.CalledProcessError as error:
            words = " ".join(str(error.stderr).split())[-_TOLD:]
            raise NotInstalledError(f"{program.requirement} cannot be installed: {words}") from None
        (place / "installed").write_text(program.requirement, "utf-8")


def _call(command: list[str]) -> None:
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

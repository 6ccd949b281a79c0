"""Downloads a wheel with pip in a child process, so that all of pip's configuration holds.

That is: its indexes, proxies, certificates and constraints, from pip.conf and PIP_* variables. An
environment without pip, as `uv venv` makes it, uses the pip that Python brings for ensurepip, or
one on PATH: the wheel is the same for each.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import IO

from llcuda_net.errors import PullError
from llcuda_net.models.pull.staging import Report

#: From this version on, pip writes its progress for programs.
_RAW_PROGRESS = (24, 1)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
#: Seconds for a child that was asked to end.
_PATIENCE = 5.0
#: Stands before a traceback of pip, as where the disk is full.
_CRASHED = "Exception:"
_REMEDY = "install pip here (`python -m ensurepip`, or `uv pip install pip`), and try again"


def find_pip() -> tuple[list[str], str]:
    """How pip is called here, and its version; empty where that is not known.

    Raises:
        PullError: there is no pip.
    """
    with warnings.catch_warnings():  # of setuptools' hook, where distutils is loaded
        warnings.simplefilter("ignore")
        found = importlib.util.find_spec("pip")
    if found is not None:
        version = ""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version("pip")
        return [sys.executable, "-m", "pip"], version
    with contextlib.suppress(ImportError):  # Debian packs it apart
        import ensurepip

        for folder in (
            Path(ensurepip.__file__).parent / "_bundled",
            Path("/usr/share/python-wheels"),
        ):
            for wheel in folder.glob("pip-*.whl"):
                # A wheel is a zip file, and Python runs a package in a zip file.
                return [sys.executable, str(wheel / "pip")], wheel.name.split("-")[1]
    for name in ("pip", "pip3"):
        if path := shutil.which(name):
            return [path], ""
    raise PullError(f"a package index is asked by pip, and this Python has none: {_REMEDY}")


def download(requirement: str, to: Path, report: Report) -> Path:
    """Download one wheel into a folder that is empty.

    Args:
        to: also takes pip's temporary files.

    Raises:
        PullError: there is no pip, or it failed; one line with what it said.
    """
    call, version = find_pip()
    raw = _numbers(version) >= _RAW_PROGRESS
    command = [
        *call,
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        f"--progress-bar={'raw' if raw else 'off'}",
        "--dest",
        str(to),
        requirement,
    ]
    report(requirement, 0, None)
    environment = {**os.environ, "TMPDIR": str(to), "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    # A name that could be an option cannot come here: see reference.py.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C in a terminal must not have it write a traceback beside our own end.
            start_new_session=True,
        )
        try:
            assert child.stdout is not None
            _follow(child.stdout, requirement, report)
            code = child.wait()
        finally:
            _end(child)
        if code:
            raise PullError(_failure(requirement, errors))
    wheels = list(to.glob("*.whl"))
    if len(wheels) != 1:
        raise PullError(f"pip downloaded no wheel of {requirement}")
    return wheels[0]


def _follow(lines: IO[str], requirement: str, report: Report) -> None:
    for text in lines:
        if match := _PROGRESS.match(text):
            report(requirement, int(match[1]), int(match[2]))


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _failure(requirement: str, errors: IO[str]) -> str:
    """What pip's last errors say, on one line."""
    errors.seek(0)
    text = errors.read()[-8000:]
    last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    found = re.findall(r"^ERROR: (.+)$", text, re.MULTILINE)[:1]
    if found == [_CRASHED]:
        return f"pip could not get {requirement}: {last[0]}"
    return f"pip found no {requirement}: {(found or last or ['it did not say why'])[0].strip()}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])

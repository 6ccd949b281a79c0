#!/usr/bin/env python3
"""Asks the package index whether all that the core needs has wheels: for x86-64 and aarch64, each
Python. Nothing is installed, and only metadata is read. Exit code 1: something would be compiled.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from packaging.requirements import Requirement

from llcuda_net.cli.common import Exit, Parser
from llcuda_net.util.terminal import echo

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: Debian 12's, the oldest system that the documentation names; a wheel may ask for less.
GLIBC = 36
#: manylinux of x86-64 begins at glibc 2.5, that of aarch64 at 2.17.
OLDEST = {"x86_64": 5, "aarch64": 17}
LEGACY = {"x86_64": ("manylinux1", "manylinux2010", "manylinux2014"), "aarch64": ("manylinux2014",)}
#: Seconds for one question.
PATIENCE = 300
EXAMPLES = """\
examples:
  tools/check_wheels.py
  tools/check_wheels.py --extra cluster --machine aarch64 --python 3.14
"""


class NoIndexError(Exception):
    """No package index can be asked."""


def wanted(python: str, machine: str, extras: list[str]) -> list[str]:
    """What setup.cfg requires there: pip would ask its own interpreter whether a marker holds."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lists = [settings["options"]["install_requires"]]
    lists += [settings["options.extras_require"][name] for name in extras]
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
    }
    found = []
    for line in "\n".join(lists).splitlines():
        if line and not line.startswith("#"):
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate(there):
                one.marker = None
                found.append(str(one))
    return found


def resolve(requirements: list[str], python: str, machine: str, *options: str) -> str:
    """Have pip choose wheels, downloading none; returns why it cannot, or an empty string."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(OLDEST[machine], GLIBC + 1)]
    tags += [f"{name}_{machine}" for name in LEGACY[machine]]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--target", folder]
        line += ["--only-binary", ":all:", "--python-version", python, *platforms, *options]
        done = subprocess.run(
            [*line, *requirements], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    errors = [text for text in done.stderr.splitlines() if text.startswith("ERROR:")]
    if done.returncode == 0:
        return ""
    return errors[-1].removeprefix("ERROR: ") if errors else done.stderr.strip()[-500:]


def need_index() -> None:
    """Nothing, where a package index can be asked.

    Raises:
        NoIndexError: none can.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    # Pure Python: if this has no wheel, then nothing has.
    said = resolve(["h11"], here, "x86_64", "--no-deps", "--retries", "0", "--timeout", "15")
    if said:
        raise NoIndexError(f"no package index can be asked for wheels: {said}")


def missing(python: str, machine: str, extras: list[str]) -> Iterator[str]:
    """What has no wheel there, and why pip thinks so."""
    requirements = wanted(python, machine, extras)
    why = resolve(requirements, python, machine)
    if not why:
        return
    blamed = [
        f"{one}: {said}"
        for one in requirements
        if (said := resolve([one], python, machine, "--no-deps", "--retries", "1"))
    ]
    yield from blamed or [f"of what those need: {why}"]


def main() -> int:
    """Ask for each machine and Python."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--extra", action="append", default=[], metavar="NAME")
    parser.add_argument("--machine", action="append", choices=MACHINES)
    parser.add_argument("--python", action="append", choices=PYTHONS)
    arguments = parser.parse_args()
    try:
        need_index()
    except NoIndexError as error:
        echo(f"check_wheels: {error}", file=sys.stderr)
        return Exit.CONNECT
    wrong = 0
    for machine in arguments.machine or MACHINES:
        for python in arguments.python or PYTHONS:
            begun = time.monotonic()
            lacking = list(missing(python, machine, arguments.extra))
            wrong += len(lacking)
            seconds = time.monotonic() - begun
            echo(
                f"{machine:<8} Python {python:<5} {'MISSING' if lacking else 'ok'} {seconds:5.1f} s"
            )
            for line in lacking:
                echo(f"  {line}")
    return Exit.REFUSED if wrong else Exit.OK


if __name__ == "__main__":
    sys.exit(main())

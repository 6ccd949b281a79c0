#!/usr/bin/env python3
"""What each distribution costs on the disk that llcuda-net installs, in a fresh environment."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = """\
examples:
  tools/install_size.py                      the core, as of the last commit
  tools/install_size.py --extra bench,mpi    with these extras
  tools/install_size.py --ref 0a1b2c3        as it was at a commit
"""
#: Run by the environment's own interpreter: each distribution with its blocks on the disk.
_MEASURE = """
import importlib.metadata, json, os, re
rows = {}
for found in importlib.metadata.distributions():
    size = 0
    for file in found.files or ():
        try:
            size += os.lstat(found.locate_file(file)).st_blocks * 512
        except OSError:
            pass
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
    lines = [line for line in found.requires or () if "extra ==" not in line]
    needs = [re.match(r"[\\w.-]+", line)[0] for line in lines]
    rows[name] = [found.version, size, [re.sub(r"[-_.]+", "-", one).lower() for one in needs]]
print(json.dumps(rows))
"""
#: What venv puts there itself.
_OF_VENV = {"pip", "setuptools", "wheel"}


@dataclass(frozen=True, slots=True)
class Row:
    """A distribution.

    Attributes:
        size: bytes of its files on the disk, those that Python has compiled included.
        needed_by: the distributions that require it, without an extra.
    """

    name: str
    version: str
    size: int
    needed_by: tuple[str, ...]


def measure(source: Path, extras: str = "") -> list[Row]:
    """Install a checkout into a fresh environment and measure it; the largest come first.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        python = Path(folder) / "bin/python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        wanted = f"{source}[{extras}]" if extras else str(source)
        # It is compiled, as a user's is: half of a package of Python is its .pyc files.
        subprocess.run([*pip, "--compile", wanted], check=True)
        done = subprocess.run([python, "-c", _MEASURE], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    rows = [
        Row(name, version, size, tuple(by for by, (_, _, needs) in found.items() if name in needs))
        for name, (version, size, _) in found.items()
    ]
    wanted_rows = [row for row in rows if row.name not in _OF_VENV or row.needed_by]
    return sorted(wanted_rows, key=lambda row: -row.size)


def table(rows: list[Row], least: float) -> list[str]:
    """Lines of a Markdown table; what is smaller than `least` MB is added up in one."""
    lines = ["| distribution | version | MB | needed by |", "|---|---|---|---|"]
    small = [row for row in rows if row.size / 1e6 < least]
    lines += [
        f"| {row.name} | {row.version} | {row.size / 1e6:.1f} | {', '.join(row.needed_by) or '-'} |"
        for row in rows
        if row not in small
    ]
    if small:
        size = sum(row.size for row in small) / 1e6
        lines.append(f"| {len(small)} more | | {size:.1f} | |")
    total = sum(row.size for row in rows) / 1e6
    lines.append(f"| **{len(rows)} distributions** | | **{total:.1f}** | |")
    return lines


def main() -> int:
    """Measure, and print the table."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--extra", default="", metavar="NAMES", help="extras, by commas")
    parser.add_argument("--ref", metavar="COMMIT", help="of this commit, not of the checkout")
    parser.add_argument(
        "--least", type=float, default=1.0, metavar="MB", help="add up smaller ones"
    )
    parser.add_argument("--json", action="store_true", help="every distribution, in bytes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # A copy: pip leaves a build folder beside what it installs.
        archive = ["git", "-C", str(ROOT), "archive", arguments.ref or "HEAD"]
        if (
            arguments.ref is None
            and subprocess.run(
                ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD"], check=False
            ).returncode
        ):
            echo("note: of the last commit, without what has changed since", file=sys.stderr)
        packed = subprocess.run(archive, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
        rows = measure(Path(folder), arguments.extra)
    if arguments.json:
        echo(json.dumps([{"name": r.name, "version": r.version, "bytes": r.size} for r in rows]))
    else:
        for line in table(rows, arguments.least):
            echo(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())

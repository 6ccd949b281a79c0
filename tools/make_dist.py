#!/usr/bin/env python3
"""Builds what is published, into dist/: a source distribution, and the wheel that it makes.

Both are of the files that Git knows, as they are in the working tree. Then they are checked: by
twine; that the source distribution holds what Git has and nothing else; that the wheel is the one
that the tree makes; that neither names a path of this machine.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.util.terminal import echo

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-dist/bin/python"
#: What Git has and the source distribution need not: of this project's own machines.
LEFT_OUT = (".ci/", ".github/", ".gitignore", "facts")
#: What setuptools adds.
ADDED = re.compile(r"PKG-INFO|llcuda_net\.egg-info/[\w.-]+")
#: Folders of people and of builds, and this checkout.
_MACHINE = re.compile(rb"/(?:home|Users)/[a-z][\w.-]*/|/tmp/(?:tmp|pip-|build-)\w+")
#: Those are of examples and of what is tested about paths.
_MAY = ("tests/", "docs/", "deploy/", "tools/")
EXAMPLES = """\
example:
  make dist
"""


def known_to_git() -> list[str]:
    """The files of the working tree that Git knows, new ones that it does not ignore included.

    Raises:
        CommandError: this is no checkout.
    """
    line = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        fail("a Git checkout is needed; from anything else, `python -m build` makes a wheel")
    return sorted(name for name in set(done.stdout.split("\0")) if name and (ROOT / name).is_file())


def wrong_sdist(names: Iterable[str], tree: Iterable[str]) -> Iterator[str]:
    """What is too much or too little in a source distribution.

    Args:
        names: of its files, without its folder.
        tree: those that Git knows.
    """
    names, tree = set(names), set(tree)
    for name in sorted(names - tree):
        if not ADDED.fullmatch(name):
            yield f"the source distribution has {name}, which Git does not know"
    for name in sorted(tree - names):
        if not name.startswith(LEFT_OUT):
            yield f"the source distribution has no {name}: see MANIFEST.in"


def wrong_wheels(one: Mapping[str, str], two: Mapping[str, str]) -> Iterator[str]:
    """Where two wheels differ: hashes by name."""
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name) and not name.endswith("/RECORD"):
            yield f"the wheels of the source distribution and of the tree differ in {name}"


def machine_paths(name: str, data: bytes) -> Iterator[str]:
    """The paths of a machine in a file."""
    found = {path.decode(errors="replace") for path in _MACHINE.findall(data)}
    if str(ROOT).encode() in data:
        found.add(str(ROOT))
    if found and not name.startswith(_MAY):
        yield f"{name} names {', '.join(sorted(found))}"


def hashes(wheel: Path) -> dict[str, str]:
    """SHA-256 of each file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {n: hashlib.sha256(archive.read(n)).hexdigest() for n in archive.namelist()}


def build(source: Path, to: Path, *options: str) -> None:
    """Build a folder with setuptools, in an environment of its own.

    Raises:
        CommandError: it failed.
    """
    line = [str(PYTHON), "-m", "build", "--outdir", str(to), *options, str(source)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        fail(f"the build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}", Exit.REFUSED)


def check(sdist: Path, wheel: Path, other: Path, tree: list[str]) -> list[str]:
    """All that is wrong with a source distribution, its wheel, and the wheel of the tree."""
    found: list[str] = []
    with tarfile.open(sdist) as archive:
        files = {one.name.partition("/")[2]: one for one in archive.getmembers() if one.isfile()}
        found += wrong_sdist(files, tree)
        for name, one in files.items():
            reader = archive.extractfile(one)
            found += machine_paths(name, reader.read() if reader else b"")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            found += machine_paths(name, archive.read(name))
    found += wrong_wheels(hashes(wheel), hashes(other))
    done = subprocess.run(
        [PYTHON, "-m", "twine", "check", "--strict", sdist, wheel],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        found.append(f"twine check: {' '.join(done.stdout.split())}")
    return found


def main() -> int:
    """Run the command."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the folder (dist)")
    return run_command("make_dist", lambda: _run(parser.parse_args().output))


def _run(output: Path) -> int:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    version = settings["metadata"]["version"]
    if f"\n## [{version}] - 2" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        fail(f"CHANGELOG.md has no dated heading of {version}", Exit.REFUSED)
    tree = known_to_git()
    with tempfile.TemporaryDirectory() as folder:
        # A copy: an earlier build's files beside the source would be packed, too.
        source, made, other = (Path(folder) / name for name in ("source", "made", "other"))
        for name in tree:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
        build(source, made)
        build(source, other, "--wheel")
        (sdist,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
        wrong = check(sdist, wheel, next(other.glob("*.whl")), tree)
        if wrong:
            for line in wrong[:50]:
                echo(line)
            fail(f"{len(wrong)} faults: nothing was written", Exit.REFUSED)
        output.mkdir(parents=True, exist_ok=True)
        for old in output.glob("llcuda_net-*"):
            old.unlink()
        for path in (sdist, wheel):
            shutil.copy(path, output)
            echo(f"{output / path.name}: {path.stat().st_size / 1e6:.1f} MB")
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())

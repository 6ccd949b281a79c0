#!/usr/bin/env python3
"""Installs what tests/browser needs: Chromium of the distribution, and axe-core of npm.

Chromium is that of LLCUDA_TEST_BROWSER, or what is on PATH. Where there is none, it and npm are
installed from Debian if that can be done without asking; else it is said what to install.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.util.terminal import echo

FOLDER = ROOT / ".browser"
#: Names that Chromium has on PATH, the first one found counts.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Names a browser in their place.
VARIABLE = "LLCUDA_TEST_BROWSER"
#: The checker of accessibility, and the SHA-512 of its package in npm's registry.
AXE = "axe-core@4.14.1"
AXE_SHA512 = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)
_AXE_SCRIPT = "package/axe.min.js"
#: Seconds for one of them.
PATIENCE = 1200.0


class NotInstalled(Exception):  # noqa: N818 - it says what to do
    """Something is missing; the message says what, and what to do."""


def browser() -> str:
    """The path of the browser.

    Raises:
        NotInstalled: there is none.
    """
    if named := os.environ.get(VARIABLE):
        if (found := shutil.which(named)) is None:
            raise NotInstalled(f"{VARIABLE} names {named!r}, which is no program")
        return found
    for name in PROGRAMS:
        if (found := shutil.which(name)) is not None:
            return found
    raise NotInstalled(
        "no Chromium on PATH: on Debian, apt install chromium; elsewhere install Chromium or "
        f"Chrome, or let {VARIABLE} name one"
    )


def axe() -> str:
    """The script of axe-core.

    Raises:
        NotInstalled: it is not there.
    """
    script = _axe_folder() / _AXE_SCRIPT
    if not script.exists():
        raise NotInstalled(f"{AXE} is not installed: run `make test-browser`")
    return script.read_text(encoding="utf-8")


def main() -> int:
    """Install what is not there yet."""
    try:
        _install_browser()
        _install_axe()
    except NotInstalled as error:
        echo(f"install_browser: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        more = getattr(error, "output", None) or ""
        echo(f"install_browser: {error}\n{more}".rstrip(), file=sys.stderr)
        return 1
    return 0


def _install_browser() -> None:
    try:
        browser()
    except NotInstalled:
        if VARIABLE in os.environ or not _may_apt():
            raise
        _apt("chromium")
        browser()


def _install_axe() -> None:
    folder = _axe_folder()
    if (folder / _AXE_SCRIPT).exists():
        return
    if shutil.which("npm") is None:
        if not _may_apt():
            raise NotInstalled("npm is not installed: on Debian and Ubuntu, apt install npm")
        _apt("npm")
    folder.mkdir(parents=True, exist_ok=True)
    echo(f"fetching {AXE} into {folder.relative_to(ROOT)}")
    _run(["npm", "pack", "--silent", "--pack-destination", str(folder), AXE])
    package = folder / f"{AXE.replace('@', '-')}.tgz"
    digest = hashlib.sha512(package.read_bytes()).digest()
    if base64.b64encode(digest).decode() != AXE_SHA512:
        package.unlink()
        raise NotInstalled(f"{AXE} of npm is not what it was: its SHA-512 differs")
    with tarfile.open(package) as archive:
        script = archive.extractfile(_AXE_SCRIPT)
        assert script is not None
        (folder / _AXE_SCRIPT).parent.mkdir(exist_ok=True)
        (folder / _AXE_SCRIPT).write_bytes(script.read())
    package.unlink()


def _axe_folder() -> Path:
    return FOLDER / AXE


def _may_apt() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt(package: str) -> None:
    echo(f"installing {package} from the distribution")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-qq"], quiet)
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], quiet)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=PATIENCE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main())

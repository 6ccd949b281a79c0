#!/usr/bin/env python3
"""Goes from nothing to an answer on a fresh Debian, by the commands of README.md alone.

debootstrap makes a minimal Debian in a temporary folder, for each release. In it, the lines of
README.md that begin with `apt` run as root, and the blocks of commands that it says are run by
this file as a user who is not root, in a copy of this clone. Whatever
fails ends this with exit code 1.

The package registry is that of this machine: what `pip config list` says goes into the other's
/etc/pip.conf, and folders and certificates that it names are shown there, read-only. Root is
needed, for chroot.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.util.terminal import echo
from tools.documented.blocks import Block, blocks
from tools.documented.shell import script

PROG = "check_fresh_debian"
RELEASES = ("bookworm", "trixie")
MIRROR = "http://deb.debian.org/debian"
USER, UID = "somebody", 1000
#: Where the other Debian sees what pip needs of this one.
_SHOWN = Path("/run/registry")
#: Seconds for one step: a first install loads hundreds of megabytes.
_PATIENCE = 3600.0
#: Variables that lead to the network, where this machine needs them.
_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Debian:
    """One release, unpacked in a folder.

    Args:
        folder: its root.
        release: its name.
    """

    def __init__(self, folder: Path, release: str) -> None:
        self._root = folder
        self._release = release
        self._shown: list[tuple[Path, Path]] = []
        self._variables = {name: os.environ[name] for name in _NETWORK if name in os.environ}

    def __repr__(self) -> str:
        return f"<Debian {self._release} in {self._root}>"

    def make(self, mirror: str) -> None:
        """Unpack it, and give it a user, the clone and the registry."""
        say(f"debootstrap {self._release}")
        command = ["debootstrap", "--variant=minbase", self._release, str(self._root), mirror]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            fail(f"debootstrap: {''.join(last)}", Exit.REFUSED)
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self._root / "etc" / name)
        # The answer that a person gives to apt's question.
        (self._root / "etc/apt/apt.conf.d/yes").write_text('APT::Get::Assume-Yes "true";\n')
        made = self.run(f"useradd --create-home --uid {UID} --shell /bin/bash {USER}", root=True)
        if made:
            fail(f"useradd ended with {made}", Exit.REFUSED)
        self._copy_clone()
        self._copy_registry()

    def _copy_clone(self) -> None:
        home = self._root / "home" / USER / "llcuda"
        listed = subprocess.run(
            [
                "git",
                "-C",
                str(ROOT),
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ],
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, home / name)
        for path in (home, *home.rglob("*")):
            os.chown(path, UID, UID)

    def _copy_registry(self) -> None:
        lines = ["[global]"]
        for name, value in pip_settings().items():
            words = [self._show(word) for word in value.split()]
            lines.append(f"{name} = {' '.join(words)}")
            if name == "cert":  # of whatever else loads something
                self._variables["SSL_CERT_FILE"] = words[0]
        (self._root / "etc/pip.conf").write_text("\n".join(lines) + "\n")

    def _show(self, word: str) -> str:
        """Where the other Debian finds a file or folder of this one; other words as they are."""
        parts = urlsplit(word)
        path = Path(parts.path)
        if parts.scheme not in ("", "file") or not path.is_absolute() or not path.exists():
            return word
        there = _SHOWN / str(len(self._shown))
        # An index of files may lead to a folder beside it.
        self._shown.append((path.parent if path.is_dir() else path, there))
        there = there / path.name if path.is_dir() else there
        return f"{parts.scheme}://{there}" if parts.scheme else str(there)

    def run(self, code: str, *, root: bool = False) -> int:
        """Run commands there, in the clone, and print what they print; their exit code.

        They have a namespace of their own for mounts and processes: nothing is left of them.
        """
        inside = self._root / "run/commands"
        inside.write_text(script(code, echo=not root) if not root else f"set -e\n{code}\n")
        steps = [f"cd {shlex.quote(str(self._root))}", "mount -t proc proc proc"]
        steps += ["mkdir -p dev/shm", "mount -t tmpfs -o mode=1777 tmpfs dev/shm"]
        steps += [f"mount --bind /dev/{name} dev/{name}" for name in ("null", "urandom", "random")]
        for path, there in self._shown:
            here = f".{there}"
            kind = "mkdir -p" if path.is_dir() else "install -D /dev/null"
            steps.append(f"{kind} {here}; mount --bind -o ro {shlex.quote(str(path))} {here}")
        user = "root" if root else USER
        home = "/root" if root else f"/home/{USER}"
        variables = {
            "HOME": home,
            "USER": user,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            **self._variables,
        }
        words = ["exec", "chroot", *([] if root else [f"--userspec={UID}:{UID}"]), "."]
        words += ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        words += ["bash", "-c"]
        folder = "/" if root else f"{home}/llcuda"
        words.append(f"cd {folder} && exec bash /run/commands </dev/null")
        unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        done = subprocess.run(
            [*unshare, "bash", "-ec", "\n".join([*steps, shlex.join(words)])],
            timeout=_PATIENCE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode


def pip_settings() -> dict[str, str]:
    """What pip is told on this machine, whichever way; those of the environment count more."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    environment: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        where, _, key = name.rpartition(".")
        given = " ".join(value.strip("'\"").replace("\\n", " ").split())
        (environment if where == ":env:" else settings)[key] = given
    return {**settings, **environment}


def commands_of_readme() -> tuple[list[Block], list[Block]]:
    """What root runs, and what the user does."""
    found = blocks(ROOT, "README.md")
    root = [block for block in found if block.code.startswith("apt ")]
    user = [b for b in found if b.kind == "run by" and b.words == f"tools/{PROG}.py"]
    return root, user


def demand(code: int, release: str, block: Block) -> None:
    """End with one line where commands have failed."""
    if code:
        fail(f"{release}: {block.page}:{block.line} ended with {code}", Exit.REFUSED)


def say(text: str) -> None:
    """Print at once what is done."""
    echo(text, flush=True)


def check(release: str, mirror: str, keep: Path | None) -> None:
    """One release, from nothing to an answer."""
    with tempfile.TemporaryDirectory(prefix="llcuda-fresh-") as name:
        folder = (keep or Path(name)) / release
        folder.mkdir(parents=True)
        debian = Debian(folder, release)
        debian.make(mirror)
        begun = time.monotonic()
        root, user = commands_of_readme()
        for block in root:
            say(f"# {release}, as root: README.md:{block.line}")
            demand(debian.run(block.code, root=True), release, block)
        for block in user:
            say(f"$ {release}, as {USER}: README.md:{block.line}")
            demand(debian.run(block.code), release, block)
        say(f"{release}: README.md leads to an answer, in {time.monotonic() - begun:.0f} s")


def run(releases: Sequence[str], mirror: str, keep: Path | None) -> int:
    """Check each; returns the exit code."""
    if os.geteuid() != 0:
        fail("this needs root, for debootstrap and chroot")
    if shutil.which("debootstrap") is None:
        say("installing debootstrap")
        apt = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", "debootstrap"]
        for command in (["apt-get", "update", "-qq"], apt):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for release in releases:
        check(release, mirror, keep)
    return Exit.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog=PROG,
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="example: make test-fresh ARGS=trixie",
    )
    parser.add_argument(
        "releases", nargs="*", metavar="RELEASE", help=f"of Debian ({', '.join(RELEASES)})"
    )
    parser.add_argument("--mirror", default=MIRROR, metavar="URL", help=f"of Debian ({MIRROR})")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make them there, and keep them")
    arguments = parser.parse_args(argv)
    releases = arguments.releases or RELEASES
    return run_command(PROG, lambda: run(releases, arguments.mirror, arguments.keep))


if __name__ == "__main__":
    sys.exit(main())

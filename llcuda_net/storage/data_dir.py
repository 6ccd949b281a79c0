"""The data directory: its default place, its preparation, and who may read it.

It holds what everybody asked and was answered. So the folder is its owner's alone (0700), and each
file in it too (0600), whatever the umask is: then neither a backup that keeps modes nor a folder
that is opened later shows them. What an earlier version, or somebody's `mkdir`, has left open to
others is closed; a folder that is somebody else's is refused, since its owner could replace what is
in it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import structlog

from llcuda_net.errors import StorageError

log = structlog.get_logger(__name__)

#: What the group and others may do.
_OTHERS = 0o077
#: Our files. Only these are closed: somebody may have named a folder that holds other things too.
_OURS = ("lock", "results.db*", "derived.db*", "objects.db*", "models.json*", "version.json*")
_JOURNAL, _TRANSIENT = "journal", "transient"
#: What a restore into the folder has while it is not done.
RESTORING = ".restoring"
#: What a folder may hold and still be empty for us: a volume has the first.
NOBODYS = ("lost+found",)


def default_directory() -> Path:
    """The platform's folder for a user's data: ~/.local/share/llcuda on Linux."""
    return platformdirs.user_data_path("llcuda", appauthor=False)


def journal_of(directory: Path) -> Path:
    """The folder of a data directory's journal."""
    return directory / _JOURNAL


def transient_of(directory: Path) -> Path:
    """The folder of a data directory's results that are erased when they are due."""
    return directory / _TRANSIENT


def prepare(directory: Path, *, shared: bool = False) -> Path:
    """Make a data directory that only its owner can read, and the folders in it.

    Args:
        shared: take the folder as it is: it may be open to others, or somebody else's. Our files
            in it are closed nevertheless.

    Returns:
        The journal's folder.

    Raises:
        StorageError: it cannot be made, or others could read or replace what is in it.
    """
    journal, transient = journal_of(directory), transient_of(directory)
    prepare_folder(directory, shared=shared)
    at = directory
    try:
        for at in (journal, transient):
            at.mkdir(mode=0o700, exist_ok=True)
        _close([journal, transient, *_files(directory)])
    except OSError as error:
        raise _unusable(directory, at, error) from error
    return journal


def prepare_folder(directory: Path, *, shared: bool = False) -> None:
    """Make a data directory that only its owner can read, and nothing in it.

    Raises:
        StorageError: as `prepare`.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not shared:
            _keep_private(directory)
    except OSError as error:
        raise _unusable(directory, directory, error) from error


def create_private(path: Path) -> None:
    """Make an empty database file that only its owner can read; close one that is there to others.

    SQLite makes its files with mode 0644, and gives the WAL and its index the mode of the database.

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Never opened: to close it would end the locks that SQLite holds on it in this process.
        _close([path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))])


def _keep_private(directory: Path) -> None:
    """Close the folder to others.

    Raises:
        StorageError: it is somebody else's, or cannot be closed.
    """
    link = directory.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise _refused(directory, f"is a link that the user {_name(link.st_uid)} has made")
    # The descriptor is of one folder, whatever the path names a moment later.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid():
            raise _refused(directory, f"belongs to the user {_name(found.st_uid)}, not to us")
        if not mode & _OTHERS:
            return
        if not _may_be_ours(directory):
            raise _refused(directory, "holds other things, and others can read it")
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, mode & ~_OTHERS)
        if os.fstat(descriptor).st_mode & _OTHERS:  # a file system without modes
            raise _refused(directory, f"can be read by others (mode {mode:o}), and stays so")
    finally:
        os.close(descriptor)
    log.warning("data_dir_closed_to_others", path=str(directory), mode=f"{mode:o}")


def _may_be_ours(directory: Path) -> bool:
    """Whether it has our files, or nothing: no folder of other things loses its mode."""
    names = [path.name for path in directory.iterdir() if path.name not in NOBODYS]
    return all(name.startswith(".") for name in names) or any(
        name in ("lock", _JOURNAL, "results.db", "models", "processes") for name in names
    )


def _unusable(directory: Path, at: Path, error: OSError) -> StorageError:
    reason = error.strerror
    if isinstance(error, FileExistsError):
        reason = f"{at} is {'a link to no folder' if at.is_symlink() else 'no folder'}"
    return StorageError(
        f"the data directory {directory} cannot be used ({reason}): choose another --data-dir",
        StorageError.REFUSED,
    )


def _refused(directory: Path, why: str) -> StorageError:
    return StorageError(
        f"the data directory {directory} {why}: choose another --data-dir, make it yours alone "
        "(chown, chmod 700), or give --data-dir-shared if that is meant",
        StorageError.REFUSED,
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _files(directory: Path) -> Iterator[Path]:
    for pattern in _OURS:
        yield from directory.glob(pattern)
    for folder in (journal_of(directory), transient_of(directory)):
        yield from folder.iterdir()


def _close(paths: list[Path]) -> None:
    """Take away what others may do with files and folders of ours; links are left alone."""
    closed = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # SQLite removes its WAL when it closes
            found = path.lstat()
            mode = stat.S_IMODE(found.st_mode)
            if stat.S_ISLNK(found.st_mode) or not mode & _OTHERS:
                continue
            if found.st_uid != os.geteuid():
                log.warning("file_open_to_others", path=str(path), mode=f"{mode:o}")
                continue
            # Where a file system has no modes, this fails or changes nothing.
            with contextlib.suppress(PermissionError):
                path.chmod(mode & ~_OTHERS)
                closed += 1
    if closed:
        log.warning("files_closed_to_others", files=closed, folder=str(paths[0].parent))

"""The file operations of the journal, as an interface that tests replace by a failing disk.

All paths are absolute. Every method raises OSError as the system call does.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

from llcuda_net.errors import StorageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
#: Of a write that must not wait: the file system or the system knows no such thing.
NEVER_NOW = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Files(Protocol):
    """The file operations that the journal needs."""

    def listdir(self, folder: Path) -> list[str]:
        """The names in a folder, in no particular order."""

    def read(self, path: Path) -> bytes:
        """The whole content of a file."""

    def create(self, path: Path) -> int:
        """Create a file: its descriptor, for writing."""

    def pwrite(self, descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write some or all of the data: the number of bytes written."""

    def write_now(self, descriptor: int, data: bytes | bytearray, offset: int) -> int:
        """As pwrite, but rather raise BlockingIOError, or write less, than wait for the disk.

        An error with one of NEVER_NOW says that the file system cannot.
        """

    def fdatasync(self, descriptor: int) -> None:
        """Force a file's data and length to the disk."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Shorten a file to a size in bytes."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""

    def unlink(self, path: Path) -> None:
        """Delete a file."""

    def rename(self, path: Path, new: Path) -> None:
        """Give a file another name; only its owner may read it then."""

    def identity(self, path: Path) -> tuple[int, int]:
        """What tells the file that a path names from every other one that is open."""

    def fsync_dir(self, folder: Path) -> None:
        """Force a folder's entries to the disk."""


class RealFiles:
    """The operating system's files."""

    def listdir(self, folder: Path) -> list[str]:
        """See Files."""
        return [path.name for path in folder.iterdir()]

    def read(self, path: Path) -> bytes:
        """See Files."""
        return path.read_bytes()

    def create(self, path: Path) -> int:
        """See Files."""
        # It holds prompts: only the owner may read it.
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    #: See Files. The system call itself: it is called once per batch of tokens.
    pwrite = staticmethod(os.pwrite)

    def write_now(self, descriptor: int, data: bytes | bytearray, offset: int) -> int:
        """See Files."""
        if not hasattr(os, "RWF_NOWAIT"):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        return os.pwritev(descriptor, [data], offset, os.RWF_NOWAIT)

    def fdatasync(self, descriptor: int) -> None:
        """See Files."""
        sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """See Files."""
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        """See Files."""
        os.close(descriptor)

    def unlink(self, path: Path) -> None:
        """See Files."""
        path.unlink()

    def rename(self, path: Path, new: Path) -> None:
        """See Files."""
        path.chmod(0o600)
        path.rename(new)

    def identity(self, path: Path) -> tuple[int, int]:
        """See Files."""
        found = path.stat()
        return found.st_dev, found.st_ino

    def fsync_dir(self, folder: Path) -> None:
        """See Files."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync(descriptor: int) -> None:
    """Force a file's data to the disk, as far as the system can.

    On macOS fsync leaves data in the drive's own cache. F_FULLFSYNC does not, but some file systems
    do not support it.
    """
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
        return
    import fcntl

    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def has_no_room(error: OSError) -> bool:
    """Whether it failed since the disk, or the user's part of it, is full."""
    return error.errno in _NO_ROOM


def as_storage_error(error: OSError, *, failed: bool = False) -> StorageError:
    """The error for a failed operation on the journal's files."""
    if not failed and has_no_room(error):
        return StorageError(
            "there is no room for the journal: free some disk space, or choose another --data-dir",
            StorageError.FULL,
        )
    return StorageError(
        f"the journal cannot be written ({error.strerror or error}): "
        "check the disk, then restart llcuda-server",
        StorageError.FAILED,
    )

"""The file operations of the journal, as an interface that tests replace by a failing disk.

All paths are absolute. Every method raises OSError as the system call does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol


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

    def fdatasync(self, descriptor: int) -> None:
        """Force a file's data and length to the disk."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Shorten a file to a size in bytes."""

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""

    def unlink(self, path: Path) -> None:
        """Delete a file."""

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

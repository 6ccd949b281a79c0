"""The file operations that the journal is built on, so that tests can put a failing disk in place.

All names are absolute paths. Every method raises OSError as the system call does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """What the journal needs of a disk."""

    def listdir(self, folder: Path) -> list[str]:
        """Names in a folder, in no order."""

    def read(self, path: Path) -> bytes:
        """All of a file."""

    def create(self, path: Path) -> int:
        """A descriptor of a new file, to be written."""

    def pwrite(self, descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write, perhaps not all; returns how many bytes."""

    def fdatasync(self, descriptor: int) -> None:
        """Force a file's data, and the length that goes with it, to the disk."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor."""

    def unlink(self, path: Path) -> None:
        """Delete a file."""

    def fsync_dir(self, folder: Path) -> None:
        """Force a folder's entries to the disk: which files there are."""


class RealFiles:
    """The operating system's."""

    def listdir(self, folder: Path) -> list[str]:
        """See Files."""
        return [path.name for path in folder.iterdir()]

    def read(self, path: Path) -> bytes:
        """See Files."""
        return path.read_bytes()

    def create(self, path: Path) -> int:
        """See Files."""
        # Prompts are in it: nobody else's to read.
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

    On macOS fsync leaves data in the drive's own cache; F_FULLFSYNC does not, but not every file
    system knows it.
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

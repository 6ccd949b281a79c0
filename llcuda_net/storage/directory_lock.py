"""One server per data directory. The system releases the lock however its holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from llcuda_net.errors import StorageError

#: Attempts to take the lock, and seconds between them: `holder` holds it for a moment only.
_TRIES, _PAUSE = 5, 0.01


def holder(directory: Path) -> str | None:
    """The address of the server that uses a directory; None: no server, "": not known."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        return text.partition(", ")[2]
    else:
        return None
    finally:
        os.close(descriptor)


class DirectoryLock:
    """An exclusive lock on a directory, held until `release`.

    Args:
        directory: must exist.
        address: the holder's address, for processes that find the directory locked.

    Raises:
        StorageError: another process holds the lock; the message names it.
    """

    def __init__(self, directory: Path, address: str = "") -> None:
        self._path = path = directory / "lock"
        self._held = True
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be opened ({error.strerror}): choose another --data-dir",
                StorageError.REFUSED,
            ) from error
        try:
            self._take()
        except OSError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StorageError(
                f"the data directory {directory} is in use by {holder or 'another process'}: "
                "stop it, or choose another --data-dir",
                StorageError.REFUSED,
            ) from error
        # `holder` reads the old text, none or the new one, never a mix.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()}, {address}".rstrip(", ").encode(), 0)

    def __repr__(self) -> str:
        return f"<DirectoryLock {self._path}, {'held' if self._held else 'released'}>"

    def _take(self) -> None:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not left:
                    raise
            time.sleep(_PAUSE)

    def release(self) -> None:
        """Release the lock. The file stays: it may be a new holder's by the time it is deleted."""
        self._held = False
        os.close(self._descriptor)

"""One server a data directory. The system lets go of the lock however its holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from llcuda_net.errors import StorageError

#: How often the lock is tried for, and seconds between: whoever only looks holds it for no time.
_TRIES, _PAUSE = 5, 0.01


def holder(directory: Path) -> str | None:
    """Where the server of a directory serves; None if it has none, "" if that is not known."""
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
    """Held from its making to `release`.

    Args:
        directory: exists.
        address: where the holder serves, for whoever finds it locked.

    Raises:
        StorageError: another process holds it; the message says which.
    """

    def __init__(self, directory: Path, address: str = "") -> None:
        path = directory / "lock"
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
        # A new holder writes over the old text before anybody could read the two mixed up.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()}, {address}".rstrip(", ").encode(), 0)

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
        """Let others have it. The file stays: deleting it could take a new holder's."""
        os.close(self._descriptor)

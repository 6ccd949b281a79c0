"""One server a data directory. The system lets go of the lock however its holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from llcuda_net.errors import StorageError


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
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

    def release(self) -> None:
        """Let others have it. The file stays: deleting it could take a new holder's."""
        os.close(self._descriptor)

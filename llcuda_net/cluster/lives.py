"""Which lives a data directory has had: a restart need not wait until the last one's lease is over.

The directory belongs to one process at a time, so a life that is noted in it is over when another
process has it. A copy of the directory would have the lives of a server that still runs: copy data,
never a directory that is served elsewhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from llcuda_net.errors import StorageError

_NAME = "lives"


class Lives:
    """Numbers of lives that may not be settled yet, by the store that counts them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._store = ""

    def __repr__(self) -> str:
        return f"<Lives in {self._path}>"

    def begin(self, store: str, number: int) -> list[int]:
        """Note one more life; those before it, oldest first. It is on the disk when this returns.

        Args:
            store: identity of the database: another one has other numbers.

        Raises:
            StorageError: it cannot be noted.
        """
        self._store = store
        known = self._read()
        former = [one for one in known.get(store, []) if one != number]
        self._write({**known, store: [*former, number]})
        return former

    def known(self, store: str) -> list[int]:
        """Those that are noted, oldest first. Raises StorageError."""
        return self._read().get(store, [])

    def settled(self, number: int) -> None:
        """All lives but this one are over, and nothing is left of them.

        Raises:
            StorageError: it cannot be noted.
        """
        self._write({**self._read(), self._store: [number]})

    def _read(self) -> dict[str, list[int]]:
        try:
            found = json.loads(self._path.read_bytes())
            return {str(store): [int(one) for one in of] for store, of in found.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error}") from error
        except (ValueError, AttributeError, TypeError):
            # Of a power cut, or somebody else's: its lives end with their leases.
            return {}

    def _write(self, lives: dict[str, list[int]]) -> None:
        beside = self._path.with_name(f"{_NAME}.new")
        try:
            with beside.open("wb") as file:
                file.write(json.dumps(lives).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error}") from error

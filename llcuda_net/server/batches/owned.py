"""The store as the run of one batch uses it: it changes nothing of a batch that another has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects import batches
from llcuda_net.storage.objects.interface import Database

_T = TypeVar("_T")


class _ElsewhereError(Exception):
    """Another server has the batch."""


class OwnedObjects:
    """Reads and changes what clients keep, for a batch.

    Each change locks the batch's row and sees whose it is. So what a server writes that was taken
    for dead is before the takeover, and seen by it, or is not written.

    Args:
        objects: all that is kept.
        seq: the batch's number.
        life: that of this server, by which it has the batch.
        lost: called where another has it; ends the run.
    """

    def __init__(self, objects: KeptObjects, seq: int, life: int, lost: Callable[[], None]) -> None:
        self._objects = objects
        self._seq = seq
        self._life = life
        self._lost = lost

    def __repr__(self) -> str:
        return f"<OwnedObjects of batch {self._seq}, life {self._life}>"

    async def read(self, question: Callable[[Database], _T]) -> _T:
        """See KeptObjects."""
        return await self._objects.read(question)

    async def write(self, change: Callable[[Database], _T]) -> _T:
        """See KeptObjects. Never returns where another server has the batch."""
        if not self._objects.shared:
            return await self._objects.write(change)

        def guarded(db: Database) -> _T:
            if not batches.is_of(db, self._seq, self._life):
                raise _ElsewhereError
            return change(db)

        try:
            return await self._objects.write(guarded)
        except _ElsewhereError:
            self._lost()
            await trio.sleep_forever()

    def wake(self) -> None:
        """See KeptObjects."""
        self._objects.wake()

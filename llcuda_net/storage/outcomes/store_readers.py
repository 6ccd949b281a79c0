"""Reads results, in threads, each with a connection of its own to the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.presence import Presence
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.results.writer import OpenStore
from llcuda_net.storage.transient.results import TransientResults

_T = TypeVar("_T")
#: Threads that read results at a time.
_READERS = 4


class StoreReaders:
    """Reads what a storage has: in its store, and of transient generations.

    Args:
        open_store: opens the store, for reading.
        presence: looks whether the files are still there, where something cannot be read.
    """

    def __init__(
        self, open_store: OpenStore, transient: TransientResults, presence: Presence
    ) -> None:
        self._open_store = open_store
        self._transient = transient
        self._presence = presence
        self._limiter = trio.CapacityLimiter(_READERS)
        self._idle: list[Store] = []

    def __repr__(self) -> str:
        return f"<StoreReaders, {len(self._idle)} connections idle>"

    async def aclose(self) -> None:
        """Close the connections, which nobody uses any more."""
        for store in self._idle:
            await trio.to_thread.run_sync(store.close)

    async def get(self, id_: str, owner: str | None, made: Callable[[Result], _T]) -> _T | None:
        """The result of an owner (None: anybody's), as `made` makes it; None: there is none.

        Args:
            made: called with the result, in the thread that read it.

        Raises:
            StorageError: as `read`.
        """
        if id_ in self._transient:
            return await self._transient.get(id_, owner, made)

        def get(store: Store) -> _T | None:
            found = store.get(id_, owner)
            return None if found is None else made(found)

        return await self.read(get)

    async def find_by_key(self, key: str, owner: str) -> Result | None:
        """The newest result with an idempotency key of this owner.

        Raises:
            StorageError: as `read`.
        """
        stored = await self.read(lambda store: store.find_by_key(key, owner))
        found = await self._transient.find_by_key(key, owner)
        if stored is None or (found is not None and found.created >= stored.created):
            return found
        return stored

    async def read(self, question: Callable[[Store], _T]) -> _T:
        """Ask the store something, in a thread: `await storage.read(lambda s: s.get(id))`.

        Raises:
            StorageError: what the question raises.
        """
        async with self._limiter:
            store = self._idle.pop() if self._idle else None

            def ask() -> _T:
                nonlocal store
                try:
                    if store is None:
                        store = self._open_store(False)
                    return question(store)
                except StorageError:
                    # A file that is gone shows as damage, or as a folder without results.
                    self._presence.check()
                    raise

            try:
                return await trio.to_thread.run_sync(ask)
            finally:
                if store is not None:
                    self._idle.append(store)

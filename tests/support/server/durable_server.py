"""A server in memory with a real journal and store behind it, in a folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from llcuda_net.generation.persistence import Persistence
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.records import Level, Result
from llcuda_net.storage.replica.interface import Replica
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import WATCH, Storage
from llcuda_net.upstream.backend import Backend
from tests.support.server.memory_server import FakeUpstream, MemoryListener, serving


@contextlib.asynccontextmanager
async def keeping(
    folder: Path,
    upstream: FakeUpstream | Sequence[Backend],
    level: Level = Level.DISK,
    on_sync: Callable[[float], None] | None = None,
    files: Files | None = None,
    watch: float = WATCH,
    clock: Callable[[], int] = time.time_ns,
    replica: Replica | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Storage, MemoryListener]]:
    """Leaving it ends the server as a kill would: what runs stays open in the journal."""
    storage = Storage(
        folder, on_sync=on_sync, files=files, watch=watch, clock=clock, replica=replica
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        async with serving(upstream, persistence=Persistence(storage, level), **settings) as (
            server,
            listener,
        ):
            listener.server = server
            yield storage, listener
        nursery.cancel_scope.cancel()


def stored(folder: Path) -> list[Result]:
    """All results, oldest first."""
    store = SqliteStore(folder)
    try:
        return sorted(store.export(Query(limit=None)), key=lambda result: result.created)
    finally:
        store.close()

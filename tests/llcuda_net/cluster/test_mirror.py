"""The mirror on a real PostgreSQL: what is told, and what the database has then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from llcuda_net.cluster import leases, recovery
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.migrations import migrate
from llcuda_net.storage.postgres.opening import open_postgres
from llcuda_net.storage.records import Ended, Level, TokenLog
from llcuda_net.storage.storage import Storage
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import MODEL, opened

_T = TypeVar("_T")
LONG = 3600.0
END: dict[str, Any] = {"state": "done", "reason": "stop", "model": MODEL, "finished": 5}


class Database:
    """A database of servers, and what a test asks it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = Session(url, write=True)
        migrate(self.session)

    def do(self, work: Callable[[Connection], _T]) -> _T:
        return self.session.change("it", work)

    def join(self) -> int:
        return self.do(lambda db: leases.join(db, "name", "127.0.0.1:1", LONG))

    def fence(self, me: int, other: int) -> None:
        """Have a server fenced whatever its lease says."""
        self.do(lambda db: leases.renew(db, other, -1.0))
        assert self.do(lambda db: leases.fence(db, me, other))

    def logs(self, server: int) -> dict[str, list[str]]:
        """What another server would find of a server's generations."""
        found = self.do(lambda db: recovery.read(db, server)).generations
        return {one.id: one.log.pieces for one in found}

    def owned(self, server: int) -> set[str]:
        return {*self.do(lambda db: leases.owned(db, server))}

    @asynccontextmanager
    async def serving(
        self, directory: Path, number: int, former: tuple[int, ...] = ()
    ) -> AsyncIterator[Storage]:
        mirror = Mirror(self.url)
        mirror.begin(number, former)
        storage = Storage(
            directory,
            interval=0,
            open_store=lambda write: open_postgres(self.url, write),
            replica=mirror,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(storage.run)
            yield storage
            nursery.cancel_scope.cancel()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    out = Database(postgres.new_database())
    yield out
    out.session.close()


def grown(kept: JournalEntry, count: int) -> None:
    first = kept.count
    kept.append([f"t{i}" for i in range(first, first + count)], [*range(first, first + count)])


def pieces(count: int) -> list[str]:
    return [f"t{i}" for i in range(count)]


async def committed(storage: Storage) -> None:
    assert storage.replica is not None
    storage.journal.write()
    await storage.replica.until(storage.replica.position)


async def test_a_generation_from_beginning_to_end(database: Database, tmp_path: Path) -> None:
    one = database.join()
    async with database.serving(tmp_path, one) as storage:
        kept = storage.start(opened(1, level=Level.CLUSTER, owner="ann"))
        await storage.accepted(kept)
        assert database.logs(one) == {"generation-1": []}
        grown(kept, 5)
        await committed(storage)
        assert database.logs(one) == {"generation-1": pieces(5)}
        log = TokenLog(pieces(5), [*range(5)])
        result = await storage.finish(kept, Ended(**END), log)
        assert database.owned(one) == set()
        assert await storage.read(lambda store: store.get("generation-1")) == result

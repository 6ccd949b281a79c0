"""A changed --store is another store: what the one before has is not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import trio

from llcuda_net.storage.postgres.opening import open_postgres
from llcuda_net.storage.records import Ended, Result, TokenLog
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.storage import Storage
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import MODEL, opened


@asynccontextmanager
async def running(directory: Path, url: str | None) -> AsyncIterator[Storage]:
    def open_store(write: bool) -> Store:
        assert url is not None
        return open_postgres(url, write)

    storage = Storage(directory, interval=0, open_store=None if url is None else open_store)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        yield storage
        nursery.cancel_scope.cancel()


async def finished(storage: Storage, number: int) -> Result:
    entry = storage.start(opened(number))
    await storage.accepted(entry)
    log = TokenLog(["a"], [1])
    entry.append(log.pieces, log.ids)
    return await storage.finish(entry, Ended(state="done", model=MODEL, finished=5), log)


async def start(directory: Path, url: str | None, number: int | None = None) -> list[str]:
    """What a start says of losses; then it stores one result."""
    async with running(directory, url) as storage:
        if number is not None:
            await finished(storage, number)
        return storage.problems


async def test_each_store_is_asked_for_what_it_had_itself(
    postgres: Postgres, tmp_path: Path
) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    number = 0
    for url in (None, first, second, first, None, None, second):
        assert await start(tmp_path, url, number) == []
        number += 1
    # Also where the journal has a record of each result, and no list of them yet.
    async with running(tmp_path, first) as storage:
        await finished(storage, number)
        await storage.sync()
    assert await start(tmp_path, None) == []


async def test_a_database_that_was_emptied_or_set_back_has_lost_results(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    for number in range(3):
        assert await start(tmp_path, url, number) == []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA llcuda CASCADE")  # the same place, another identity
    (problem,) = await start(tmp_path, url)
    assert "the store has lost 3 results" in problem
    assert await start(tmp_path, url, 3) == []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM llcuda.results; UPDATE llcuda.store SET reached = 0")
    elsewhere = url.replace("host=/", f"host={quote('//')}", 1)  # the same identity, another place
    assert elsewhere != url
    (problem,) = await start(tmp_path, elsewhere)
    assert "the store has lost 2 results" in problem

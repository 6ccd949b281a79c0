"""A database of the first PostgreSQL schema is brought up to date with all its rows.

tests/data/database_bb44b9d7.zip was made by tools/make_earlier_database.py, which says how.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from llcuda_net.errors import NewerFormat
from llcuda_net.storage.postgres.migrations import MIGRATIONS
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Query
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

ARCHIVE = Path(__file__).resolve().parents[3] / "data" / "database_bb44b9d7.zip"


@pytest.fixture
def url(postgres: Postgres) -> str:
    """The database as it was."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        dump = archive.read("dump.sql").decode()
    # Lines for psql begin with a backslash.
    sql = "\n".join(line for line in dump.splitlines() if not line.startswith("\\"))
    # What servers of earlier versions of PostgreSQL do not know.
    sql = sql.replace("SET transaction_timeout = 0;", "")
    url = postgres.new_database()
    with psycopg.connect(url) as connection:
        connection.execute(sql.encode())
    return url


@pytest.fixture
def expected() -> dict[str, Any]:
    with zipfile.ZipFile(ARCHIVE) as archive:
        found: dict[str, Any] = json.loads(archive.read("expected.json"))
    return found


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(url, write=True)
    yield store
    store.close()


def numbers(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        sql = "SELECT number FROM llcuda.migrations ORDER BY number"
        return [number for (number,) in connection.execute(sql)]


def test_every_row_is_there(url: str, expected: dict[str, Any]) -> None:
    assert numbers(url) == [1]
    store = PostgresStore(url, write=True)
    assert numbers(url) == [one.number for one in MIGRATIONS]
    before = [
        msgspec.msgpack.decode(base64.b64decode(data), type=Result) for data in expected["results"]
    ]
    assert len(before) == 8
    assert list(store.export(Query(limit=None))) == before
    assert [hit.summary.id for hit in store.search("number", Query())] == expected["found"]
    stats = store.stats()
    assert (stats.states, stats.tokens) == (expected["states"], expected["tokens"])
    assert not [problem for problem in store.verify() if problem]
    store.close()


def test_what_was_computed_is_there(store: PostgresStore) -> None:
    (space,) = store.analyses.spaces()
    (page,) = store.analyses.embeddings(space.id)
    assert [(one.scale, one.codes) for one in page] == [(0.5, b"ab"), (0.25, b"cd")]
    figures = [store.analyses.certainty(result(number).id) for number in range(3)]
    assert [one is not None for one in figures] == [False, True, True]


def test_it_goes_on(store: PostgresStore) -> None:
    reached = store.reached()
    store.put([result(50)])
    assert store.reached() == reached + 1
    assert store.get(result(50).id) == result(50)
    found = store.find_by_key("a\0key", "ann")
    assert found is not None
    assert found.id == result(0).id


def test_a_newer_one_is_refused_and_stays_as_it_is(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO llcuda.migrations VALUES (99, 'of tomorrow', now())")
    before = numbers(url)
    for write in (True, False):
        with pytest.raises(NewerFormat, match="has version 99, this llcuda knows up to 7") as it:
            PostgresStore(url, write=write)
        assert "\n" not in str(it.value)
    assert numbers(url) == before == [1, 99]

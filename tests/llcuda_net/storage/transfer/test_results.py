"""Results move from SQLite to PostgreSQL and back, whole, however often it is interrupted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.channels import Switch
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import Result, Splice, TokenLog, encode, packed
from llcuda_net.storage.results.interface import Query, Store
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.transfer import results as module
from llcuda_net.storage.transfer.results import index, transfer
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

#: Of every kind: nothing, everything, NUL, other scripts, a large one, one of a user with a key.
RESULTS = [
    result(0, 0),
    result(1, state="failed", error={"code": "internal", "message": "a\0b"}, reason=""),
    result(2, owner="ann", key="k\0", request={"prompt": "wörter 漢字 \0 😀"}, level="strict"),
    result(3, 5000),
    result(4, 2, splices=[Splice(1, "http://b", 7)], switches=[Switch(1, "reasoning")]),
    result(5, log=TokenLog(["a"], [None], [packed([[1, b"a", -0.5, []]])])),
    result(6, cached_from="result-000003", cacheable=False, on_disconnect=1.5, stop="\n"),
    *(result(number) for number in range(7, 40)),
]


@pytest.fixture(params=["to postgres", "to sqlite"])
def two(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path
) -> Iterator[tuple[Store, Store]]:
    """A store with results, and an empty one."""
    with (
        closing(SqliteStore(tmp_path, write=True)) as sqlite,
        closing(PostgresStore(postgres.new_database(), write=True)) as database,
    ):
        out: tuple[Store, Store] = (sqlite, database)
        out = out if request.param == "to postgres" else (out[1], out[0])
        out[0].put(RESULTS)
        yield out


def all_of(store: Store) -> dict[str, bytes]:
    return {one.id: encode(one) for one in store.export(Query(limit=None))}


def test_every_byte_arrives_and_a_second_time_nothing_does(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 7)
    source, target = two
    batches: list[int] = []
    done = transfer(source, target, batches.append)
    assert (done.copied, done.there, done.problems) == (len(RESULTS), 0, [])
    assert sum(batches) == len(RESULTS)
    assert all_of(target) == all_of(source) == {one.id: encode(one) for one in RESULTS}
    index(target)
    assert target.unindexed() == 0
    assert [hit.summary.id for hit in target.search("漢字", Query())] == ["result-000002"]
    done = transfer(source, target)
    assert (done.copied, done.there, done.problems) == (0, len(RESULTS), [])
    assert target.reached() == len(RESULTS)


def test_what_was_interrupted_goes_on(
    two: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    source, target = two
    there = 0
    for most in range(1, 20):
        left = iter(range(most))  # batches, until somebody interrupts

        def stop(_: int, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            transfer(source, target, stop)
        now = len(all_of(target))
        assert now >= there
        there = now
    assert all_of(target) == all_of(source)
    assert target.reached() == len(RESULTS)  # none was ever stored twice


def test_another_result_of_that_id_is_left_and_named(two: tuple[Store, Store]) -> None:
    source, target = two
    other = result(9, 3, owner="bob")
    target.put([other])
    done = transfer(source, target)
    assert [one.id for one in done.problems] == [other.id]
    assert "another one" in done.problems[0].message
    assert all_of(target)[other.id] == encode(other)
    assert len(all_of(target)) == len(RESULTS)


def test_a_result_that_is_damaged_at_the_source_is_left_out_and_named(
    postgres: Postgres, tmp_path: Path
) -> None:
    with closing(SqliteStore(tmp_path, write=True)) as source:
        source.put(RESULTS)
        with closing(sqlite3.connect(tmp_path / "results.db")) as db, db:
            db.execute("UPDATE results SET log = zeroblob(9) WHERE id = 'result-000008'")
        with closing(PostgresStore(postgres.new_database(), write=True)) as target:
            done = transfer(source, target)
            assert [one.id for one in done.problems] == ["result-000008"]
            assert done.copied == len(RESULTS) - 1
            assert all_of(target) == {
                one.id: encode(one) for one in RESULTS if one.id != "result-000008"
            }


def test_a_result_that_is_damaged_there_is_replaced(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with (
        closing(SqliteStore(tmp_path, write=True)) as source,
        closing(PostgresStore(url, write=True)) as target,
    ):
        source.put(RESULTS)
        transfer(source, target)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE llcuda.results SET log = 'x' WHERE id = 'result-000008'")
        done = transfer(source, target)
        assert (done.copied, done.there, done.problems) == (1, len(RESULTS) - 1, [])
        assert all_of(target) == all_of(source)


class Narrow:
    """A store that takes one result at a time, as PostgreSQL does where they are very large."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, results: Sequence[Result]) -> None:
        if len(results) > 1:
            raise StorageError("too large", StorageError.INVALID)
        self._store.put(results)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_what_is_too_large_together_goes_one_by_one(two: tuple[Store, Store]) -> None:
    source, target = two
    done = transfer(source, Narrow(target))  # type: ignore[arg-type]
    assert done.copied == len(RESULTS)
    assert all_of(target) == all_of(source)

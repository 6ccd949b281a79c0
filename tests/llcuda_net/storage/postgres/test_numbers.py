"""Numbers are seen in their order, though transactions end in any; and ids are stored once.

Each interleaving is made by hand: a transaction stands where the test has left it, and who waits
for it is seen to wait in PostgreSQL's own view of locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from llcuda_net.storage.packing.codec import Codec
from llcuda_net.storage.postgres.connection import Session
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.postgres.writing import Putter, delete
from llcuda_net.storage.records import Result
from tests.support.storage.interleaving import standing, wait_for_lock
from tests.support.storage.postgres import Postgres
from tests.support.storage.records import result

SHARED = {"prompt": "A text that is long enough to be shared. " * 50}


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as out:
        yield out


def put(results: list[Result]) -> Callable[[Session], None]:
    return lambda session: Putter(session, Codec()).put(results)


def numbers(store: PostgresStore, after: int = 0) -> list[int]:
    return [one.seq for one in store.analyses.unembedded(after, 100)]


def test_a_later_number_waits_for_an_earlier_one(url: str, pool: ThreadPoolExecutor) -> None:
    store, other = PostgresStore(url, write=True), PostgresStore(url, write=True)
    with standing(url, pool, put([result(1), result(2)])):
        later = pool.submit(other.put, [result(3)])
        wait_for_lock(url)
        assert numbers(store) == []
        assert not later.done()
    later.result(60)
    assert numbers(store) == [1, 2, 3]
    found = store.get(result(3).id)
    assert found is not None
    assert store.reached() == 3
    for one in (store, other):
        one.close()


def test_the_same_result_of_two_is_stored_once(url: str, pool: ThreadPoolExecutor) -> None:
    store, other = PostgresStore(url, write=True), PostgresStore(url, write=True)
    one = result(1, request=SHARED, reason="first")
    with standing(url, pool, put([one, result(2, request=SHARED)])):
        again = pool.submit(other.put, [result(1, request=SHARED), result(3, request=SHARED)])
        wait_for_lock(url)
    again.result(60)
    assert store.get(one.id) == one
    assert store.reached() == 3
    assert numbers(store) == [1, 2, 3]
    assert [problem for problem in store.verify() if problem] == []
    for opened in (store, other):
        opened.close()


def test_a_body_that_is_going_is_stored_anew(url: str, pool: ThreadPoolExecutor) -> None:
    store, other = PostgresStore(url, write=True), PostgresStore(url, write=True)
    store.put([result(1, request=SHARED)])
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = llcuda")
        delete(connection, "id = %s", (result(1).id,))
        again = pool.submit(other.put, [result(2, request=SHARED)])
        wait_for_lock(url)
        connection.commit()
    again.result(60)
    assert store.get(result(1).id) is None
    assert store.get(result(2).id) == result(2, request=SHARED)
    assert [problem for problem in store.verify() if problem] == []
    for opened in (store, other):
        opened.close()


def test_a_failed_put_takes_no_numbers(url: str, pool: ThreadPoolExecutor) -> None:
    store = PostgresStore(url, write=True)
    store.put([result(1)])
    store.put([result(1), result(2)])  # the first attempt is rolled back
    assert numbers(store) == [1, 2]
    assert store.reached() == 2
    store.close()


def test_one_brings_the_index_up_to_date_and_others_pass(url: str) -> None:
    store = PostgresStore(url, write=True)
    store.put([result(n) for n in range(5)])
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1 FROM llcuda.progress FOR UPDATE")
        assert not store.update_index()
        assert store.unindexed() == 5
    assert store.update_index()
    assert store.unindexed() == 0
    store.close()

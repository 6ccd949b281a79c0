"""Several of one store's objects at once, as of several servers or of a server and a command."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llcuda_net.errors import StorageError
from llcuda_net.storage.results.interface import Deleted, Query, Retention, Store
from tests.llcuda_net.storage.results.contract.conftest import Factory
from tests.support.storage.records import START, result

SHARED = "A long system prompt that all of these results share. " * 100


def together(*works: Callable[[], Any]) -> None:
    """Do things in threads that begin at the same moment; raises what they raise."""
    gate = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> None:
        gate.wait()
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(begin, work) for work in works]:
            done.result()


def again(work: Callable[[], Any]) -> Any:
    """As a server does, where a store asks for it."""
    while True:
        try:
            return work()
        except StorageError as error:
            if not error.retry:
                raise


def problems(store: Store) -> list[Any]:
    return [one for one in store.verify() if one is not None]


def test_results_of_several_are_stored_once_and_counted(factory: Factory) -> None:
    writers = [factory(True) for _ in range(3)]

    def put(store: Store, first: int) -> None:
        for batch in range(first, first + 60, 10):
            # Half of each batch is another writer's, too.
            some = [result(n, request={"prompt": SHARED}) for n in range(batch, batch + 10)]
            again(lambda: store.put(some))  # noqa: B023

    together(*(lambda s=s, n=n: put(s, 30 * n) for n, s in enumerate(writers)))
    reading = factory(False)
    assert reading.reached() == 120
    assert len(reading.find(Query(limit=None))) == 120
    assert problems(reading) == []


def test_who_follows_the_numbers_misses_none(factory: Factory) -> None:
    writers = [factory(True) for _ in range(3)]
    reading = factory(False)
    seen: list[int] = []
    done = threading.Event()

    def put(store: Store, first: int) -> None:
        for n in range(first, first + 40, 2):
            again(lambda: store.put([result(n), result(n + 1)]))  # noqa: B023

    def follow() -> None:
        while True:
            last = done.is_set()
            while found := reading.analyses.unembedded(seen[-1] if seen else 0, 5):
                seen.extend(one.seq for one in found)
            if last:
                return

    def write() -> None:
        together(*(lambda s=s, n=n: put(s, 100 * n) for n, s in enumerate(writers)))
        done.set()

    together(write, follow)
    assert seen == list(range(1, 121))


def test_what_is_deleted_while_others_store_the_same_text(factory: Factory) -> None:
    writing, other, deleting = (factory(True) for _ in range(3))

    def put(store: Store, first: int) -> None:
        for n in range(first, first + 20):
            again(lambda: store.put([result(n, request={"prompt": SHARED})]))  # noqa: B023

    def delete() -> None:
        for n in [*range(20), *range(100, 120)]:
            again(lambda: deleting.delete(result(n).id))  # noqa: B023
        again(lambda: list(deleting.prune(Retention(before=START + 10**18, owner="nobody"))))

    together(lambda: put(writing, 0), lambda: put(other, 100), delete)
    reading = factory(False)
    assert problems(reading) == []
    for one in reading.find(Query(limit=None)):
        assert reading.get(one.id) is not None
        assert deleting.delete(one.id) == Deleted("", None)
    assert reading.reached() == 40
    writing.put([result(500, request={"prompt": SHARED})])
    assert problems(reading) == []


def test_two_prunes_at_once_delete_once(factory: Factory) -> None:
    one, other = factory(True), factory(True)
    one.put([result(n, request={"prompt": SHARED}) for n in range(300)])
    deleted: list[int] = []

    def prune(store: Store) -> None:
        for step in store.prune(Retention(max_bytes=0)):
            deleted.append(step.results)

    together(lambda: prune(one), lambda: prune(other))
    list(one.prune(Retention(max_bytes=0)))
    assert sum(deleted) == 300
    assert one.find(Query()) == []
    assert problems(one) == []


def test_several_indices_count_each_result_once(factory: Factory) -> None:
    stores = [factory(True) for _ in range(3)]
    for n in range(0, 60, 20):
        stores[0].put([result(m) for m in range(n, n + 20)])

    def index(store: Store) -> None:
        while again(store.update_index):
            pass

    together(*(lambda s=s: index(s) for s in stores))
    while stores[0].update_index():
        pass
    assert stores[0].unindexed() == 0
    assert sum(day.results for day in stores[0].stats().days) == 60
    assert len(stores[0].search("number", Query(limit=None))) == 60

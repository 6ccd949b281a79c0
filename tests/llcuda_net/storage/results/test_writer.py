"""The writer acknowledges after the commit, in batches, and says so when it cannot."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.writer import Writer
from tests.support.storage.records import result


class FakeStore:
    """Takes results when `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[str]] = []
        self.errors: list[StorageError | None] = []
        self.checkpoints = 0
        self.index_updates = 0
        self.closed = False
        self.refused: set[str] = set()

    def reached(self) -> int:
        return 0

    def put(self, results: Sequence[Result]) -> None:
        assert self.gate.wait(300)
        ids = [kept.id for kept in results]
        if self.refused.intersection(ids):
            raise StorageError("it is odd", StorageError.INVALID)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.batches.append(ids)

    def checkpoint(self) -> None:
        self.checkpoints += 1

    def update_index(self) -> bool:
        self.index_updates += 1
        return False

    def close(self) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@asynccontextmanager
async def running(store: FakeStore, **options: Any) -> AsyncIterator[Writer]:
    writer = Writer(store, lambda _: store, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        yield writer
        nursery.cancel_scope.cancel()


async def test_what_comes_meanwhile_shares_the_next_commit() -> None:
    store = FakeStore()
    store.gate.clear()
    async with running(store, batch=10) as writer, trio.open_nursery() as nursery:
        nursery.start_soon(writer.commit, result(0))
        while not writer.backlog:
            await trio.lowlevel.checkpoint()
        for number in range(1, 26):
            nursery.start_soon(writer.commit, result(number))
        await trio.testing.wait_all_tasks_blocked()
        assert writer.backlog == 26
        store.gate.set()
    sizes = [len(batch) for batch in store.batches]
    assert sum(sizes) == 26
    assert max(sizes) <= 10
    assert len(sizes) <= 4
    ids = [name for batch in store.batches for name in batch]
    assert sorted(ids) == [result(n).id for n in range(26)]
    assert store.closed == bool(store.index_updates)  # it may not have come to that


async def test_a_stalled_store_makes_commits_wait_outside() -> None:
    store = FakeStore()
    store.gate.clear()
    async with running(store, room=5) as writer, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(writer.commit, result(number))
        await trio.testing.wait_all_tasks_blocked()
        assert writer.backlog == 5
        assert writer._queue.qsize() <= 5
        with trio.move_on_after(0) as impatient:
            await writer.room()
        assert impatient.cancelled_caught
        store.gate.set()
    assert sum(len(batch) for batch in store.batches) == 50


async def test_a_commit_that_began_is_not_cancelled() -> None:
    store = FakeStore()
    store.gate.clear()
    async with running(store) as writer:
        ended = []

        async def commit(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                await writer.commit(result(1))
                ended.append(len(store.batches))

        async with trio.open_nursery() as nursery:
            scope = await nursery.start(commit)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert ended == []
            store.gate.set()
    assert ended == [1]


async def test_stopping_commits_what_waits() -> None:
    store = FakeStore()
    store.gate.clear()
    done: list[int] = []

    async def commit(number: int) -> None:
        await writer.commit(result(number))
        done.append(number)

    async with trio.open_nursery() as outer, running(store) as writer:
        for number in range(20):
            outer.start_soon(commit, number)
        await trio.testing.wait_all_tasks_blocked()
        timer = threading.Timer(0.01, store.gate.set)
        timer.start()
    assert sorted(done) == list(range(20))
    with pytest.raises(StorageError, match="closed"):
        await writer.commit(result(99))


async def test_a_full_disk_fails_a_batch_and_nothing_more() -> None:
    store = FakeStore()
    store.errors = [StorageError("full", StorageError.FULL)]
    async with running(store) as writer:
        with pytest.raises(StorageError) as caught:
            await writer.commit(result(1))
        assert caught.value.retry
        await writer.commit(result(1))
        assert writer.failed is None
    assert store.batches == [[result(1).id]]


async def test_a_disk_that_failed_is_not_tried_again() -> None:
    store = FakeStore()
    store.errors = [StorageError("fsync failed")]
    async with running(store, room=9) as writer:
        assert repr(writer) == "<Writer working, 0 of 9 queued, 0 committed>"
        for _ in range(3):
            with pytest.raises(StorageError, match="fsync failed"):
                await writer.commit(result(1))
        assert repr(writer).startswith("<Writer failed: fsync failed")
    assert store.batches == []
    assert store.errors == []


async def test_one_result_that_cannot_be_stored_costs_no_other() -> None:
    store = FakeStore()
    store.gate.clear()
    store.refused = {result(3).id}
    failed: list[tuple[int, str]] = []

    async def commit(number: int) -> None:
        try:
            await writer.commit(result(number))
        except StorageError as error:
            failed.append((number, error.code))

    async with running(store) as writer, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(commit, number)
        await trio.testing.wait_all_tasks_blocked()
        store.gate.set()
    assert failed == [(3, StorageError.INVALID)]
    assert sum(len(batch) for batch in store.batches) == 7


async def test_the_index_follows_and_the_checkpoint_comes_after() -> None:
    store = FakeStore()
    async with running(store) as writer:
        await writer.commit(result(1))
        await writer.commit(result(2))
        with trio.fail_after(300):
            while not (store.index_updates and store.checkpoints):  # noqa: ASYNC110
                await trio.sleep(0.001)
    assert store.closed

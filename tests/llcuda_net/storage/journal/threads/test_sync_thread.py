"""Writes and syncs go on beside the event loop, which is woken only for those who wait."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.journal.threads import sync_thread, write_thread
from tests.support.storage.journals import FOLDER, expected, reopened, running, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened
from tests.support.storage.stalling import PATIENCE, StallingMemory

BATCHES = 100


class Wakes:
    """Counts how often a journal's threads wake the event loop."""

    def __init__(self, journal: Journal) -> None:
        self.count = 0
        for thread in (journal._syncing, journal._writing):
            thread.wake = self._counted(thread.wake)

    def _counted(self, wake: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            self.count += 1
            wake()

        return counted


def batch_synced(journal: Journal) -> None:
    """Hold the event loop up, as nothing real does, until all that is written is synced."""
    syncing = journal._syncing
    while syncing.durable < journal._written or not syncing.news:
        time.sleep(0.0002)


@pytest.mark.parametrize("now", [True, False])
async def test_no_batch_and_no_sync_wakes_the_loop(
    now: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_thread, "PATIENCE", PATIENCE)
    files = SimulatedFiles()
    files.now = now
    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        wakes, syncs = Wakes(journal), files.syncs
        for _ in range(BATCHES):
            tokens(log, 1)
            assert journal.write()
            batch_synced(journal)
        assert files.syncs - syncs >= BATCHES
        assert log.durable == BATCHES - 1  # each write finds out about the sync before it
        await trio.testing.wait_all_tasks_blocked()
        assert wakes.count == 0


async def test_a_slow_disk_wakes_the_loop_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_thread, "PATIENCE", 0)
    files = SimulatedFiles()
    files.now = False
    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        wakes = Wakes(journal)
        for _ in range(BATCHES):
            tokens(log, 1)
            await journal.written()
        assert wakes.count <= BATCHES
        assert reopened(files)[0].log.pieces == expected(BATCHES)


async def test_a_stalled_disk_wakes_the_loop_when_it_goes_on() -> None:
    files = StallingMemory()
    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        wakes = Wakes(journal)
        files.stall.begin()
        for _ in range(BATCHES):
            tokens(log, 1)
            assert not journal.write()
        await files.stall.reached()
        files.stall.end()
        with trio.fail_after(PATIENCE):
            await journal.written()
        assert wakes.count <= 2  # for the batch that stalled, and for all that came behind it
        assert reopened(files)[0].log.pieces == expected(BATCHES)


async def test_who_waits_is_told_at_once() -> None:
    """Whatever the interval, and of each sync that covers it."""
    files = SimulatedFiles()
    journal = Journal(FOLDER, files, interval=PATIENCE)
    journal.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        log = journal.start(opened(1))
        with trio.fail_after(PATIENCE / 2):
            for count in range(1, 20):
                tokens(log, 1)
                await journal.sync()
                assert log.durable == count
        nursery.cancel_scope.cancel()


async def test_a_sync_that_nobody_hurried_lets_one_go_on_who_came_meanwhile() -> None:
    files = SimulatedFiles()
    begun, go_on = threading.Event(), threading.Event()

    def before_sync() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        files.before_sync = before_sync
        syncs = files.syncs
        tokens(log, 1)
        journal.write()
        assert await trio.to_thread.run_sync(begun.wait, PATIENCE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.sync)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        assert files.syncs == syncs + 1


async def test_followers_are_told_though_nothing_more_is_written() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log, other = journal.start(opened(1)), journal.start(opened(2))
        await journal.sync()
        log.follow()
        tokens(log, 2)
        tokens(other, 2)
        journal.write()
        with trio.fail_after(PATIENCE):
            assert await journal.progressed() == {log}
        assert log.durable == 2
        journal.forget(log)
        tokens(other, 2)
        await journal.sync()
        assert not journal._progressed


async def test_a_failed_sync_is_told_though_nobody_waits() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        files.sync_error = OSError(errno.EIO, os.strerror(errno.EIO))
        tokens(log, 1)
        journal.write()
        with trio.fail_after(PATIENCE):
            while journal.failed is None:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert log.durable == 0


async def test_a_bug_in_the_thread_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    files = SimulatedFiles()

    def bug(*_: Any) -> None:
        raise ZeroDivisionError

    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        monkeypatch.setattr(files, "fdatasync", bug)
        tokens(log, 1)
        with pytest.raises(StorageError, match="ZeroDivisionError"):
            await journal.sync()


async def test_work_beside_the_syncs_says_what_became_of_it() -> None:
    def broken() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with running(SimulatedFiles()) as journal:
        assert await journal._syncing.call(lambda: 5) == 5
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await journal._syncing.call(broken)


def test_durable_is_told_within_the_promised_time() -> None:
    assert sync_thread.INTERVAL + sync_thread.TELL <= 0.035

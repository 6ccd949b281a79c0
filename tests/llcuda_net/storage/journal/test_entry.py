"""Writing never holds the event loop up, keeps the order, and says what became of it."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest
import trio
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Level
from tests.support.storage.journals import expected, reopened, running, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened
from tests.support.storage.stalling import PATIENCE, StallingMemory


async def test_a_stalled_write_holds_up_nothing_and_what_comes_meanwhile_is_one_write() -> None:
    files = StallingMemory()
    async with running(files) as journal:
        log = journal.start(opened(1, level=Level.PROCESS))
        await journal.written()
        files.stall.begin()
        files.writes.clear()
        order: list[int] = []
        for number in range(5):  # returns, though the disk does not

            def then(error: StorageError | None, number: int = number) -> None:
                assert error is None
                order.append(number)

            tokens(log, 1)
            assert not journal.write(then)
        await files.stall.reached()
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        files.stall.end()
        with trio.fail_after(PATIENCE):
            await journal.written()
        assert order == [0, 1, 2, 3, 4]
        assert len(files.writes) == 2  # the one that stalled, and all that came behind it
        assert reopened(files)[0].log.pieces == expected(5)


@pytest.mark.parametrize("at_once", [1, 9, 40])
async def test_what_the_system_does_not_take_at_once_goes_to_the_thread(at_once: int) -> None:
    files = StallingMemory()
    files.at_once = at_once
    async with running(files) as journal:
        log = journal.start(opened(1, level=Level.PROCESS))
        for _ in range(20):
            tokens(log, 3)
            await journal.written()
        assert reopened(files)[0].log.pieces == expected(60)
        assert journal._segment.now


async def test_a_file_system_that_cannot_write_at_once_is_asked_once_per_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = SimulatedFiles()
    files.now = False
    asked = 0
    write_now = files.write_now

    def count(*arguments: Any) -> int:
        nonlocal asked
        asked += 1
        return write_now(*arguments)

    monkeypatch.setattr(files, "write_now", count)
    async with running(files) as journal:
        log = journal.start(opened(1, level=Level.PROCESS))
        for _ in range(5):
            tokens(log, 1)
            await journal.written()
        assert asked == 1


async def test_a_write_at_once_is_followed_by_none_that_overtakes_the_thread() -> None:
    files = StallingMemory()
    async with running(files) as journal:
        log = journal.start(opened(1, level=Level.PROCESS))
        await journal.written()
        files.stall.begin()
        tokens(log, 2)
        journal.write()
        await files.stall.reached()
        files.at_once = 1 << 20  # now it would
        tokens(log, 2)
        assert not journal.write()
        files.stall.end()
        await journal.written()
        tokens(log, 2)
        assert journal.write()
        assert reopened(files)[0].log.pieces == expected(6)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_all_who_wait_are_told_of_a_failure(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StallingMemory()
    async with running(files) as journal:
        log = journal.start(opened(1, level=Level.PROCESS))
        await journal.written()
        files.stall.begin()
        told: list[StorageError | None] = []
        tokens(log, 1)
        journal.write(told.append)
        await files.stall.reached()
        tokens(log, 1)
        journal.write(told.append)

        def broken(*_: Any) -> int:
            raise OSError(code, "broken")

        monkeypatch.setattr("tests.support.storage.power_cut.SimulatedFiles.pwrite", broken)
        files.stall.end()
        with trio.fail_after(PATIENCE):
            while len(told) < 2:  # noqa: ASYNC110 - set from a callback
                await trio.sleep(0.001)
        assert all(error is not None and error is journal.refusal for error in told)
        assert (journal.failed is None) == (code == errno.ENOSPC)


async def test_a_segment_is_left_with_what_is_framed_for_it() -> None:
    """What is buffered, and what the thread has, while a new segment begins."""
    files = StallingMemory()
    async with running(files, segment_bytes=600) as journal:
        logs = [journal.start(opened(number)) for number in range(4)]
        most = count = 0
        with trio.fail_after(PATIENCE):
            while most < 4:
                for log in logs:
                    tokens(log, 2)
                count += 2
                journal.write()
                await trio.sleep(0.0002)
                most = max(most, journal.stats.segments)
        await journal.sync()
        assert [found.log.pieces for found in reopened(files)] == [expected(count)] * 4
        assert {log.durable for log in logs} == {count}


async def test_no_file_is_closed_while_the_thread_writes_to_it() -> None:
    begun, release = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    calls: list[str] = []

    class Stalling(SimulatedFiles):
        stalls = False

        def write_now(self, descriptor: int, data: Any, offset: int) -> int:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
            if not self.stalls:
                return super().pwrite(descriptor, data, offset)
            token.run_sync_soon(begun.set)
            release.wait(300)
            calls.append("written")
            return super().pwrite(descriptor, data, offset)

        def close(self, descriptor: int) -> None:
            if self.stalls:
                calls.append("closed")
                release.set()
            super().close(descriptor)

    files = Stalling()
    async with trio.open_nursery() as nursery, running(files) as journal:
        await journal.sync()
        files.stalls = True
        journal.start(opened(1))
        journal.write(lambda _: None)
        await begun.wait()
        journal.stop(StorageError("its files are gone", StorageError.FAILED))

        async def let_go() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            release.set()

        nursery.start_soon(let_go)
    assert calls[0] == "written"
    assert "closed" in calls

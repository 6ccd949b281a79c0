"""What a client was told of a generation stands after a kill, also when the disk was full."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import reserve
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.records import Ended, Level
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_protocol import Accepted, Error, ErrorCode
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import FakeUpstream, ask, ready
from tests.support.storage.journals import FOLDER, expected, reopened, running, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened


class FullFiles(RealFiles):
    """No new byte while `full`; what is there can be written over. `broken`: the next sync fails,
    and the one after it says that all is well, as Linux does. `store_full`: the store's disk is.
    """

    full = False
    broken = False
    store_full = False

    def write_now(self, descriptor: int, data: Any, offset: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        if self.full and offset + len(data) > os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwrite(descriptor, data, offset)

    def fdatasync(self, descriptor: int) -> None:
        if self.broken:
            self.broken = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fdatasync(descriptor)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> FullFiles:
    found = FullFiles()
    put = SqliteStore.put

    def full_put(self: SqliteStore, results: Any) -> None:
        if found.full or found.store_full:
            raise StorageError("the disk of the store is full", StorageError.FULL)
        put(self, results)

    monkeypatch.setattr(SqliteStore, "put", full_put)
    return found


@pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])
@pytest.mark.parametrize("when", ["full between tokens", "full at the end", "broken"])
async def test_a_failure_that_was_told_stands_after_a_kill(
    tmp_path: Path, files: FullFiles, level: Level, when: str
) -> None:
    copy = tmp_path / "copy"
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path / "data", upstream, level, files=files) as (storage, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        _, accepted = await peer.until(Accepted)
        count = 3 if when == "full at the end" else 2
        upstream.release(count - 1)
        await storage.sync()
        files.store_full = True
        files.broken = when == "broken"
        files.full = when == "full between tokens"
        upstream.release(2)
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.STORAGE
        assert "not known" not in error.message
        shutil.copytree(tmp_path / "data", copy)  # what a kill leaves
        files.full = files.store_full = False
    again = FakeUpstream()
    async with keeping(copy, again) as (storage, listener):
        assert storage.recovered == []
        assert again.prompts == []  # nothing is made that was said to have failed
    (result,) = stored(copy)
    assert (result.id, result.state) == (accepted.id, "failed")
    assert result.error is not None
    assert result.error["message"] == error.message
    assert "one two three".startswith(result.text)


async def test_what_is_stored_later_is_what_was_told(
    tmp_path: Path, files: FullFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llcuda_net.storage.outcomes.outcomes.PROBE", 0.001)
    monkeypatch.setattr("llcuda_net.storage.journal.journal.PROBE", 0.001)
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream, files=files) as (storage, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        await peer.until(Accepted)
        files.full = True
        upstream.release(3)
        _, error = await peer.until(Error)
        files.full = False
        with trio.fail_after(300):
            while storage.refusal is not None or storage.backlog:  # noqa: ASYNC110
                await trio.sleep(0.001)
    (result,) = stored(tmp_path)
    assert (result.state, (result.error or {}).get("message")) == ("failed", error.message)


async def test_where_nothing_can_be_written_the_error_says_so(
    tmp_path: Path, files: FullFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "SIZE", 64)  # no room for an end
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream, files=files) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        await peer.until(Accepted)
        files.full = True
        upstream.release(3)
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.STORAGE
        assert "how it ends is not known" in error.message
        files.full = False


async def test_the_reserve_is_used_again_when_the_store_has_the_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llcuda_net.storage.journal.journal.PROBE", 0.001)
    files = SimulatedFiles()
    async with running(files) as journal:
        await journal.sync()
        for number in range(40):  # far more than it holds
            log = journal.start(opened(number))
            tokens(log, 2)
            await journal.sync()
            files.room = 0
            tokens(log, 1)
            await journal.end(log, Ended(state="failed", error={"code": "storage"}))
            (found,) = reopened(files)
            assert found.ended is not None
            assert (found.ended.state, found.log.pieces) == ("failed", expected(2))
            files.room = None
            with trio.fail_after(300):
                while journal.refusal is not None:  # noqa: ASYNC110
                    await trio.sleep(0.001)
            await journal.sync()
            journal.forget(log, number + 1)
            await journal.sync()
            assert reopened(files) == []


async def test_the_last_end_counts_wherever_it_lies() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        tokens(log, 2)
        log.end(Ended(state="done"))
        await journal.sync()
        files.room = 0
        await journal.end(log, Ended(state="failed"))
        files.room = 1 << 20
        (found,) = reopened(files)
        assert found.ended is not None
        assert found.ended.state == "failed"


async def test_a_journal_without_room_for_a_reserve_does_without() -> None:
    files = SimulatedFiles()
    files.room = 1000
    assert Journal(FOLDER, files).open()[0] == []
    assert reserve.NAME not in files.files


async def test_an_end_whose_last_bytes_are_zeros_is_read_again() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        tokens(log, 2)
        await journal.sync()
        journal.stop(StorageError("its files are gone", StorageError.FAILED))
        await journal.end(log, Ended(state="failed"))  # its first: `number`, at its end, is 0
        (found,) = reopened(files)
        assert found.ended is not None
        assert found.ended.state == "failed"

"""Journal and store together: what a server gets back after any end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.data_dir import default_directory, prepare
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.journal import journal
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.outcomes import outcomes, store_readers
from llcuda_net.storage.records import Ended, Level, Splice, TokenLog
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import Storage
from tests.support.storage.records import MODEL, opened

ROOT = Path(__file__).resolve().parents[3]


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[Storage]:
    storage = Storage(directory, interval=0, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        yield storage
        nursery.cancel_scope.cancel()


def grown(kept: JournalEntry, count: int) -> TokenLog:
    log = TokenLog([f"t{i}" for i in range(count)], list(range(count)))
    kept.append(log.pieces, log.ids)
    return log


END: dict[str, Any] = {"state": "done", "reason": "stop", "model": MODEL, "finished": 5}


@pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])
async def test_a_generation_from_beginning_to_end(level: Level, tmp_path: Path) -> None:
    async with running(tmp_path / "a/b") as storage:
        kept = storage.start(opened(1, level=level, key="k", owner="ann"))
        kept.follow()
        await storage.accepted(kept)
        log = grown(kept, 5)
        await storage.written()
        kept.splice(5, "http://b")
        await storage.sync()
        assert kept.durable == (5 if level.synced else 0)
        if level.synced:
            assert await storage.journal.progressed() == {kept}
        result = await storage.finish(kept, Ended(**END), log)
        assert await storage.read(lambda store: store.get("generation-1")) == result
        assert await storage.read(lambda store: store.find_by_key("k", "ann")) == result
        assert result.splices == [Splice(5, "http://b")]
        assert storage.backlog == 0
        assert storage.refusal is None
    async with running(tmp_path / "a/b") as storage:
        assert storage.recovered == []


async def test_a_restart_finds_what_was_running(tmp_path: Path) -> None:
    async with running(tmp_path) as storage:
        running_, discarded = storage.start(opened(1)), storage.start(opened(2))
        grown(running_, 3)
        running_.splice(3, "http://b")
        storage.journal.forget(discarded)
        await storage.written()
    for _ in range(2):
        async with running(tmp_path) as storage:
            (found,) = storage.recovered
            assert found.log.pieces == ["t0", "t1", "t2"]
            assert found.entry.splices == [Splice(3, "http://b")]
            assert found.entry.opened.request == opened(1).request
            assert not found.gap
            assert found.entry.durable == 3
    async with running(tmp_path) as storage:
        (found,) = storage.recovered
        found.entry.append(["more"], [9])
        log = found.log
        log.pieces.append("more")
        log.ids.append(9)
        await storage.written()
        result = await storage.finish(found.entry, Ended(**END, cacheable=True), log)
        assert result is not None
        assert result.text == "t0t1t2more"
        assert not result.cacheable
    async with running(tmp_path) as storage:
        assert storage.recovered == []
        assert await storage.read(lambda store: store.get("generation-1")) == result


async def test_a_restart_finds_how_it_was_asked_and_what_was_said_of_the_end(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as storage:
        asked, concluded = storage.start(opened(1)), storage.start(opened(2))
        asked.dispatched("http://a", MODEL, [1, 2, 3])
        asked.append(["x"], [7], counts=[2])
        asked.dispatched("http://b", MODEL)
        grown(concluded, 2)
        concluded.conclude("length", None, {"completion_tokens": 2})
        await storage.written()
    for _ in range(2):
        async with running(tmp_path) as storage:
            one, two = storage.recovered
            assert one.dispatched is not None
            assert one.dispatched.upstream == "http://b"
            assert one.dispatched.model == MODEL
            assert one.dispatched.prompt == [1, 2, 3]
            assert one.log.counts == [2]
            assert (one.concluded, two.dispatched) == (None, None)
            assert two.concluded is not None
            assert two.concluded.reason == "length"
            assert two.concluded.usage == {"completion_tokens": 2}
    async with running(tmp_path) as storage:
        one, _ = storage.recovered
        result = await storage.finish(one.entry, Ended(**END), one.log)
        assert result is not None
        assert result == await storage.read(lambda store: store.get("generation-1"))
        assert [*await storage.read(lambda store: list(store.verify()))] == [None]


async def test_an_end_without_its_result_is_stored_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as storage:
        for number in range(300):
            kept = storage.start(opened(number))
            grown(kept, 3)
            kept.end(Ended(**END))
        await storage.written()
    async with running(tmp_path) as storage:
        assert storage.recovered == []
        found = await storage.read(lambda store: store.find(Query(limit=None)))
        assert len(found) == 300
        result = await storage.read(lambda store: store.get("generation-299"))
        assert result is not None
        assert result.log == TokenLog(["t0", "t1", "t2"], [0, 1, 2])


async def test_a_result_whose_journal_was_not_told_is_not_run_again(tmp_path: Path) -> None:
    """The power went after the commit: the store has it, and the journal does not know."""
    async with running(tmp_path) as storage:
        kept = storage.start(opened(1))
        log = grown(kept, 3)
        await storage.accepted(kept)
        saved = {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
        await storage.finish(kept, Ended(**END), log)
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    for path, data in saved.items():
        path.write_bytes(data)
    async with running(tmp_path) as storage:
        assert storage.recovered == []


class FullFiles(RealFiles):
    """No room while `full`; `broken`: syncs fail."""

    full = False
    broken = False

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(descriptor, data, offset)

    def fdatasync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(descriptor)


async def test_a_full_disk_refuses_and_stores_later_what_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PROBE", 0.001)
    monkeypatch.setattr(outcomes, "PROBE", 0.001)
    files = FullFiles()
    put = SqliteStore.put
    backlogs = []

    def full_put(self: SqliteStore, results: Any) -> None:
        backlogs.append(storage.backlog)
        if files.full:
            raise StorageError("full", StorageError.FULL)
        put(self, results)

    monkeypatch.setattr(SqliteStore, "put", full_put)
    async with running(tmp_path, files=files) as storage:
        kept = storage.start(opened(1))
        await storage.accepted(kept)
        files.full = True
        log = grown(kept, 3)
        with pytest.raises(StorageError):
            await storage.written()
        assert storage.refusal is not None
        assert storage.refusal.code == StorageError.FULL
        with pytest.raises(StorageError):
            storage.start(opened(2))
        with pytest.raises(StorageError) as caught:
            await storage.finish(kept, Ended(**END), log)
        assert caught.value.retry
        assert storage.backlog == 1
        with trio.fail_after(300):
            while len(backlogs) < 3:  # noqa: ASYNC110
                await trio.sleep(0.001)
            files.full = False
            while storage.backlog or storage.refusal:  # noqa: ASYNC110
                await trio.sleep(0.001)
        assert set(backlogs) == {1}  # also while it is tried again
        result = await storage.read(lambda store: store.get("generation-1"))
        assert result is not None
        assert result.log == log
        storage.start(opened(2))


async def test_a_failed_sync_refuses_until_a_restart(tmp_path: Path) -> None:
    files = FullFiles()
    async with running(tmp_path, files=files) as storage:
        kept = storage.start(opened(1))
        await storage.accepted(kept)
        files.broken = True
        with pytest.raises(StorageError) as caught:
            await storage.accepted(storage.start(opened(2)))
        assert caught.value.code == StorageError.FAILED
        files.broken = False
        with pytest.raises(StorageError):
            storage.start(opened(3))
        assert storage.refusal is not None
    async with running(tmp_path) as storage:
        # The second was written, though it was never acknowledged.
        assert storage.recovered[0].entry.opened.generation == "generation-1"


async def test_a_second_server_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    code = (
        "import sys, trio, pathlib\n"
        "from llcuda_net.storage.storage import Storage\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        storage = Storage(pathlib.Path(sys.argv[1]), address='127.0.0.1:9')\n"
        "        await nursery.start(storage.run)\n"
        "        print('ready', flush=True)\n"
        "trio.run(main)\n"
    )
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(ExceptionGroup) as caught:
            async with running(tmp_path):
                pass
        assert caught.group_contains(
            StorageError, match=f"in use by process {process.pid}, 127.0.0.1:9: stop it"
        )
        SqliteStore(tmp_path).close()  # reading goes on beside it
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    async with running(tmp_path) as storage:
        assert storage.recovered == []


def test_a_lock_is_let_go(tmp_path: Path) -> None:
    for _ in range(3):
        lock = DirectoryLock(tmp_path, "somewhere")
        with pytest.raises(StorageError, match=r"process \d+, somewhere"):
            DirectoryLock(tmp_path)
        lock.release()
    with pytest.raises(StorageError, match="cannot be opened"):
        DirectoryLock(tmp_path / "nowhere")


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another --data-dir"):
        prepare(tmp_path / "file" / "data")
    assert default_directory().name == "llcuda"
    assert prepare(tmp_path / "new").is_dir()
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


async def test_the_pages_in_memory_are_bounded(tmp_path: Path) -> None:
    """Of all connections together: one that writes fills its cache, however large that is."""
    async with running(tmp_path) as storage:
        kept = storage.start(opened(1, level=Level.DISK))
        await storage.accepted(kept)
        await storage.finish(kept, Ended(**END), grown(kept, 5))
        together = trio.Event()
        waiting = 0

        async def read() -> None:
            nonlocal waiting

            def ask(store: Any) -> None:
                nonlocal waiting
                store.analyses.spaces()  # of the other file
                waiting += 1
                if waiting == store_readers._READERS:
                    trio.from_thread.run_sync(together.set)
                trio.from_thread.run(together.wait)

            await storage.read(ask)

        async with trio.open_nursery() as nursery:
            for _ in range(store_readers._READERS):
                nursery.start_soon(read)
        sizes = []
        for one in apsw.connections():
            if str(tmp_path) in one.filename:
                for _, name, _ in list(one.execute("PRAGMA database_list")):
                    if name != "temp":  # in memory, and empty
                        sizes.append(one.execute(f"PRAGMA {name}.cache_size").get)
        assert len(sizes) >= 2 * store_readers._READERS + 3
        assert all(size < 0 for size in sizes)  # in KiB, not in pages
        assert sum(-size for size in sizes) <= 48 << 10

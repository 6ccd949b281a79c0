"""Journal, store and transient results together: nothing of one is in any file when it is due.

Whenever a server is killed: before its result is kept, after that, and while it is erased.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.records import Ended, Opened, Result, TokenLog, encode
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.storage import Storage
from llcuda_net.storage.transient import eraser
from tests.support.storage import holders as support
from tests.support.storage.clock import Clock
from tests.support.storage.records import MODEL, opened

SECRET = "rosebud"
SPAN = 600.0


@asynccontextmanager
async def running(directory: Path, clock: Clock, **options: Any) -> AsyncIterator[Storage]:
    """Leaving it is a kill for what is in the journal: what runs stays open."""
    storage = Storage(
        directory, interval=0, clock=clock, transient_seconds=SPAN, watch=1e9, **options
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        yield storage
        nursery.cancel_scope.cancel()


def holders(directory: Path, text: str = SECRET) -> list[str]:
    return support.holders(directory, text)


def secret(number: int, **changes: Any) -> Opened:
    return opened(number, request={"prompt": f"{SECRET} {number}"}, transient=True, **changes)


async def begun(storage: Storage, of: Opened) -> tuple[JournalEntry, TokenLog]:
    entry = storage.start(of)
    await storage.accepted(entry)
    log = TokenLog([f"{SECRET if of.transient else 'words'} ", "x"], [1, 2])
    entry.append(log.pieces, log.ids)
    await storage.written()
    return entry, log


def end(clock: Clock, **changes: Any) -> Ended:
    fields = {"state": "done", "reason": "stop", "model": MODEL, "finished": clock.now}
    return Ended(**{**fields, **changes})


async def finished(storage: Storage, clock: Clock, of: Opened) -> Result:
    entry, log = await begun(storage, of)
    return await storage.finish(entry, end(clock), log)


async def get(storage: Storage, id_: str, owner: str | None = None) -> Result | None:
    return await storage.get(id_, owner, lambda found: found)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; the clock of trio jumps meanwhile."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 60
        await trio.sleep(1)


async def test_it_is_found_until_it_is_due_and_then_in_no_file(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        other = await finished(storage, clock, opened(1, request={"prompt": "citizen"}, key="k"))
        result = await finished(storage, clock, secret(2, key="k", owner="ann"))
        assert result.transient
        assert await get(storage, result.id, "ann") == result
        assert await storage.find_by_key("k", "ann") == result
        assert await get(storage, result.id, "bob") is None
        # Nothing that goes through the results meets it.
        assert await storage.read(lambda s: list(s.export(Query(limit=None)))) == [other]
        assert await storage.read(lambda s: s.get(result.id)) is None
        assert storage.committed == 1
        assert holders(tmp_path) != []
        clock.advance(SPAN / 2)
        await until(lambda: not any(name.startswith("journal") for name in holders(tmp_path)))
        assert await get(storage, result.id) == result
        clock.advance(SPAN / 2 - 1)
        await trio.sleep(1000)
        assert await get(storage, result.id) == result
        clock.advance(1)
        assert await get(storage, result.id) is None
        await until(lambda: not len(storage.transient))
        assert [one.id for one in await storage.transient.erased()] == [result.id]
        assert holders(tmp_path) == []
        assert holders(tmp_path, result.id) == []
        assert await storage.find_by_key("k", "ann") is None
        assert await get(storage, other.id) == other


async def test_nothing_wakes_where_there_is_nothing_to_erase(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with running(tmp_path, Clock()) as storage:
        await finished(storage, Clock(), opened(1))
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 1e6


async def test_a_restart_before_it_is_due_and_one_after(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        result = await finished(storage, clock, secret(1, key="k"))
    clock.advance(SPAN - 1)
    async with running(tmp_path, clock) as storage:
        assert storage.recovered == []
        assert await get(storage, result.id) == result
        assert await storage.find_by_key("k", "") == result
    clock.advance(1)
    async with running(tmp_path, clock) as storage:
        assert await get(storage, result.id) is None
        await until(lambda: not holders(tmp_path))
        assert storage.problems == []


async def test_one_that_is_cut_off_is_continued_and_then_erased(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        await begun(storage, secret(1))
    clock.advance(10 * SPAN)  # however long it took
    async with running(tmp_path, clock) as storage:
        (found,) = storage.recovered
        assert found.entry.opened.transient
        log = found.log
        found.entry.append(["y"], [3])
        log.pieces.append("y")
        log.ids.append(3)
        result = await storage.finish(found.entry, end(clock), log)
        assert result.text == f"{SECRET} xy"
        assert await get(storage, result.id) == result
        clock.advance(SPAN)
        await until(lambda: not holders(tmp_path))


@pytest.mark.parametrize("late", [0, SPAN - 1, SPAN, 10 * SPAN])
async def test_a_kill_between_its_end_and_its_commit(
    tmp_path: Path, autojump_clock: object, late: float
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        entry, _ = await begun(storage, secret(1))
        entry.end(end(clock))
        await storage.sync()
    assert holders(tmp_path / "journal") != []
    clock.advance(late)
    async with running(tmp_path, clock) as storage:
        found = await get(storage, entry.opened.generation)
        assert (found is not None) == (late < SPAN)
        clock.advance(SPAN)
        await until(lambda: not holders(tmp_path))
    async with running(tmp_path, clock) as storage:
        assert (storage.recovered, storage.problems) == ([], [])


async def test_a_kill_between_its_commit_and_what_the_journal_notes_of_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        entry, log = await begun(storage, secret(1))
        entry.end(end(clock))
        await storage.sync()
        of = Result.of(entry.opened, log, end(clock), [])
        await storage.transient.commit(of)
    async with running(tmp_path, clock) as storage:
        assert storage.recovered == []
        assert await get(storage, of.id) == of
        clock.advance(SPAN / 2)
        await until(lambda: not holders(tmp_path / "journal"))
        clock.advance(SPAN / 2)
        await until(lambda: not holders(tmp_path))


async def test_a_kill_at_any_moment_of_the_erasing(tmp_path: Path, autojump_clock: object) -> None:
    """Each state of the directory in between is copied, and served by another server."""
    folder, copies = tmp_path / "data", tmp_path / "copies"
    folder.mkdir()

    class Copying(RealFiles):
        """Threads change files one at a time, so each copy is what a kill would leave."""

        active = False
        lock = threading.Lock()

        def copied(self) -> None:
            if self.active:
                shutil.copytree(folder, copies / str(len(list(copies.iterdir()))))

        def create(self, path: Path) -> int:
            with self.lock:
                self.copied()
                return super().create(path)

        def pwrite(self, *arguments: Any) -> int:
            with self.lock:
                self.copied()
                return os.pwrite(*arguments)

        def write_now(self, *_: Any) -> int:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

        def unlink(self, path: Path) -> None:
            with self.lock:
                self.copied()
                super().unlink(path)
                self.copied()

    clock, files = Clock(), Copying()
    copies.mkdir()
    async with running(folder, clock, files=files) as storage:
        running_, _ = await begun(storage, opened(1))
        result = await finished(storage, clock, secret(2))
        files.active = True
        clock.advance(SPAN)
        await until(lambda: not holders(folder))
        files.active = False
    found = list(copies.iterdir())
    assert len(found) > 4
    assert any(holders(copy) for copy in found)
    for copy in found:
        async with running(copy, clock) as storage:
            assert storage.problems == []
            (left,) = storage.recovered
            assert left.entry.opened.generation == running_.opened.generation
            assert await get(storage, result.id) is None
            await until(lambda copy=copy: not holders(copy))  # type: ignore[misc]


async def test_one_compaction_takes_all_that_ended_until_then(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        begun_with = storage.journal._segment.number
        for number in range(20):
            await finished(storage, clock, secret(number))
            clock.advance(SPAN / 50)
            await trio.sleep(100)
        clock.advance(SPAN / 2)
        await until(lambda: not holders(tmp_path / "journal"))
        assert storage.journal._segment.number == begun_with + 1
        clock.advance(SPAN)
        await until(lambda: not holders(tmp_path))
        assert storage.journal._segment.number == begun_with + 1


async def test_a_computer_that_slept_erases_soon_after(
    tmp_path: Path, autojump_clock: object
) -> None:
    """The clock of trio stands still meanwhile; the wall clock is looked at now and then."""
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        await finished(storage, clock, secret(1))
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline <= eraser.LOOK
        clock.advance(100 * SPAN)
        woken = trio.current_time()
        while len(storage.transient):  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert trio.current_time() - woken < SPAN / 2
        await until(lambda: not holders(tmp_path))


async def test_an_owner_deletes_one_and_the_journal_has_none_of_it_soon(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as storage:
        result = await finished(storage, clock, secret(1, owner="ann", key="k"))
        await finished(storage, clock, opened(2))
        assert await storage.delete(result.id, "bob") is None
        deleted = await storage.delete(result.id, "ann")
        assert deleted is not None
        assert (deleted.owner, deleted.key) == ("ann", "k")
        assert await storage.delete(result.id, "ann") is None
        assert await get(storage, result.id) is None
        assert holders(tmp_path / "transient") == []
        assert holders(tmp_path / "journal") != []
        clock.advance(eraser.SOON)
        await until(lambda: not holders(tmp_path))
    # As a kill right after it: no restart brings it back.
    async with running(tmp_path, clock) as storage:
        assert await get(storage, result.id) is None


async def test_a_kill_right_after_a_deletion_does_not_bring_it_back(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock, copy = Clock(), tmp_path / "copy"
    async with running(tmp_path / "data", clock) as storage:
        result = await finished(storage, clock, secret(1))
        await storage.delete(result.id, None)
        shutil.copytree(tmp_path / "data", copy)
    async with running(copy, clock) as storage:
        assert storage.recovered == []
        assert await get(storage, result.id) is None
        assert holders(copy) == []  # the start writes the journal anew


async def test_what_there_is_no_room_for_is_kept_when_there_is(
    tmp_path: Path, autojump_clock: object
) -> None:
    class Full(RealFiles):
        full = False

        def create(self, path: Path) -> int:
            if self.full and "transient" in path.parts:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().create(path)

    clock, files = Clock(), Full()
    async with running(tmp_path, clock, files=files) as storage:
        for late in (0.0, SPAN):
            entry, log = await begun(storage, secret(1 + int(late)))
            files.full = True
            failed = msgspec.structs.replace(end(clock), state="failed")
            with pytest.raises(StorageError, match="no room"):
                await storage.finish(entry, end(clock), log, otherwise=lambda _: failed)  # noqa: B023
            assert [one.state for one in storage.unstored] == ["failed"]
            assert storage.refusal is not None
            clock.advance(late)
            files.full = late > 0  # what is over needs no room
            await until(lambda: storage.refusal is None)
            found = await get(storage, entry.opened.generation)
            assert (found is not None) == (late == 0)
            files.full = False
    async with running(tmp_path, clock) as storage:
        await until(lambda: not holders(tmp_path))


async def test_a_full_disk_at_the_start_delays_its_commit(
    tmp_path: Path, autojump_clock: object
) -> None:
    class Full(RealFiles):
        full = True

        def create(self, path: Path) -> int:
            if self.full and "transient" in path.parts:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().create(path)

    clock, files = Clock(), Full()
    async with running(tmp_path, clock) as storage:
        entry, _ = await begun(storage, secret(1))
        entry.end(end(clock))
        await storage.sync()
    async with running(tmp_path, clock, files=files) as storage:
        assert [one.id for one in storage.unstored] == [entry.opened.generation]
        files.full = False
        await until(lambda: storage.refusal is None)
        assert await get(storage, entry.opened.generation) is not None


async def test_bodies_that_are_shared_stay_for_others(
    tmp_path: Path, autojump_clock: object
) -> None:
    """A long prompt that a stored result has, too."""
    clock, prompt = Clock(), f"{SECRET} " * 500
    async with running(tmp_path, clock) as storage:
        request = {"prompt": prompt}
        other = await finished(storage, clock, opened(1, request=request))
        gone = await finished(storage, clock, opened(2, request=request, transient=True))
        clock.advance(SPAN)
        await until(lambda: not len(storage.transient))
        assert await get(storage, gone.id) is None
        assert await get(storage, other.id) == other
        assert [*await storage.read(lambda store: list(store.verify()))] == [None, None]


def test_a_journal_of_an_earlier_version_has_none_that_are_transient() -> None:
    of = opened(1)
    fields = msgspec.msgpack.decode(encode(of))
    data = encode(fields[:-1])
    assert msgspec.msgpack.decode(data, type=Opened) == of
    assert (fields[-1], of.transient) == (False, False)

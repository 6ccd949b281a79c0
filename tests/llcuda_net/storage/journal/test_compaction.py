"""Compacting a journal leaves nothing of what was forgotten, and all of what is open."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import journal as journal_module
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.journal.reserve import NAME as RESERVE
from llcuda_net.storage.records import Ended, Level, Splice, Switch
from tests.support.storage.journals import expected, reopened, running, segments, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened

SECRET = "rosebud"


def holders(files: SimulatedFiles, text: str = SECRET) -> list[str]:
    """The files that have a text."""
    return sorted(name for name, data in files.files.items() if text.encode() in data)


def secret(journal: Journal, number: int, **changes: Any) -> JournalEntry:
    entry = journal.start(opened(number, request={"prompt": SECRET}, **changes))
    entry.append([f"{SECRET} {number}"], [1])
    entry.dispatched("http://a", {}, f"{SECRET}, rendered")
    return entry


async def test_nothing_of_what_was_forgotten_is_left() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        forgotten, kept = secret(journal, 1), journal.start(opened(2))
        tokens(kept, 3)
        kept.splice(3, "http://b", 5)
        kept.switch(Switch(3, "reasoning"))
        await journal.sync()
        journal.forget(forgotten)
        await journal.sync()
        assert holders(files) == segments(files)
        await journal.compact()
        assert holders(files) == []
        assert len(segments(files)) == journal.stats.segments == 1
        tokens(kept, 2)
        await journal.sync()
        assert kept.durable == 5
        (found,) = reopened(files)
    assert found.log.pieces == expected(5)
    assert found.splices == [Splice(3, "http://b", 5)]
    assert found.switches == [Switch(3, "reasoning")]


async def test_what_is_only_buffered_when_it_is_forgotten_goes_too() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        journal.forget(secret(journal, 1, level=Level.PROCESS))
        await journal.compact()
        assert holders(files) == []
    assert reopened(files) == []


async def test_through_several_segments() -> None:
    files = SimulatedFiles()
    async with running(files, segment_bytes=400) as journal:
        old, forgotten = journal.start(opened(1)), secret(journal, 2)
        for _ in range(30):
            tokens(old, 2)
            forgotten.append([SECRET], [1])
            await journal.sync()
        journal.forget(forgotten)
        assert len(holders(files)) > 2
        await journal.compact()
        assert holders(files) == []
        (found,) = reopened(files)
    assert found.log.pieces == expected(60)


async def test_what_is_forgotten_meanwhile_needs_the_next_one() -> None:
    """All who ask get what they were promised, in whatever order they come."""
    files = SimulatedFiles()
    async with running(files) as journal:
        entries = [secret(journal, number) for number in range(4)]
        kept = journal.start(opened(9))
        tokens(kept, 4)
        await journal.sync()

        async def forget_and_compact(entry: JournalEntry, turns: int) -> None:
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            text = entry.opened.generation
            journal.forget(entry)
            await journal.compact()
            # Its id is in none of its own records any more.
            assert f"{SECRET} {text[-1]}" not in "".join(map(repr, files.files.values()))

        async with trio.open_nursery() as nursery:
            for turns, entry in enumerate(entries):
                nursery.start_soon(forget_and_compact, entry, 3 * turns)
        assert holders(files) == []
        (found,) = reopened(files)
    assert found.log.pieces == expected(4)


async def test_with_nothing_to_do_it_ends_too() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        for _ in range(3):
            await journal.compact()
        assert len(segments(files)) == 1


class Counting(SimulatedFiles):
    """Counts attempts to begin a segment."""

    begun = 0

    def create(self, path: Path) -> int:
        self.begun += 1
        return super().create(path)


async def tries(files: Counting, count: int) -> None:
    while files.begun < count:  # noqa: ASYNC110
        await trio.sleep(0.001)


async def test_a_full_disk_delays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "PROBE", 0.001)
    files = Counting()
    async with running(files) as journal, trio.open_nursery() as nursery:
        forgotten, kept = secret(journal, 1), journal.start(opened(2))
        tokens(kept, 3)
        await journal.sync()
        journal.forget(forgotten)
        files.room = 0
        done = trio.Event()

        async def compact() -> None:
            await journal.compact()
            done.set()

        nursery.start_soon(compact)
        await tries(files, files.begun + 3)
        assert not done.is_set()
        assert holders(files) != []
        files.room = None
        await done.wait()
        assert holders(files) == []
        (found,) = reopened(files)
    assert found.log.pieces == expected(3)


async def test_a_journal_that_fails_says_so() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        forgotten, kept = secret(journal, 1), journal.start(opened(2))
        await journal.sync()
        journal.forget(forgotten)
        tokens(kept, 1)
        files.sync_error = OSError(errno.EIO, os.strerror(errno.EIO))
        with pytest.raises(StorageError, match="cannot be written"):
            await journal.compact()
        with pytest.raises(StorageError, match="cannot be written"):
            await journal.compact()
    assert kept.opened.generation in [one.id for one in reopened(files)]


async def test_who_waits_when_it_is_closed_is_told() -> None:
    files = Counting()

    async def compact(journal: Journal) -> None:
        with pytest.raises(StorageError, match="closed"):
            await journal.compact()

    async with trio.open_nursery() as nursery, running(files) as journal:
        files.room = 0
        nursery.start_soon(compact, journal)
        await tries(files, files.begun + 1)


async def test_the_reserve_is_wiped_when_nothing_in_it_is_needed() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        entries = [secret(journal, 1), secret(journal, 2)]
        await journal.sync()
        refuse = partial(StorageError, "no room", StorageError.FULL)
        for entry in entries:
            journal.refusal = refuse()
            await journal.end(entry, Ended(state="failed", error={"message": SECRET}))
            journal.refusal = None
        assert RESERVE in holders(files)
        journal.forget(entries[0])
        await journal.compact()
        assert RESERVE in holders(files)  # the other one needs it
        journal.forget(entries[1])
        await journal.compact()
        assert holders(files) == []

"""A journal on a simulated disk, what it is given, and what another server would find in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.packed_log import Chunk, PackedLog
from llcuda_net.storage.records import Appended, Opened, TokenLog
from tests.support.storage.power_cut import SimulatedFiles

FOLDER = Path("/journal")


@asynccontextmanager
async def running(files: SimulatedFiles, **options: Any) -> AsyncIterator[Journal]:
    journal = Journal(FOLDER, files, interval=0, **options)
    journal.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        yield journal
        nursery.cancel_scope.cancel()


async def tidied(journal: Journal) -> None:
    """Return when no segment is to be begun or deleted."""
    while not journal._work.statistics().tasks_waiting:  # noqa: ASYNC110
        await trio.sleep(0.0005)


def reopened(files: SimulatedFiles) -> list[OpenGeneration]:
    """What another server would find."""
    copy = SimulatedFiles({name: bytes(data) for name, data in files.files.items()})
    return [generation for generation, _ in Journal(FOLDER, copy).open()[0]]


def leave_open(directory: Path, opened: Opened) -> None:
    """Leave a journal with one generation in a data directory, as a server that was killed does."""

    async def leave() -> None:
        journal = Journal(prepare(directory))
        journal.open()
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            journal.start(opened)
            await journal.sync()
            nursery.cancel_scope.cancel()

    trio.run(leave)


def tokens(log: JournalEntry, count: int) -> None:
    first = log.count
    log.append([f"t{first + i} " for i in range(count)], [first + i for i in range(count)])


def expected(count: int) -> list[str]:
    return [f"t{i} " for i in range(count)]


def segments(files: SimulatedFiles) -> list[str]:
    """The names of the segments, oldest first."""
    return sorted(name for name in files.files if name.endswith(".journal"))


def packed(log: TokenLog) -> PackedLog:
    """A log as a start finds it."""
    if not log.pieces:
        return PackedLog()
    return PackedLog([Chunk.of(Appended(0, 0, log.pieces, log.ids, log.logprobs, log.counts), 0)])

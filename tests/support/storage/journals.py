"""A journal on a simulated disk, what it is given, and what another server would find in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
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


def reopened(files: SimulatedFiles) -> list[OpenGeneration]:
    """What another server would find."""
    copy = SimulatedFiles({name: bytes(data) for name, data in files.files.items()})
    return [generation for generation, _ in Journal(FOLDER, copy).open()[0]]


def tokens(log: JournalEntry, count: int) -> None:
    first = log.count
    log.append([f"t{first + i} " for i in range(count)], [first + i for i in range(count)])


def expected(count: int) -> list[str]:
    return [f"t{i} " for i in range(count)]


def segments(files: SimulatedFiles) -> list[str]:
    """The names of the segments, oldest first."""
    return sorted(name for name in files.files if name.endswith(".journal"))

"""Servers that analyse what they store, and an upstream whose embeddings are known in advance."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.config.token_file import Users
from llcuda_net.errors import RequestError
from llcuda_net.storage.records import TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener
from tests.support.storage.records import result

WORDS = ("slot", "stream", "credit", "journal", "kernel", "token")


class Embedding(FakeUpstream):
    """Embeds a text by the words that are in it.

    Attributes:
        error: what `embed` raises, where it is set, for texts that have `bad` in them.
        hold: where it is set, `embed` waits for it, having noted that in `waiting`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.error: RequestError | None = None
        self.bad = ""
        self.dim = len(WORDS)
        self.hold: trio.Event | None = None
        self.waiting = trio.Event()
        self.cut_off = 0
        self.embedded: list[str] = []

    async def embed(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            self.waiting.set()
            try:
                await self.hold.wait()
            except trio.Cancelled:
                self.cut_off += 1
                raise
        if self.error is not None and any(self.bad in text for text in texts):
            raise self.error
        self.embedded += map(str, texts)
        words = (*WORDS, *WORDS)[: self.dim]
        return [[[0.01 + str(text).count(word) for word in words]] for text in texts]


@contextlib.asynccontextmanager
async def analysing(
    folder: Path, upstream: FakeUpstream, users: Users | None = None
) -> AsyncIterator[tuple[Analyst, MemoryListener]]:
    async with keeping(folder, upstream, analysis=True, users=users) as (_, listener):
        assert listener.server.analyst is not None
        yield listener.server.analyst, listener


def put(folder: Path, *texts: str, first: int = 1, owner: str = "") -> None:
    """Store results with these texts."""
    store = SqliteStore(folder, write=True)
    found = [
        result(n, request={"prompt": "tell me"}, log=TokenLog([text], [1]), owner=owner)
        for n, text in enumerate(texts, first)
    ]
    store.put(found)
    store.close()


async def caught_up(analyst: Analyst) -> None:
    with trio.fail_after(300):
        while (await analyst.report())["backlog"]:
            analyst.wake()
            await trio.sleep(0.002)


async def indexed(analyst: Analyst, count: int) -> None:
    """Wait until so many, and no more, are in memory: that follows what is stored."""
    with trio.fail_after(300):
        while (await analyst.report())["indexed"] < count:
            analyst.wake()
            await trio.sleep(0.002)
    assert (await analyst.report())["indexed"] == count

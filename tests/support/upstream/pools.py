"""Pools of fakes, and what their tests do with leases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from llcuda_net.upstream.backend import Member
from llcuda_net.upstream.lease import Lease, Need
from llcuda_net.upstream.llama.sse import CompletionEvent, Timings
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prefix_cache import chain_of
from tests.support.upstream.scripted_upstream import Talker, members


async def pool_of(*upstreams: Talker, **spec: Any) -> Pool:
    """All of one model, and known."""
    pool = Pool(members(*upstreams, model="m", **spec))
    await pool.prepare()
    return pool


@asynccontextmanager
async def running(found: Sequence[Member], settle: float = 3.0) -> AsyncIterator[Pool]:
    pool = Pool(found)
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.prepare()
        await trio.sleep(settle)
        yield pool
        nursery.cancel_scope.cancel()


def place(pool: Pool, need: Need | None = None, text: str = "") -> Lease | None:
    need = need or Need(pool.key_of(None), chain=chain_of(text))
    return pool.place(need, "ann")


def name_of(lease: Lease | None) -> str:
    return "" if lease is None else lease.member.name


def answered(lease: Lease, text: str = "", cached: int | None = None) -> None:
    final = None
    if cached is not None:
        final = CompletionEvent(stop=True, timings=Timings(cache_n=cached))
    lease.sent()
    lease.done(text, final)
    lease.release()

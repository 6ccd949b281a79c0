"""Pools of fakes, and what their tests do with leases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import CompletionEvent, Requirement, Timings
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prompts.prefix_cache import chain_of
from llcuda_net.upstream.slots.lease import Lease
from tests.support.upstream.scripted_upstream import Talker, backends


async def pool_of(*upstreams: Talker, **spec: Any) -> Pool:
    """All of one model, and known."""
    pool = Pool(backends(*upstreams, model="m", **spec))
    await pool.prepare()
    return pool


@asynccontextmanager
async def running(found: Sequence[Backend], settle: float = 3.0) -> AsyncIterator[Pool]:
    pool = Pool(found)
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.prepare()
        await trio.sleep(settle)
        yield pool
        nursery.cancel_scope.cancel()


def place(pool: Pool, requirement: Requirement | None = None, text: str = "") -> Lease | None:
    requirement = requirement or Requirement(pool.key_of(None), chain=chain_of(text))
    return pool.place(requirement, "ann")


def name_of(lease: Lease | None) -> str:
    return "" if lease is None else lease.backend.name


def answered(lease: Lease, text: str = "", cached: int | None = None) -> None:
    final = None
    if cached is not None:
        final = CompletionEvent(stop=True, timings=Timings(cache_n=cached))
    lease.sent()
    lease.done(text, final)
    lease.release()

"""A backend that is watched in virtual time, and what tests of that do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock

from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.health_check import HealthCheck
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.prompts.prefix_cache import chain_of
from llcuda_net.upstream.slots.lease import Lease
from tests.support.upstream.scripted_upstream import Talker, backend


@asynccontextmanager
async def watched(
    upstream: Talker,
    *,
    sign: Callable[[], bool] = lambda: False,
    on_change: Callable[[], None] = lambda: None,
    **spec: Any,
) -> AsyncIterator[Backend]:
    """A backend that is watched, and known.

    Args:
        sign: returns whether its model must be distinguished from others.
    """
    found = backend(upstream, **spec)
    check = HealthCheck(found, must_sign=sign, on_change=on_change)
    assert isinstance(trio.lowlevel.current_clock(), MockClock)  # real sleeps are no test
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check.run)
        await trio.sleep(0.01)
        yield found
        nursery.cancel_scope.cancel()


def lease(of: Backend, text: str = "") -> Lease:
    found = of.table.best(chain_of(text))
    assert found is not None
    return Lease(of, found[0], Requirement(""), found[1], "ann")


def uses(of: Backend) -> list[str]:
    return [str(slot.use) for slot in of.table]


async def until_up(of: Backend) -> None:
    with trio.fail_after(300):
        while of.state != "up":  # noqa: ASYNC110 - in virtual time
            await trio.sleep(0.05)

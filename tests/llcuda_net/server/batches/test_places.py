"""The places of lines: bounded, in turn, and given back by those who do not wait for theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.server.batches.places import Places
from llcuda_net.server.http.exchange import HttpHost


def places(slots: int, max_queue: int = 0) -> tuple[Places, SimpleNamespace]:
    backend = SimpleNamespace(slots=slots)
    host = SimpleNamespace(
        pool=SimpleNamespace(backends=[backend]), settings=SimpleNamespace(max_queue=max_queue)
    )
    return Places(cast(HttpHost, host)), backend


async def test_there_are_as_many_as_slots_and_as_many_again_where_the_queue_is_long() -> None:
    for slots, max_queue, most in ((3, 0, 3), (3, 256, 6), (64, 16, 68), (0, 256, 1)):
        found, _ = places(slots, max_queue)
        with trio.move_on_after(0.01):
            for _ in range(most):
                await found.take("ann")
            assert f"{most} of {most}, 0 waiting" in repr(found)
            await found.take("ann")
            raise AssertionError("there is one place too many")


async def test_one_who_does_not_wait_any_more_leaves_the_place_to_others(
    autojump_clock: trio.abc.Clock,
) -> None:
    found, _ = places(1)
    await found.take("ann")
    with trio.move_on_after(1):
        await found.take("bob")
    assert "0 waiting" in repr(found)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.take, "bob")
            await wait_all_tasks_blocked()
            scope.cancel()
            found.give_back()  # it is given a turn, and does not take it
    assert "0 of 1" in repr(found)
    await found.take("cid")


async def test_slots_that_come_are_used_and_those_that_go_are_not(
    autojump_clock: trio.abc.Clock,
) -> None:
    found, backend = places(1)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(found.take, "ann")
        await wait_all_tasks_blocked()
        assert "1 of 1, 3 waiting" in repr(found)
        backend.slots = 3
        found.give_back()
        await wait_all_tasks_blocked()
        assert "3 of 3, 0 waiting" in repr(found)

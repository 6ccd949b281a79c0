"""What waits goes on when the pool changes, and ends when a model has had no upstream for long."""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import pytest
import trio

from llcuda_net.errors import RequestError, UpstreamUnavailable
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.server.generations.waiting import _AT_ONCE, Waiting
from llcuda_net.upstream.interface import Requirement
from tests.support.scheduler_slots import ANN, EVE, Desk, running

ONE, OTHER = Requirement("one"), Requirement("other")
#: Seconds that a model may be without an upstream.
MOST = 10.0


class FakePool:
    """Says what it is told to say.

    Attributes:
        lost: since when each model has had no upstream; those that are missing here have one.
        changed: set when something has changed.
    """

    def __init__(self) -> None:
        self.lost: dict[str, float] = {}
        self.changed = trio.Event()

    async def wait_change(self) -> None:
        await self.changed.wait()
        self.changed = trio.Event()

    def outage(self, requirement: Requirement) -> float:
        return trio.current_time() - self.lost.get(requirement.model, math.inf)

    def why(self, requirement: Requirement) -> str:
        return f"{requirement.model} is away"


class FakeGeneration:
    """Notes the error that it is handed, and gives up its place in the queue.

    Attributes:
        also: a ticket that leaves with it.
    """

    def __init__(self, desk: Desk, ticket: Ticket) -> None:
        self._desk, self._ticket = desk, ticket
        self.errors: list[RequestError] = []
        self.also: Ticket | None = None

    def hand_back(self, error: RequestError) -> None:
        self.errors.append(error)
        self._desk.remove(self._ticket)
        if self.also is not None:
            self._desk.remove(self.also)


class Scene:
    """One slot, which is in use, and those who wait for it."""

    def __init__(self) -> None:
        self.pool = FakePool()
        self.desk = Desk(1, clock=trio.current_time)
        self.waiting = Waiting(cast("Any", self.pool), self.desk.scheduler, MOST)
        self.desk.submit(EVE, key=ONE)

    def submit(self, requirement: Requirement) -> Ticket:
        return self.desk.submit(ANN, model=requirement.model, key=requirement)

    def generation(self, requirement: Requirement) -> FakeGeneration:
        ticket = self.submit(requirement)
        found: Any = FakeGeneration(self.desk, ticket)
        self.waiting.add(ticket, found)
        known: FakeGeneration = found
        return known


async def test_what_waits_gets_what_a_change_of_the_pool_brings(autojump_clock: object) -> None:
    scene = Scene()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.waiting.follow_pool)
        for size in (2, 3):
            ticket = scene.submit(ONE)
            scene.desk.slots.size = size  # and nobody says so
            await trio.sleep(60)
            assert running(ticket) == [False]
            scene.pool.changed.set()
            await trio.sleep(1)
            assert running(ticket) == [True]
        nursery.cancel_scope.cancel()


async def test_a_place_that_comes_with_time_alone_is_given_out(autojump_clock: object) -> None:
    scene = Scene()
    ticket = scene.submit(ONE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.waiting.end_outages)
        await trio.sleep(10)
        assert running(ticket) == [False]
        scene.desk.slots.size = 2
        await trio.sleep(1.5)
        assert running(ticket) == [True]
        nursery.cancel_scope.cancel()


async def test_only_what_waits_for_the_model_that_is_away_fails(autojump_clock: object) -> None:
    scene = Scene()
    lost, kept = [scene.generation(ONE) for _ in range(3)], scene.generation(OTHER)
    texts = scene.submit(ONE)  # to embed: of no generation
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.waiting.end_outages)
        scene.pool.lost["one"] = trio.current_time()
        await trio.sleep(MOST)
        assert [one.errors for one in lost] == [[], [], []]
        await trio.sleep(1.5)
        assert [len(one.errors) for one in lost] == [1, 1, 1]
        with pytest.raises(UpstreamUnavailable, match="for 11 s one is away") as caught:
            await texts.acquire()
        assert (caught.value.retry, caught.value.retry_after) == (True, 1.0)
        await trio.sleep(100)
        assert (kept.errors, scene.desk.scheduler.queued) == ([], 1)
        nursery.cancel_scope.cancel()


async def test_one_that_has_left_meanwhile_is_handed_nothing(autojump_clock: object) -> None:
    scene = Scene()
    first, second = scene.generation(ONE), scene.generation(ONE)
    first.also = second._ticket
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.waiting.end_outages)
        scene.pool.lost["one"] = -MOST
        await trio.sleep(1.5)
        assert (len(first.errors), second.errors) == (1, [])
        nursery.cancel_scope.cancel()


async def test_thousands_fail_in_slices(autojump_clock: object) -> None:
    scene = Scene()
    lost = [scene.generation(ONE) for _ in range(10 * _AT_ONCE)]
    turns: list[int] = []

    class Turns(trio.abc.Instrument):
        """Counts, after each, how many have failed so far."""

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            turns.append(sum(len(one.errors) for one in lost))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.waiting.end_outages)
        scene.pool.lost["one"] = -MOST
        trio.lowlevel.add_instrument(turns_seen := Turns())
        await trio.sleep(1.5)
        trio.lowlevel.remove_instrument(turns_seen)
        nursery.cancel_scope.cancel()
    assert turns[-1] == len(lost)
    assert max(after - before for before, after in itertools.pairwise(turns)) == _AT_ONCE

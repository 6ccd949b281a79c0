"""Thousands wait, and nobody notices: the work of one turn of the event loop is bounded."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest
import trio
import trio.testing

from llcuda_net.config.users import Priority, User
from llcuda_net.scheduler.scheduler import Ticket
from llcuda_net.scheduler.wait_estimate import _NOTICE, _PART, _SLICE
from tests.support.scheduler_slots import ANN, EVE, Desk, running


def calls(act: Callable[[], object]) -> int:
    """How many Python functions are called by it."""
    count = 0

    def see(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def users(count: int, **attributes: object) -> list[User]:
    return [User(f"user {number}", **attributes) for number in range(count)]  # type: ignore[arg-type]


def crowd(count: int) -> tuple[Desk, list[Ticket]]:
    """Four slots in use, and so many users who wait: some held back, some with other needs."""
    desk = Desk(4)
    held = [desk.submit(EVE) for _ in range(4)]
    desk.slots.keys = {"", "small"}
    for number, user in enumerate(users(count)):
        key = "big" if number % 3 else "small"
        priority = Priority.LOW if number % 5 == 0 else Priority.NORMAL
        desk.submit(user, key=key, priority=priority)
    desk.submit(User("slow", tokens_per_minute=60))
    return desk, held


def costs(count: int) -> list[int]:
    desk, held = crowd(count)
    late: list[Ticket] = []
    return [
        calls(lambda: late.append(desk.submit(ANN, key="small"))),
        calls(desk.scheduler.dispatch),
        calls(lambda: desk.remove(late[0])),
        calls(lambda: desk.remove(held[0], tokens=100)),  # the next one starts
        calls(desk.scheduler.due),
    ]


def test_what_a_request_costs_does_not_grow_with_the_queue() -> None:
    few, many = costs(60), costs(3000)
    # Some flows more whose lag is bounded at a start; else the same.
    assert max(more - less for less, more in zip(few, many, strict=True)) < 400
    assert max(few) < 1000


async def test_reports_are_made_in_slices(autojump_clock: object) -> None:
    """Between two turns of others so many are notified, and no more are looked at."""
    desk = Desk(1, clock=trio.current_time)
    first = desk.submit(EVE)
    tickets = [desk.submit(user) for user in users(2000)]
    turns: Counter[int] = Counter()
    turn = 0

    async def others() -> None:
        nonlocal turn
        while True:
            await trio.sleep(0.001)
            turn += 1

    for ticket in tickets:
        desk.listen(ticket, lambda _: turns.update([turn]))
    looks: Counter[int] = Counter()

    def explain(ticket: Ticket) -> str:
        looks[turn] += 1
        return ""

    desk.reason = explain
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        nursery.start_soon(others)
        await trio.sleep(3)
        turns.clear()
        for ticket in tickets[:1200]:  # so that everybody's figures change
            desk.remove(ticket)
        desk.remove(first)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert sum(turns.values()) == 799 + 1  # all that are left, and the one that runs
    assert max(turns.values()) <= _SLICE // _NOTICE + _PART
    assert [t.position for t in tickets[1201:]] == list(range(1, 800))
    # Each part asks for its reasons: as many parts as a slice has room for.
    assert max(looks.values()) <= _SLICE // _PART + 1


async def test_in_a_long_queue_a_small_move_is_told_later(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    slot = desk.submit(EVE)
    tickets = [desk.submit(user) for user in users(300)]
    told: Counter[int] = Counter()
    for number, ticket in enumerate(tickets, 1):
        desk.listen(ticket, lambda _, number=number: told.update([number]))  # type: ignore[misc]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        await trio.sleep(2)
        assert not told
        desk.remove(slot)
        await trio.sleep(1)
        assert set(told) == set(range(1, 20))  # below 20, one is news
        await trio.sleep(5)
        assert set(told) == set(range(1, 301))
        assert [ticket.position for ticket in tickets] == list(range(300))
        told.clear()
        looks: list[Ticket] = []
        desk.reason = lambda ticket: looks.append(ticket) or ""  # type: ignore[func-returns-value]
        await trio.sleep(20)
        assert not told
        assert not looks  # all is said, so nothing is looked at any more
        nursery.cancel_scope.cancel()


async def test_what_starts_meanwhile_does_not_wait_for_a_report(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time, ageing=1e9)
    slow = User("slow", tokens_per_minute=600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        desk.remove(desk.submit(slow), tokens=606)  # for 0.6 s it may start nothing
        waiting = desk.submit(slow)
        desk.slots.keys = {""}
        for user in users(3000):
            desk.submit(user, key="big", model="none")
        assert running(waiting) == [False]
        await trio.sleep(0.61)
        assert running(waiting) == [True]
        nursery.cancel_scope.cancel()


def test_many_that_are_due_rise_in_parts() -> None:
    desk = Desk(1, ageing=30.0)
    desk.submit(EVE, priority=Priority.HIGH)
    desk.submit(EVE, priority=Priority.HIGH)
    low = [desk.submit(user, priority=Priority.LOW) for user in users(200)]
    desk.clock.now = 30.0
    risen = []
    for _ in range(4):
        desk.scheduler.dispatch()
        risen.append(sum(ticket.priority is Priority.NORMAL for ticket in low))
    assert risen == [64, 128, 192, 200]
    assert desk.scheduler.due() == 60.0


@pytest.mark.parametrize("kinds", [1, 40])
def test_flows_of_a_kind_that_has_no_place_keep_a_bounded_credit(kinds: int) -> None:
    """However many they are: some at each start."""
    desk = Desk(1)
    first = desk.submit(EVE)
    desk.slots.keys = {""}
    waiting = [
        desk.submit(user, key=f"big {number % kinds}") for number, user in enumerate(users(200))
    ]
    desk.submit(ANN)
    desk.remove(first, tokens=10)
    for _ in range(12):
        desk.submit(ANN)
        (now,) = desk.scheduler._running
        desk.remove(now, tokens=8000)
    leads = {desk.scheduler._queue.flow(ticket).counter.served() for ticket in waiting}
    (ann,) = desk.scheduler._running.values()
    assert min(leads) >= ann.counter.served() - 16384 - 4 * 8000

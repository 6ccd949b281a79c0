"""What those who wait are told, when; what happens by time alone."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from llcuda_net.config.users import Priority, User
from llcuda_net.scheduler.scheduler import Ticket
from llcuda_net.scheduler.wait_estimate import _LONGEST, _PART
from tests.support.scheduler_slots import ANN, BOB, EVE, Desk, running


def listen(desk: Desk, ticket: Ticket, told: list[tuple[float, int]]) -> None:
    desk.listen(ticket, lambda ticket: told.append((trio.current_time(), ticket.position)))


async def test_a_slot_is_told_at_once_and_a_place_soon(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        first = desk.submit(EVE)
        tickets = [desk.submit(ANN) for _ in range(4)]
        assert [ticket.position for ticket in tickets] == [1, 2, 3, 4]
        told: list[list[tuple[float, int]]] = [[], [], [], []]
        for ticket, heard in zip(tickets, told, strict=True):
            listen(desk, ticket, heard)
        await trio.sleep(10)
        assert told == [[], [], [], []]
        now = trio.current_time()
        desk.remove(first)
        assert told == [[(now, 0)], [], [], []]
        await trio.sleep(0.1)
        assert [ticket.position for ticket in tickets] == [0, 1, 2, 3]
        desk.remove(tickets[0])
        assert told[1] == [(now, 1), (now + 0.1, 0)]
        assert told[3] == [(now, 3)]
        await trio.sleep(0.05)
        desk.remove(tickets[1])
        await trio.sleep(5)
        # Twice it moved meanwhile, and it is told once.
        assert told[3] == [(now, 3), (now + 0.2, 1)]
        nursery.cancel_scope.cancel()


async def test_nothing_is_told_of_what_did_not_change(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        desk.submit(EVE)
        ticket = desk.submit(ANN)
        told: list[tuple[float, int]] = []
        listen(desk, ticket, told)
        for _ in range(20):
            desk.remove(desk.submit(BOB))
            await trio.sleep(1)
        assert told == []
        nursery.cancel_scope.cancel()


async def test_a_reason_that_changes_is_told(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    reason = "all is in use"
    desk.reason = lambda ticket: f"{reason} for {ticket.slot_request.model}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        desk.submit(EVE)
        ticket = desk.submit(ANN, model="x")
        assert ticket.reason == "all is in use for x"
        told: list[tuple[float, int]] = []
        listen(desk, ticket, told)
        await trio.sleep(1)
        reason = "nobody answers"
        desk.scheduler.dispatch()
        await trio.sleep(0.5)
        assert ticket.reason == "nobody answers for x"
        assert [position for _, position in told] == [1]
        desk.slots.resize(2)
        assert (ticket.reason, ticket.wait) == ("", 0.0)
        nursery.cancel_scope.cancel()


async def test_a_wait_that_grows_is_told(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        tickets = [desk.submit(ANN) for _ in range(9)]
        last = tickets[-1]
        waits: list[tuple[int, float | None]] = []
        desk.listen(last, lambda ticket: waits.append((ticket.position, ticket.wait)))
        for ticket in tickets[:4]:
            await trio.sleep(10)
            desk.remove(ticket)
        await trio.sleep(1)
        desk.submit(ANN)  # changes nothing for the last but the time that has passed
        await trio.sleep(500)
        desk.submit(ANN)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [position for position, _ in waits] == [7, 6, 5, 4, 4]
    known = [wait for _, wait in waits if wait is not None]
    assert known[:3] == [pytest.approx(10.0 * n) for n in (6, 5, 4)]
    assert known[3] > 400


async def test_one_that_leaves_while_all_are_told_is_told_nothing(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        first, second, third, fourth = (desk.submit(ANN) for _ in range(4))
        desk.listen(third, lambda _: desk.remove(fourth))
        told: list[tuple[float, int]] = []
        listen(desk, fourth, told)
        desk.remove(second)
        await trio.sleep(1)
        assert (third.position, told, desk.scheduler.queued) == (1, [], 1)
        desk.remove(first)
        nursery.cancel_scope.cancel()


async def test_debts_that_come_while_one_waits_are_seen(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    slow = User("slow", tokens_per_minute=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        first, second = desk.submit(slow), desk.submit(slow)
        await trio.sleep(1)
        desk.remove(first, tokens=90)
        await trio.sleep(25)
        assert running(second) == [False]
        await trio.sleep(6)
        assert running(second) == [True]
        nursery.cancel_scope.cancel()


async def test_tokens_that_come_back_and_ageing_need_nobody_to_come(
    autojump_clock: object,
) -> None:
    desk = Desk(1, clock=trio.current_time, ageing=5.0)
    slow = User("slow", tokens_per_minute=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        await trio.testing.wait_all_tasks_blocked()
        desk.remove(desk.submit(slow), tokens=90)
        ticket = desk.submit(slow)
        await trio.sleep(29)
        assert running(ticket) == [False]
        await trio.sleep(2)
        assert running(ticket) == [True]
        high, low = (
            desk.submit(EVE, priority=Priority.HIGH),
            desk.submit(ANN, priority=Priority.LOW),
        )
        await trio.sleep(11)
        assert low.priority == Priority.HIGH
        assert [high.position, low.position] == [1, 2]
        nursery.cancel_scope.cancel()


async def test_all_but_that_goes_without_run(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    first, second = desk.submit(ANN), desk.submit(ANN)
    told: list[tuple[float, int]] = []
    listen(desk, second, told)
    desk.remove(first)
    assert [position for _, position in told] == [0]


def test_users_are_told_apart() -> None:
    desk = Desk(1)
    heavy = User("heavy", weight=2.5)
    desk.remove(desk.submit(heavy, prompt_tokens=5), tokens=10)
    desk.submit(heavy)
    desk.submit(ANN)
    loads = [(u.name, u.weight, u.running, u.queued, u.served) for u in desk.scheduler.users()]
    assert loads == [("heavy", 2.5, 1, 0, 15), ("ann", 1.0, 0, 1, 0)]


def test_places_are_told_by_model() -> None:
    desk = Desk(1)
    desk.submit(EVE)
    tickets = [desk.submit(ANN, model=model) for model in "xyxy"]
    assert [ticket.position for ticket in tickets] == [1, 1, 2, 2]
    assert desk.scheduler.waiting() == tickets


async def test_each_kind_has_its_own_reason(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    desk.submit(EVE)
    tickets = [desk.submit(ANN, model=model) for model in "xyx"]
    desk.reason = lambda ticket: f"no {ticket.slot_request.model}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        await trio.sleep(1)
        assert [ticket.reason for ticket in tickets] == ["no x", "no y", "no x"]
        nursery.cancel_scope.cancel()


async def test_a_reason_that_cannot_be_given_holds_up_nobody(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)

    def fail(ticket: Ticket) -> str:
        raise LookupError(ticket)

    desk.reason = fail
    first = desk.submit(EVE)
    ticket = desk.submit(ANN)
    assert ticket.reason == ""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        await trio.sleep(1)
        desk.remove(first)
        assert running(ticket) == [True]
        nursery.cancel_scope.cancel()


async def test_one_that_leaves_between_two_parts_of_a_report_is_left_out(
    autojump_clock: object,
) -> None:
    desk = Desk(1, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.scheduler.run)
        first = desk.submit(EVE)
        tickets = [desk.submit(ANN) for _ in range(2 * _PART)]
        desk.listen(tickets[1], lambda _: desk.remove(tickets[-1]))
        desk.remove(first)
        await trio.sleep(1)
        assert [ticket.position for ticket in tickets[:-1]] == list(range(2 * _PART - 1))
        assert desk.scheduler.queued == 2 * _PART - 2
        nursery.cancel_scope.cancel()


def stopped(desk: Desk) -> None:
    """Its queue has moved each 10 s, and nothing waits or runs now."""
    tickets = [desk.submit(EVE) for _ in range(5)]
    for ticket in tickets:
        desk.wait(10.0)
        desk.remove(ticket)


def test_who_lost_a_slot_need_not_wait_for_tokens() -> None:
    desk = Desk(1)
    stopped(desk)
    slow = User("slow", tokens_per_minute=60)
    ticket = desk.submit(slow)
    desk.make(ticket, 600)  # of ten minutes
    desk.slots.size = 0
    desk.scheduler.requeue(ticket, ticket.slot_request)
    assert (ticket.position, ticket.reason) == (1, "")
    assert ticket.wait == pytest.approx(10.0)
    other = desk.submit(slow)
    assert other.reason == "your limit of 60 tokens a minute"
    assert other.wait == pytest.approx(540.0)


def test_a_wait_of_weeks_is_told_as_the_longest() -> None:
    desk = Desk(1)
    stopped(desk)
    endless = User("endless", tokens_per_minute=1e-3)
    desk.remove(desk.submit(endless), tokens=1000)
    assert desk.submit(endless).wait == _LONGEST

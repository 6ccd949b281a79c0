"""The scheduler: never more running than slots, and every place given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog
import trio
import trio.testing

from llcuda_net.config.users import Priority
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from tests.support.scheduler_slots import ANN, BOB, EVE, Desk, Held, Slots, refused, running


def test_a_free_slot_is_had_at_once_and_the_next_waits() -> None:
    desk = Desk(1)
    tickets = [desk.submit() for _ in range(3)]
    assert [t.position for t in tickets] == [0, 1, 2]
    assert running(*tickets) == [True, False, False]
    assert (desk.scheduler.running, desk.scheduler.queued) == (1, 2)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    desk = Desk(1, 1)
    desk.submit()
    desk.submit()
    refused(desk.submit, "1 requests run and 1 wait")
    assert (desk.scheduler.running, desk.scheduler.queued) == (1, 1)
    assert desk.submit(always=True).position == 2


def test_a_full_queue_takes_one_of_each_user() -> None:
    desk = Desk(1, 2)
    for _ in range(3):
        desk.submit(EVE)
    refused(lambda: desk.submit(EVE), "2 wait")
    assert desk.submit(ANN).position == 1
    refused(lambda: desk.submit(ANN), "3 wait")


def test_without_a_queue_only_the_slots_are_to_be_had() -> None:
    desk = Desk(1, 0)
    ticket = desk.submit(ANN)
    refused(lambda: desk.submit(BOB), "1 requests run")
    desk.remove(ticket)
    assert desk.submit(BOB).granted.is_set()


def test_fewer_slots_admit_nobody_until_they_are_free() -> None:
    desk = Desk(2)
    one, two, third = (desk.submit() for _ in range(3))
    desk.slots.resize(1)
    desk.remove(one)
    assert running(third) == [False]
    desk.remove(two)
    assert running(third) == [True]
    desk.slots.resize(3)
    assert running(desk.submit()) == [True]


def test_removing_is_idempotent() -> None:
    desk = Desk(1)
    one, two, three = (desk.submit() for _ in range(3))
    desk.remove(one, one, three, three)
    assert running(two) == [True]
    assert (desk.scheduler.running, desk.scheduler.queued) == (1, 0)
    desk.remove(two, one, two)
    assert desk.scheduler.idle
    assert desk.slots.busy == 0


async def test_a_ticket_comes_back_however_its_holder_ends(autojump_clock: object) -> None:
    slots = Slots(1)
    scheduler = Scheduler(slots.place, 9)
    with pytest.raises(ZeroDivisionError):
        async with scheduler.submit(SlotRequest(ANN)):
            raise ZeroDivisionError
    with trio.move_on_after(1):
        async with scheduler.submit(SlotRequest(ANN)):
            await trio.sleep_forever()
    holder = scheduler.submit(SlotRequest(ANN))
    with trio.move_on_after(1):  # while it waits
        async with scheduler.submit(SlotRequest(ANN)):
            raise AssertionError
    scheduler.remove(holder)
    with trio.CancelScope() as scope:  # before it looked whether its turn had come
        scope.cancel()
        async with scheduler.submit(SlotRequest(ANN)):
            raise AssertionError
    assert (scheduler.running, scheduler.queued, slots.busy) == (0, 0, 0)


async def test_spare_time_begins_when_nobody_has_a_slot_or_wants_one(
    autojump_clock: object,
) -> None:
    desk = Desk(1, clock=trio.current_time)
    tickets = [desk.submit(), desk.submit()]
    begun: list[float] = []

    async def work() -> None:
        async with desk.scheduler.when_idle(0.5):
            begun.append(trio.current_time())

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.sleep(1)
        desk.remove(tickets[0])  # the second has the slot now
        await trio.sleep(1)
        assert not begun
        desk.remove(tickets[1])
        await trio.sleep(0.25)
        assert not begun
        desk.remove(desk.submit())  # quiet begins anew
    assert begun == [pytest.approx(started + 2.75)]


async def test_whoever_comes_ends_spare_time_and_does_not_wait_for_it(
    autojump_clock: object,
) -> None:
    desk = Desk(1, clock=trio.current_time)
    ended: list[str] = []

    async def work() -> None:
        async with desk.scheduler.when_idle(0.1):
            try:
                await trio.sleep_forever()
            finally:
                ended.append("cut off")
        ended.append("went on")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.sleep(1)
        scheduler = desk.scheduler
        assert (scheduler.running, scheduler.queued, scheduler.idle) == (0, 0, True)
        assert running(desk.submit()) == [True]
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cut off", "went on"]
    assert not scheduler._idle_scopes


async def test_cancelling_spare_time_from_outside_cancels_it(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    busy = desk.submit()
    for settle, wait in ((0.0, 1.0), (5.0, 1.0), (0.0, 0.0)):
        with trio.move_on_after(wait) as scope:
            async with desk.scheduler.when_idle(settle):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        if not desk.scheduler.idle:
            desk.remove(busy)


def test_the_state_is_seen_in_a_debugger() -> None:
    desk = Desk(1, 9)
    first = desk.submit(ANN, model="m")
    second = desk.submit(BOB, model="m", priority=Priority.LOW)
    desk.make(first, 30)
    (flow,) = desk.scheduler._running.values()
    assert [repr(it) for it in (desk.scheduler, desk.scheduler._queue, first, second, flow)] == [
        "<Scheduler 1 running, 1 of 9 queued, 2 users>",
        "<WaitQueue 1 waiting, 0 requeued, 1 models>",
        "<Ticket 1 of 'ann' for 'm': running, normal>",
        "<Ticket 2 of 'bob' for 'm': waiting at 1, low>",
        "<Flow of 'ann': 0 waiting, 1 running, 256 tokens ahead>",
    ]


# -- what others do wrong -------------------------------------------------------------------------


class Broken:
    """A lease that cannot be given back."""

    def release(self) -> None:
        raise OSError("gone")


def test_errors_of_others_do_no_harm() -> None:
    desk = Desk(0)

    def fail(*args: object) -> int:
        raise ZeroDivisionError

    desk.reason = fail  # type: ignore[assignment]
    with structlog.testing.capture_logs() as logs:
        errors_of_others(desk, fail)
    assert {entry["event"] for entry in logs} == {
        "explain_failed",
        "on_move_failed",
        "place_failed",
        "release_failed",
        "tokens_made_failed",
    }


def errors_of_others(desk: Desk, fail: Callable[..., int]) -> None:
    first, second, third = desk.submit(ANN), desk.submit(ANN), desk.submit(BOB)
    for ticket in (first, second, third):
        desk.listen(ticket, fail)  # type: ignore[arg-type]
        desk.make(ticket, fail)
    place, desk.slots.place = desk.slots.place, fail  # type: ignore[assignment, method-assign]
    desk.slots.resize(2)
    assert running(first, second, third) == [False, False, False]
    desk.slots.place = place  # type: ignore[method-assign]
    desk.scheduler.dispatch()
    assert running(first, second, third) == [True, False, True]
    assert first.lease is not None
    first.lease.release()
    first.lease = Broken()
    desk.remove(first)
    assert running(second) == [True]
    assert (desk.scheduler.running, desk.scheduler.queued) == (2, 0)
    desk.remove(second, third)
    assert desk.scheduler.idle
    assert desk.slots.busy == 0


def test_one_that_leaves_while_a_place_is_sought_for_it_has_none() -> None:
    desk = Desk(0)
    one, two = desk.submit(), desk.submit()
    place = desk.slots.place

    def remove(ticket: Ticket) -> Held | None:
        lease = place(ticket)
        desk.remove(one)
        return lease

    desk.slots.place = remove  # type: ignore[method-assign]
    desk.slots.on_free = lambda: None
    desk.slots.size = 1
    desk.scheduler.dispatch()
    assert (one.lease, running(two)) == (None, [True])
    assert (desk.scheduler.running, desk.slots.busy) == (1, 1)


def test_callbacks_may_come_and_go_themselves() -> None:
    desk = Desk(0)
    tickets = [desk.submit() for _ in range(3000)]
    submitted: list[Ticket] = []

    def over(ticket: Ticket) -> None:
        desk.remove(ticket)
        if len(submitted) < 5:
            submitted.append(desk.submit())

    for ticket in tickets:
        desk.listen(ticket, over)
    desk.slots.resize(1)
    assert all(ticket.lease is None for ticket in tickets)
    assert running(*submitted) == [True, False, False, False, False]
    assert (desk.scheduler.running, desk.scheduler.queued) == (1, 4)

"""Admission: never more running than slots, and every place given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from llcuda_net.admission import Admission, Claim, Ticket
from llcuda_net.errors import RequestError
from llcuda_net.users import ANONYMOUS, User
from llcuda_protocol import ErrorCode
from tests.llcuda_net.slots import Clock, Slots

ANN, BOB, EVE = User("ann"), User("bob"), User("eve")


class Desk:
    """An admission for some slots, and a clock that stands still until it is moved."""

    def __init__(self, slots: int, max_queue: int = 99, **options: Any) -> None:
        self.clock = Clock()
        self.slots = Slots(slots)
        self.admission = Admission(self.slots.place, max_queue, clock=self.clock, **options)
        self.slots.pump = self.admission.pump

    def enter(self, user: User = ANONYMOUS, *, always: bool = False, **claim: Any) -> Ticket:
        return self.admission.enter(Claim(user, **claim), always=always)

    def leave(self, *tickets: Ticket) -> None:
        for ticket in tickets:
            self.admission.leave(ticket)


def refused(enter: Callable[[], Ticket], match: str) -> RequestError:
    with pytest.raises(RequestError, match=match) as caught:
        enter()
    assert caught.value.code == ErrorCode.OVERLOADED
    assert caught.value.retry
    assert caught.value.retry_after is not None
    return caught.value


def running(*tickets: Ticket) -> list[bool]:
    assert all(t.turn.is_set() == (t.lease is not None) for t in tickets)
    return [ticket.turn.is_set() for ticket in tickets]


# -- slots and the queue --------------------------------------------------------------------------


def test_a_free_slot_is_had_at_once_and_the_next_waits() -> None:
    desk = Desk(1)
    tickets = [desk.enter() for _ in range(3)]
    assert [t.position for t in tickets] == [0, 1, 2]
    assert running(*tickets) == [True, False, False]
    assert (desk.admission.running, desk.admission.queued) == (1, 2)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    desk = Desk(1, 1)
    desk.enter()
    desk.enter()
    refused(desk.enter, "1 requests run and 1 wait")
    assert (desk.admission.running, desk.admission.queued) == (1, 1)
    assert desk.enter(always=True).position == 2


def test_a_full_queue_takes_one_of_each_user() -> None:
    desk = Desk(1, 2)
    for _ in range(3):
        desk.enter(EVE)
    refused(lambda: desk.enter(EVE), "2 wait")
    assert desk.enter(ANN).position == 1
    refused(lambda: desk.enter(ANN), "3 wait")


def test_without_a_queue_only_the_slots_are_to_be_had() -> None:
    desk = Desk(1, 0)
    ticket = desk.enter(ANN)
    refused(lambda: desk.enter(BOB), "1 requests run")
    desk.leave(ticket)
    assert desk.enter(BOB).turn.is_set()


def test_fewer_slots_admit_nobody_until_they_are_free() -> None:
    desk = Desk(2)
    one, two, third = (desk.enter() for _ in range(3))
    desk.slots.resize(1)
    desk.leave(one)
    assert running(third) == [False]
    desk.leave(two)
    assert running(third) == [True]
    desk.slots.resize(3)
    assert running(desk.enter()) == [True]


def test_to_leave_again_is_nothing() -> None:
    desk = Desk(1)
    one, two, three = (desk.enter() for _ in range(3))
    desk.leave(one, one, three, three)
    assert running(two) == [True]
    assert (desk.admission.running, desk.admission.queued) == (1, 0)
    desk.leave(two, one, two)
    assert desk.admission.idle
    assert desk.slots.busy == 0


async def test_a_ticket_comes_back_however_its_holder_ends(autojump_clock: object) -> None:
    slots = Slots(1)
    admission = Admission(slots.place, 9)
    with pytest.raises(ZeroDivisionError):
        async with admission.enter(Claim(ANN)):
            raise ZeroDivisionError
    with trio.move_on_after(1):
        async with admission.enter(Claim(ANN)):
            await trio.sleep_forever()
    holder = admission.enter(Claim(ANN))
    with trio.move_on_after(1):  # while it waits
        async with admission.enter(Claim(ANN)):
            raise AssertionError
    admission.leave(holder)
    with trio.CancelScope() as scope:  # before it looked whether its turn had come
        scope.cancel()
        async with admission.enter(Claim(ANN)):
            raise AssertionError
    assert (admission.running, admission.queued, slots.busy) == (0, 0, 0)

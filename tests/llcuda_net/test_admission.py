"""Admission: never more running than slots, first come first served, and every place given back."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llcuda_net.admission import Admission, Ticket
from llcuda_net.errors import RequestError
from llcuda_protocol import ErrorCode


def test_a_free_slot_is_had_at_once_and_the_next_waits() -> None:
    admission = Admission(slots=1, max_queue=2)
    first, second, third = admission.enter(), admission.enter(), admission.enter()
    assert [t.position for t in (first, second, third)] == [0, 1, 2]
    assert [t.turn.is_set() for t in (first, second, third)] == [True, False, False]
    assert (admission.running, admission.queued) == (1, 2)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    admission = Admission(slots=1, max_queue=1)
    admission.enter()
    admission.enter()
    with pytest.raises(RequestError, match="1 requests run and 1 wait") as caught:
        admission.enter()
    assert caught.value.code == ErrorCode.OVERLOADED
    assert caught.value.retry
    assert caught.value.retry_after
    assert (admission.running, admission.queued) == (1, 1)


def test_without_a_queue_only_the_slots_are_to_be_had() -> None:
    admission = Admission(slots=1, max_queue=0)
    ticket = admission.enter()
    with pytest.raises(RequestError):
        admission.enter()
    admission.leave(ticket)
    assert admission.enter().turn.is_set()


def test_positions_are_told_only_when_they_change() -> None:
    admission = Admission(slots=1, max_queue=9)
    running, *waiting = (admission.enter() for _ in range(4))
    told: list[tuple[int, int]] = []
    for number, ticket in enumerate(waiting):
        ticket.on_position = lambda position, number=number: told.append((number, position))  # type: ignore[misc]
    admission.leave(waiting[1])
    assert told == [(2, 2)]
    admission.leave(running)
    assert told == [(2, 2), (0, 0), (2, 1)]
    assert waiting[0].turn.is_set()


def test_fewer_slots_admit_nobody_until_they_are_free() -> None:
    admission = Admission(slots=2, max_queue=9)
    one, two, third = admission.enter(), admission.enter(), admission.enter()
    admission.set_slots(1)
    admission.leave(one)
    assert not third.turn.is_set()
    admission.leave(two)
    assert third.turn.is_set()
    admission.set_slots(3)
    assert admission.enter().turn.is_set()


async def test_a_ticket_comes_back_however_its_holder_ends(autojump_clock: object) -> None:
    admission = Admission(slots=1, max_queue=9)
    with pytest.raises(ZeroDivisionError):
        async with admission.enter():
            raise ZeroDivisionError
    with trio.move_on_after(1):
        async with admission.enter():
            await trio.sleep_forever()
    holder = admission.enter()
    with trio.move_on_after(1):  # while it waits
        async with admission.enter():
            raise AssertionError
    admission.leave(holder)
    with trio.CancelScope() as scope:  # before it looked whether its turn had come
        scope.cancel()
        async with admission.enter():
            raise AssertionError
    assert (admission.running, admission.queued) == (0, 0)


async def test_spare_time_begins_when_nobody_has_a_slot_or_wants_one(
    autojump_clock: object,
) -> None:
    admission = Admission(slots=1, max_queue=4)
    tickets = [admission.enter(), admission.enter()]
    begun: list[float] = []

    async def work() -> None:
        async with admission.spare(0.5):
            begun.append(trio.current_time())

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.sleep(1)
        admission.leave(tickets[0])  # the second has the slot now
        await trio.sleep(1)
        assert not begun
        admission.leave(tickets[1])
        await trio.sleep(0.25)
        assert not begun
        admission.leave(admission.enter())  # quiet begins anew
    assert begun == [pytest.approx(started + 2.75)]


async def test_whoever_comes_ends_spare_time_and_does_not_wait_for_it(
    autojump_clock: object,
) -> None:
    admission = Admission(slots=1, max_queue=4)
    ended: list[str] = []

    async def work() -> None:
        async with admission.spare(0.1):
            try:
                await trio.sleep_forever()
            finally:
                ended.append("cut off")
        ended.append("went on")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.sleep(1)
        assert (admission.running, admission.queued, admission.idle) == (0, 0, True)
        ticket = admission.enter()
        assert ticket.turn.is_set()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cut off", "went on"]
    assert not admission._spare


async def test_cancelling_spare_time_from_outside_cancels_it(autojump_clock: object) -> None:
    admission = Admission(slots=1, max_queue=4)
    busy = admission.enter()
    for settle, wait in ((0.0, 1.0), (5.0, 1.0), (0.0, 0.0)):
        with trio.move_on_after(wait) as scope:
            async with admission.spare(settle):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        if not admission.idle:
            admission.leave(busy)


class Queueing(RuleBasedStateMachine):
    """Against the plainest model there is: two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.slots, self.most = 2, 4
        self.admission = Admission(self.slots, self.most)
        self.running: list[Ticket] = []
        self.waiting: list[Ticket] = []
        self.told: dict[Ticket, int] = {}

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            self.running.append(self.waiting.pop(0))

    @rule()
    def enter(self) -> None:
        full = len(self.waiting) >= self.most
        blocked = len(self.running) >= self.slots or self.waiting
        try:
            ticket = self.admission.enter()
        except RequestError:
            assert blocked
            assert full
            return
        assert not (blocked and full)
        (self.waiting if blocked else self.running).append(ticket)
        self.told[ticket] = ticket.position
        ticket.on_position = lambda position: self.told.__setitem__(ticket, position)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self._admit()
        self.admission.leave(ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.admission.leave(ticket)

    @rule(slots=st.integers(1, 4))
    def resize(self, slots: int) -> None:
        self.slots = slots
        self._admit()
        self.admission.set_slots(slots)

    @invariant()
    def agrees(self) -> None:
        assert self.admission.running == len(self.running)
        assert self.admission.queued == len(self.waiting)
        assert all(ticket.turn.is_set() for ticket in self.running)
        assert not any(ticket.turn.is_set() for ticket in self.waiting)
        # What each was told last is where it stands.
        assert [self.told[ticket] for ticket in self.waiting] == [
            place for place, _ in enumerate(self.waiting, 1)
        ]
        assert not self.waiting or len(self.running) >= self.slots


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

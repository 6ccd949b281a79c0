"""What a user may have at once, waiting and in a minute; deadlines; how long it will take."""

from __future__ import annotations

import math

import pytest
import trio

from llcuda_net.config.users import Priority, User
from llcuda_net.errors import RequestError
from llcuda_net.scheduler.quota import MovingMean, UserQuota
from llcuda_protocol import ErrorCode
from tests.support.scheduler_slots import ANN, BOB, EVE, Clock, Desk, refused, running


def test_no_more_run_at_once_than_a_user_may() -> None:
    desk = Desk(4)
    two = User("two", max_running=2)
    tickets = [desk.submit(two) for _ in range(4)]
    assert running(*tickets) == [True, True, False, False]
    assert tickets[2].reason == "your limit of 2 at once"
    other = desk.submit(BOB)
    assert running(other) == [True]
    desk.remove(tickets[0])
    assert running(*tickets) == [False, True, True, False]
    loads = {load.name: load.running for load in desk.scheduler.users()}
    assert loads == {"two": 2, "bob": 1}


def test_another_limit_holds_at_once_for_those_who_wait() -> None:
    desk = Desk(4)
    tickets = [desk.submit(User("one", max_running=1)) for _ in range(4)]
    assert running(*tickets) == [True, False, False, False]
    desk.scheduler.update_users(lambda name: User(name, max_running=3))
    assert running(*tickets) == [True, True, True, False]


def test_a_limit_holds_over_all_models_and_classes() -> None:
    desk = Desk(9)
    one = User("one", max_running=1)
    tickets = [
        desk.submit(one, model=model, priority=priority)
        for model in "ab"
        for priority in (Priority.LOW, Priority.HIGH)
    ]
    assert running(*tickets) == [True, False, False, False]
    desk.remove(tickets[0])
    assert running(*tickets) == [False, True, False, False]


def test_a_lost_slot_is_not_had_again_beyond_the_limit() -> None:
    desk = Desk(2)
    desk.slots.keys = {"x", "y"}
    one = User("one", max_running=1)
    lost, other = desk.submit(one, key="x"), desk.submit(one, key="y")
    desk.slots.keys = {"y"}
    desk.scheduler.requeue(lost, lost.slot_request)
    assert running(lost, other) == [False, True]
    desk.slots.keys = {"x", "y"}
    desk.scheduler.dispatch()
    assert running(lost, other) == [False, True]
    desk.remove(other)
    assert running(lost) == [True]


def test_no_more_wait_than_a_user_may() -> None:
    desk = Desk(1, 99)
    few = User("few", max_queued=2)
    tickets = [desk.submit(few) for _ in range(3)]
    refused(lambda: desk.submit(few), r"your limit of 2 waiting requests \(user few\)")
    refused(lambda: desk.submit(few, priority=Priority.HIGH), "your limit of 2 waiting")
    assert desk.scheduler.queued == 2
    desk.submit(few, always=True)
    desk.submit(BOB)
    # What lost its slot is not counted among them.
    desk.remove(*tickets[1:])
    desk.slots.size = 0
    desk.scheduler.requeue(tickets[0], tickets[0].slot_request)
    desk.submit(few)
    refused(lambda: desk.submit(few), "your limit of 2 waiting")


def test_a_user_who_may_not_wait_has_what_is_free() -> None:
    desk = Desk(1)
    hasty = User("hasty", max_queued=0)
    ticket = desk.submit(hasty)
    refused(lambda: desk.submit(hasty), "your limit of 0 waiting")
    desk.remove(ticket)
    assert running(desk.submit(hasty)) == [True]


# -- tokens a minute ------------------------------------------------------------------------------

SLOW = User("slow", tokens_per_minute=600)


def test_tokens_are_charged_as_they_are_used_and_come_back() -> None:
    desk = Desk(9)
    first, second = desk.submit(SLOW, prompt_tokens=100), desk.submit(SLOW)
    assert running(first, second) == [True, True]  # nothing is known before it is used
    desk.make(first, 800)  # 300 more than a minute's
    third = desk.submit(SLOW)
    assert running(third) == [False]
    assert third.reason == "your limit of 600 tokens a minute"
    assert running(desk.submit(BOB)) == [True]
    desk.remove(first, second)
    assert desk.scheduler.due() == pytest.approx(30.0)
    desk.wait(29.9)
    assert running(third) == [False]
    desk.wait(0.2)
    assert running(third) == [True]


def test_no_more_than_a_minutes_tokens_are_saved_up() -> None:
    desk = Desk(9)
    desk.remove(desk.submit(SLOW), tokens=1)
    desk.wait(3600.0)
    desk.remove(desk.submit(SLOW), tokens=1800)
    ticket = desk.submit(SLOW)
    desk.wait(119.0)
    assert running(ticket) == [False]
    desk.wait(1.1)
    assert running(ticket) == [True]


@pytest.mark.parametrize("looks", [1, 10])
def test_what_runs_is_charged_as_it_was_used(looks: int) -> None:
    desk = Desk(9)
    long = desk.submit(SLOW)
    desk.make(long, lambda: int(desk.clock.now * 10))  # 600 a minute is what it may
    for _ in range(looks):
        desk.wait(1200.0 / looks)
        ticket = desk.submit(SLOW)
        assert running(ticket) == [True]
        desk.remove(ticket)
    desk.remove(long)
    assert running(desk.submit(SLOW)) == [True]


def test_a_lost_slot_is_had_again_whatever_was_used() -> None:
    desk = Desk(1)
    ticket = desk.submit(SLOW)
    desk.make(ticket, 100_000)
    desk.scheduler.requeue(ticket, ticket.slot_request)
    assert running(ticket) == [True]


# -- how long it will take, and deadlines ---------------------------------------------------------


def moving(seconds: float = 10.0) -> Desk:
    """A desk whose queue has moved every so many seconds."""
    desk = Desk(1)
    tickets = [desk.submit(EVE) for _ in range(5)]
    for ticket in tickets[:4]:
        desk.wait(seconds)
        desk.remove(ticket)
    return desk


def test_the_wait_is_told_as_soon_as_it_is_known() -> None:
    desk = Desk(1)
    first, second = desk.submit(EVE), desk.submit(EVE)
    assert second.wait is None
    desk.remove(first, second)
    desk = moving(10.0)
    tickets = [desk.submit(ANN) for _ in range(3)]
    assert [ticket.wait for ticket in tickets] == [pytest.approx(10.0 * n) for n in (1, 2, 3)]
    assert desk.submit(ANN, model="other").wait is None


def test_a_queue_that_stands_still_is_slow() -> None:
    desk = moving(10.0)
    desk.submit(ANN)
    desk.wait(500.0)
    wait = desk.submit(ANN).wait
    assert wait is not None
    assert wait > 200.0


def test_time_in_which_nobody_waits_is_not_counted() -> None:
    desk = Desk(1)
    for _ in range(4):
        tickets = [desk.submit(EVE) for _ in range(3)]
        for ticket in tickets:
            desk.wait(10.0)
            desk.remove(ticket)
        desk.wait(1000.0)
    desk.submit(EVE)
    assert desk.submit(ANN).wait == pytest.approx(10.0)


def test_the_wait_is_at_least_until_tokens_come_back() -> None:
    desk = moving(10.0)
    desk.scheduler._quotas["slow"] = quota = UserQuota(SLOW, MovingMean())
    quota.start("work", lambda: 1800, desk.clock.now)
    quota.finish("work", desk.clock.now)
    assert desk.submit(SLOW).wait == pytest.approx(120.0)


def test_an_answer_is_expected_to_be_as_long_as_the_last_ones() -> None:
    everybody = MovingMean()
    one, other = UserQuota(ANN, everybody), UserQuota(BOB, everybody)
    guess = one.expected_tokens(None)
    assert guess > 0
    assert one.expected_tokens(7) == 7
    for tokens in (100, 300, 0):  # nothing is learnt of what came to nothing
        one.add_answer(tokens)
    assert one.expected_tokens(None) == other.expected_tokens(None) == 200
    assert one.expected_tokens(150) == 150
    for _ in range(100):
        other.add_answer(1000)
    assert one.expected_tokens(None) == 200
    assert other.expected_tokens(None) == pytest.approx(1000)
    for _ in range(30):
        one.add_answer(500)
    assert one.expected_tokens(None) == pytest.approx(500, rel=0.2)


def test_whoever_would_come_too_late_is_refused_at_once() -> None:
    desk = moving(10.0)
    now = desk.clock.now
    desk.submit(ANN, deadline=now + 10.5)
    error = refused(lambda: desk.submit(ANN, deadline=now + 19.5), "within 19.5 s but 20 s")
    assert error.retry_after == pytest.approx(20.0)
    assert desk.submit(ANN, deadline=now + 19.5, always=True)


def test_whoever_is_refused_by_a_full_queue_comes_back_when_it_has_moved() -> None:
    desk = moving(10.0)
    desk.scheduler.max_queue = 3
    for _ in range(3):
        desk.submit(ANN)
    assert refused(lambda: desk.submit(ANN), "3 wait").retry_after == pytest.approx(40.0)


async def test_a_deadline_that_passes_ends_the_wait(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    first = desk.submit(EVE)
    started = trio.current_time()
    ticket = desk.submit(ANN, deadline=started + 7.5)
    with pytest.raises(RequestError, match=r"not begun in 7\.5 s") as caught:
        async with ticket:
            raise AssertionError
    assert caught.value.code == ErrorCode.TIMEOUT
    assert caught.value.retry
    assert trio.current_time() == started + 7.5
    assert desk.scheduler.queued == 0
    desk.remove(first)
    assert desk.scheduler.idle


async def test_one_that_is_looked_at_after_its_deadline_has_no_slot(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    first = desk.submit(EVE)
    late = desk.submit(ANN, deadline=trio.current_time() + 1)
    soon = desk.submit(ANN)
    await trio.sleep(2)
    desk.remove(first)
    assert running(late, soon) == [False, True]
    with pytest.raises(RequestError, match="not begun in 1 s"):
        await late.acquire()
    desk.remove(soon)
    assert desk.scheduler.idle


@pytest.mark.parametrize("seconds", [0.0, 1e-9, -1e-6, -1.0])
def test_a_deadline_of_nothing_begins_if_it_can_begin_at_once(seconds: float) -> None:
    """The clock has moved on since the request came; on an idle server that is no reason."""

    class Moving(Clock):
        def __call__(self) -> float:
            self.now += 1e-5
            return self.now

    clock = Moving()
    desk = Desk(1, clock=clock)
    first = desk.submit(ANN, deadline=clock.now + seconds)
    assert running(first) == [True]
    error = refused(
        lambda: desk.submit(BOB, deadline=clock.now + seconds), "it cannot begin at once"
    )
    assert error.retry
    desk.remove(first)
    assert desk.scheduler.idle
    assert running(desk.submit(BOB, deadline=clock.now + seconds)) == [True]


async def test_a_deadline_of_nothing_waits_where_it_was_accepted_before(
    autojump_clock: object,
) -> None:
    desk = Desk(1, clock=trio.current_time)
    first = desk.submit(EVE)
    late = desk.submit(ANN, deadline=trio.current_time(), always=True)
    with pytest.raises(RequestError, match="not begun in 0 s"):
        await late.acquire()
    desk.remove(first)
    assert desk.scheduler.idle


async def test_a_deadline_is_for_the_beginning_only(autojump_clock: object) -> None:
    desk = Desk(1, clock=trio.current_time)
    async with desk.submit(ANN, deadline=trio.current_time() + 1) as nothing:
        assert nothing is None
        await trio.sleep(5)
    ticket = desk.submit(ANN, deadline=trio.current_time() + 1)
    desk.slots.size = 0
    desk.scheduler.requeue(ticket, ticket.slot_request)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticket.acquire)
        await trio.sleep(5)
        desk.slots.resize(1)
    assert running(ticket) == [True]
    assert ticket.slot_request.deadline < trio.current_time() < math.inf


def test_a_limit_that_comes_later_is_not_charged_with_what_was_used_before() -> None:
    quota = UserQuota(User("ann"), MovingMean())
    made = 5000
    quota.start("work", lambda: made, 0.0)
    quota.user = User("ann", tokens_per_minute=600)
    assert quota.may_start(10.0)
    made += 800
    assert not quota.may_start(20.0)
    assert quota.finish("work", 20.0) == made
    assert quota.served == made


def test_what_is_used_while_a_limit_is_lifted_is_not_charged() -> None:
    quota = UserQuota(SLOW, MovingMean())
    made = 100
    quota.start("work", lambda: made, 0.0)
    assert quota.may_start(1.0)
    quota.user = User("slow")
    made += 100_000
    assert quota.may_start(2.0)
    quota.start("more", lambda: 50_000, 2.0)
    quota.finish("more", 3.0)
    quota.user = SLOW
    assert quota.may_start(4.0)
    assert quota.limit_reached(4.0) == ""
    made += 601  # more than a minute's, and what is charged is all of it
    assert not quota.may_start(5.0)
    assert quota.limit_reached(5.0) == "your limit of 600 tokens a minute"


def test_a_limit_that_is_lifted_lets_those_start_who_wait() -> None:
    desk = Desk(4)
    desk.remove(desk.submit(SLOW), tokens=6_000)
    tickets = [desk.submit(SLOW) for _ in range(3)]
    assert running(*tickets) == [False, False, False]
    desk.scheduler.update_users(User)
    assert running(*tickets) == [True, True, True]
    assert [ticket.reason for ticket in tickets] == ["", "", ""]
    assert desk.scheduler._quotas["slow"].refilled_at(desk.clock.now) == -math.inf
    desk.remove(tickets[0], tokens=50_000)
    desk.scheduler.update_users(lambda name: User(name, tokens_per_minute=600))
    assert running(desk.submit(SLOW)) == [False]  # the old debt: the bucket was never full again
    desk.wait(600.0)
    assert running(desk.submit(SLOW)) == [True]


def test_other_limits_that_come_with_a_request_hold_for_those_who_wait() -> None:
    desk = Desk(4)
    desk.remove(desk.submit(SLOW), tokens=6_000)
    waits = desk.submit(SLOW, model="other")
    assert running(waits) == [False]
    assert running(desk.submit(User("slow"))) == [True]
    assert running(waits) == [True]

"""Whose turn it is: among users, among classes, after a lost slot, and past what has no place."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llcuda_net.config.users import Priority, User
from llcuda_net.scheduler.assignment import Assignment, assign
from llcuda_net.scheduler.flows import Flow
from llcuda_net.scheduler.quota import MovingMean, UserQuota
from llcuda_net.scheduler.ticket import Phase, SlotRequest, Ticket
from llcuda_net.scheduler.wait_queue import WaitQueue
from tests.support.scheduler_slots import ANN, BOB, EVE, Desk, Slots, running

HIGH, NORMAL, LOW = Priority


def test_assign_decides_and_notifies_nobody() -> None:
    """One free slot: the first ticket has expired, the second gets it, the third waits."""
    queue = WaitQueue()
    running_: dict[Ticket, Flow] = {}
    quotas = {user.name: UserQuota(user, MovingMean()) for user in (ANN, BOB)}
    moved: list[Ticket] = []
    tickets = [
        Ticket(SlotRequest(user, deadline=late), n, 0.0, 30.0, moved.append, on_move=moved.append)
        for n, (user, late) in enumerate([(ANN, 1.0), (ANN, 9.0), (BOB, 9.0)])
    ]
    for ticket in tickets:
        queue.add(ticket, quotas[ticket.slot_request.user.name], 0.0)
    slots = Slots(1)
    found = assign(queue, quotas, running_, slots.place, 2.0)
    assert (found.started, found.expired) == ([tickets[1]], [tickets[0]])
    assert [ticket.phase for ticket in tickets] == [Phase.DONE, Phase.RUNNING, Phase.WAITING]
    assert list(running_) == [tickets[1]]
    assert list(queue) == [tickets[2]]
    assert not moved
    assert not any(ticket.granted.is_set() for ticket in tickets)
    assert assign(queue, quotas, running_, slots.place, 2.0) == Assignment()


# -- among users ----------------------------------------------------------------------------------


def turns(desk: Desk, running: Ticket, *, tokens: int = 100, count: int = 99) -> list[Ticket]:
    """Those who get the one slot, in turn, when each makes so many tokens."""
    order = []
    while count and desk.scheduler.queued:
        waiting = desk.scheduler.waiting()
        desk.remove(running, tokens=tokens)
        (running,) = (ticket for ticket in waiting if ticket.lease is not None)
        order.append(running)
        count -= 1
    return order


def names(tickets: list[Ticket]) -> str:
    return "".join(ticket.slot_request.user.name[0] for ticket in tickets)


def test_a_flood_delays_another_by_one_turn_at_most() -> None:
    desk = Desk(2)
    flood = [desk.submit(EVE) for _ in range(500)]
    single = desk.submit(ANN)
    assert single.position == 1
    desk.remove(flood[0], tokens=4000)
    assert running(single, flood[2]) == [True, False]
    single = desk.submit(BOB)
    desk.remove(flood[1], tokens=4000)
    assert running(single, flood[2]) == [True, False]


def test_users_share_by_weight() -> None:
    desk = Desk(1)
    heavy = User("heavy", weight=3)
    first = desk.submit(EVE)
    for _ in range(12):
        desk.submit(heavy)
        desk.submit(ANN)
    order = turns(desk, first, count=12)
    assert names(order).count("h") == 9


def test_long_answers_count_for_more() -> None:
    desk = Desk(1)
    running = desk.submit(EVE)
    for _ in range(20):
        desk.submit(ANN)
        desk.submit(BOB)
    order = ""
    for _ in range(15):
        waiting = desk.scheduler.waiting()
        desk.remove(running, tokens=400 if running.slot_request.user is ANN else 100)
        (running,) = (ticket for ticket in waiting if ticket.lease is not None)
        order += names([running])
    assert order.count("b") == 4 * order.count("a")


def test_prompts_count_too() -> None:
    desk = Desk(1)
    running = desk.submit(EVE)
    for _ in range(20):
        desk.submit(ANN, prompt_tokens=350, most_tokens=50)
        desk.submit(BOB, prompt_tokens=50, most_tokens=50)
    order = turns(desk, running, tokens=50, count=15)
    assert names(order).count("b") == 4 * names(order).count("a")


def test_what_runs_counts_as_it_stands() -> None:
    desk = Desk(2)
    long = desk.submit(ANN, most_tokens=10)
    short = desk.submit(BOB, most_tokens=10)
    anns, bobs = desk.submit(ANN), [desk.submit(BOB) for _ in range(3)]
    desk.make(long, 10_000)
    desk.remove(short, tokens=10)  # BOB waits, so nobody is lifted
    assert running(anns, *bobs) == [False, True, False, False]
    desk.remove(bobs[0], tokens=100)
    assert running(anns, *bobs) == [False, False, True, False]


def test_what_is_expected_counts_until_it_is_known() -> None:
    desk = Desk(1)
    for _ in range(20):
        desk.remove(desk.submit(ANN), tokens=1000)
        desk.remove(desk.submit(BOB), tokens=10)
    desk.submit(EVE)
    assert at_once(desk, {}, {}) == 1


def test_what_is_bounded_is_expected_to_be_no_more() -> None:
    desk = Desk(1)
    desk.submit(EVE)
    assert at_once(desk, {}, {"most_tokens": 2}) == 1


def test_what_is_to_be_read_is_known() -> None:
    desk = Desk(1)
    desk.submit(EVE)
    bobs = {"most_tokens": 100}
    assert at_once(desk, {"prompt_tokens": 300, "most_tokens": 100}, bobs) == 10


def at_once(desk: Desk, anns: dict[str, Any], bobs: dict[str, Any]) -> int:
    """How many of 50 slots that are free at once ANN gets, and BOB the others."""
    for _ in range(60):
        desk.submit(ANN, **anns)
        desk.submit(BOB, **bobs)
    desk.slots.resize(1 + 50)
    loads = {load.name: load.running for load in desk.scheduler.users()}
    assert loads["ann"] + loads["bob"] == 50
    return loads["ann"]


def test_who_has_fewer_running_is_first_among_equals() -> None:
    desk = Desk(0)
    first, second = desk.submit(ANN, model="x"), desk.submit(ANN, model="y")
    third = desk.submit(BOB, model="y")
    desk.slots.resize(2)
    assert running(first, second, third) == [True, False, True]


def test_a_weight_that_has_changed_counts() -> None:
    desk = Desk(1)
    first = desk.submit(EVE)
    for _ in range(30):
        desk.submit(BOB)
        desk.submit(ANN)
    desk.submit(User("ann", weight=4))
    assert names(turns(desk, first, count=20)).count("a") == 16


def test_who_was_away_has_neither_credit_nor_debt() -> None:
    desk = Desk(1)
    first = desk.submit(EVE)
    waiting = [desk.submit(EVE) for _ in range(40)]
    turns(desk, first, count=20, tokens=1000)  # ANN is away for 20,000 tokens
    for _ in range(20):
        desk.submit(ANN)
    (now,) = (ticket for ticket in waiting if ticket.lease is not None)
    order = turns(desk, now, count=10, tokens=1000)
    assert names(order) == "ae" * 5


def test_who_comes_back_has_neither_credit_nor_debt() -> None:
    desk = Desk(1)
    first = desk.submit(ANN)
    waiting = [desk.submit(EVE) for _ in range(40)]
    again = desk.submit(ANN)
    desk.remove(first)
    desk.remove(again)  # ANN had something, and has nothing now
    order = turns(desk, waiting[0], count=20, tokens=1000)
    for _ in range(20):
        desk.submit(ANN)
    assert names(turns(desk, order[-1], count=10, tokens=1000)) == "ae" * 5


def test_who_was_at_a_limit_has_no_credit() -> None:
    desk = Desk(2)
    one = User("one", max_running=1)
    held = desk.submit(one)
    flood = [desk.submit(EVE)] + [desk.submit(EVE) for _ in range(60)]
    for _ in range(20):
        desk.submit(one)
    for ticket in flood[:20]:
        desk.remove(ticket, tokens=1000)
    desk.remove(held, tokens=10)  # one was held back while EVE had 20,000
    served = "".join(names([ticket]) for ticket in turns(desk, flood[20], count=10, tokens=1000))
    assert served.count("e") >= 4


@pytest.mark.parametrize("others", [False, True])
def test_when_nobody_waits_or_runs_all_are_even_again(others: bool) -> None:
    desk = Desk(1 + others)
    if others:
        desk.submit(EVE, priority=HIGH)
    desk.remove(desk.submit(ANN), tokens=100_000)
    first = desk.submit(EVE)
    for _ in range(3):
        desk.submit(BOB)
        desk.submit(ANN)
    assert names(turns(desk, first, count=4)) == "baba"


def test_of_ones_own_the_oldest_is_first() -> None:
    desk = Desk(1)
    first = desk.submit(ANN)
    tickets = [desk.submit(ANN) for _ in range(5)]
    assert turns(desk, first) == tickets


def test_models_do_not_count_against_each_other() -> None:
    desk = Desk(1)
    running = desk.submit(ANN, model="x")
    desk.submit(ANN, model="x")
    desk.remove(running, tokens=100_000)
    assert desk.submit(BOB, model="x").position == 1
    # What ANN had of x does not put her behind for y.
    anns, bobs = desk.submit(ANN, model="y"), desk.submit(EVE, model="y")
    assert (anns.position, bobs.position) == (1, 1)  # EVE has fewer running
    assert names(desk.scheduler.waiting()) == "bea"


# -- among classes --------------------------------------------------------------------------------


def test_better_classes_come_first_whoever_asks() -> None:
    desk = Desk(1)
    first = desk.submit(EVE)
    low, normal = desk.submit(ANN, priority=LOW), desk.submit(BOB, priority=NORMAL)
    high = [desk.submit(EVE, priority=HIGH) for _ in range(3)]
    assert [low.position, normal.position, high[2].position] == [1, 1, 3]
    assert turns(desk, first) == [*high, normal, low]


def test_nobody_has_a_better_class_than_they_may() -> None:
    desk = Desk(1)
    first = desk.submit(EVE)
    mean = desk.submit(User("mean", priority=LOW), priority=HIGH)
    low = desk.submit(BOB, priority=NORMAL)
    assert turns(desk, first) == [low, mean]


@pytest.mark.parametrize(("deadline", "rises"), [(math.inf, 30.0), (1000.0, 30.0), (40.0, 10.0)])
def test_who_is_held_back_by_better_classes_rises(deadline: float, rises: float) -> None:
    desk = Desk(1, ageing=30.0)
    first = desk.submit(EVE)
    low = desk.submit(ANN, priority=LOW, deadline=deadline)
    for _ in range(9):
        desk.submit(BOB, priority=HIGH)
    desk.wait(rises - 0.1)
    assert low.priority == LOW
    desk.wait(0.1)
    assert low.priority == NORMAL
    desk.wait(rises - 0.1)
    assert low.priority == NORMAL
    desk.wait(0.1)
    assert low.priority == HIGH
    # As good as BOB's now, and he has as few running and as much to come.
    assert low in turns(desk, first, count=2)


def test_a_deadline_does_not_lift_into_a_class_that_the_user_may_not_ask_for() -> None:
    """Else whoever is kept to a worse class would say that everything is urgent."""
    desk = Desk(1, ageing=30.0)
    kept = User("kept", priority=NORMAL)
    first = desk.submit(EVE)
    urgent = desk.submit(kept, priority=LOW, deadline=4.0)
    for _ in range(9):
        desk.submit(EVE, priority=HIGH)
    desk.wait(1.5)
    assert urgent.priority is NORMAL
    desk.wait(2.0)
    assert urgent.priority is NORMAL
    desk.remove(first)
    assert urgent.lease is None


def test_one_that_lost_its_slot_does_not_bring_its_users_old_limits_back() -> None:
    desk = Desk(2)
    old = desk.submit(User("ann", max_running=1))
    new = [desk.submit(User("ann")) for _ in range(2)]
    assert running(old, *new) == [True, True, False]
    desk.scheduler.requeue(old, old.slot_request)
    assert running(old, *new) == [True, True, False]


def test_who_waits_for_ones_own_class_does_not_rise() -> None:
    desk = Desk(1, ageing=30.0)
    first = desk.submit(EVE)
    flood = [desk.submit(EVE) for _ in range(100)]
    desk.wait(1000.0)
    single = desk.submit(ANN)
    assert turns(desk, first, count=2) == [single, flood[0]]


def test_of_a_flood_that_is_held_back_one_rises_at_a_time() -> None:
    desk = Desk(1, ageing=30.0)
    first = desk.submit(BOB, priority=HIGH)
    flood = [desk.submit(EVE, priority=LOW) for _ in range(100)]
    desk.submit(BOB, priority=HIGH)
    desk.wait(1000.0)
    assert [ticket.priority for ticket in flood[:3]] == [HIGH, LOW, LOW]
    single = desk.submit(ANN, priority=NORMAL)
    eve, bob = turns(desk, first, count=2)
    assert (eve, bob.slot_request.user) == (flood[0], BOB)
    desk.submit(BOB, priority=HIGH)
    desk.wait(29.0)
    assert [ticket.priority for ticket in flood[1:3]] == [LOW, LOW]
    assert turns(desk, bob)[1:3] == [single, flood[1]]


def test_a_class_that_is_served_now_and_then_is_not_held_back() -> None:
    desk = Desk(1, ageing=30.0)
    running = desk.submit(EVE)
    normal = [desk.submit(EVE) for _ in range(20)]
    for _ in range(10):
        desk.submit(BOB, priority=HIGH)
        desk.wait(10.0)
        (high,) = turns(desk, running, count=1)
        assert high.slot_request.user is BOB
        desk.wait(10.0)
        (running,) = turns(desk, high, count=1)
        assert running.slot_request.user is EVE
    assert {ticket.priority for ticket in normal} == {NORMAL}


def test_what_was_served_is_held_back_from_then_on() -> None:
    desk = Desk(1, ageing=30.0)
    first = desk.submit(EVE)
    desk.slots.keys = {""}
    desk.submit(BOB, key="none", priority=HIGH)  # waits all along
    one, two = desk.submit(ANN), desk.submit(ANN)
    desk.wait(20.0)
    desk.remove(first)
    assert running(one) == [True]
    desk.wait(29.9)
    assert two.priority == NORMAL
    desk.wait(0.1)
    assert two.priority == HIGH


# -- what has no place ----------------------------------------------------------------------------


def test_what_has_no_place_is_looked_past() -> None:
    desk = Desk(1)
    first = desk.submit(EVE)
    desk.slots.keys = {"", "small"}
    big = [desk.submit(ANN, key="big", priority=HIGH) for _ in range(3)]
    small = desk.submit(ANN, key="small", priority=LOW)
    desk.remove(first)
    assert running(*big, small) == [False, False, False, True]
    asked = desk.slots.asked
    desk.submit(BOB, key="small")
    assert desk.slots.asked == asked + 2  # one of each kind
    desk.slots.keys = {"big"}
    desk.remove(small)
    assert running(*big) == [True, False, False]


def test_credit_for_what_had_no_place_is_bounded() -> None:
    desk = Desk(1)
    first = desk.submit(EVE)
    desk.slots.keys = {""}
    for _ in range(300):
        desk.submit(ANN, key="big")
        desk.submit(BOB)
    done = turns(desk, first, count=100, tokens=1000)
    assert names(done) == "b" * 100
    desk.slots.keys = {"", "big"}
    after = names(turns(desk, done[-1], count=40, tokens=1000))
    # About 16,000 of the 100,000 tokens that BOB had in between.
    assert after[:15] == "a" * 15
    assert 8 <= after[20:].count("b") <= 12


# -- after a lost slot ----------------------------------------------------------------------------


def test_one_whose_slot_was_lost_comes_before_all_others() -> None:
    desk = Desk(2, max_queue=1)
    one, two = desk.submit(EVE), desk.submit(EVE)
    high = desk.submit(ANN, priority=HIGH)
    granted = one.granted
    desk.make(one, 100_000)
    desk.slots.size = 0
    desk.scheduler.requeue(one, one.slot_request)
    desk.scheduler.requeue(two, two.slot_request)
    assert (desk.scheduler.running, desk.scheduler.queued, desk.slots.busy) == (0, 3, 0)
    assert [t.position for t in (one, two)] == [1, 2]
    assert granted is not one.granted
    desk.submit(BOB)
    desk.slots.resize(1)
    assert running(one, two, high) == [True, False, False]
    desk.slots.resize(2)
    assert running(one, two, high) == [True, True, False]
    desk.scheduler.remove(one)
    assert running(high) == [True]


def test_one_whose_slot_was_lost_may_have_another_at_once() -> None:
    desk = Desk(1)
    one, two = desk.submit(EVE), desk.submit(ANN)
    told: list[Ticket] = []
    desk.listen(one, told.append)
    lease = one.lease
    desk.scheduler.requeue(one, one.slot_request)
    assert running(one, two) == [True, False]
    assert one.lease is not lease
    assert not told


def test_what_was_made_before_a_slot_was_lost_is_paid_once() -> None:
    desk = Desk(1)
    one = desk.submit(EVE, prompt_tokens=50)
    desk.make(one, 300)
    desk.scheduler.requeue(one, one.slot_request)
    desk.make(one, 400)
    desk.remove(one)
    (load,) = desk.scheduler.users()
    assert (load.served, load.running, load.queued) == (450, 0, 0)


def test_one_that_left_cannot_come_again() -> None:
    desk = Desk(1)
    one = desk.submit(EVE)
    desk.remove(one)
    desk.scheduler.requeue(one, one.slot_request)
    assert desk.scheduler.idle
    assert desk.slots.busy == 0

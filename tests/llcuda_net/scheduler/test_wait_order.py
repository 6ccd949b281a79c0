"""Positions foretell the order in which those who wait are served."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from llcuda_net.config.users import Priority, User
from llcuda_net.scheduler.scheduler import Ticket
from tests.support.scheduler_slots import ANN, BOB, EVE, Desk, running

#: Tokens of each answer, and of each prompt: all use what is expected of them.
ANSWER, PROMPT = 100, 20


def submit(desk: Desk, user: User, **more: Any) -> Ticket:
    return desk.submit(user, most_tokens=ANSWER, prompt_tokens=PROMPT, **more)


def report(desk: Desk) -> None:
    """Look at all positions, as happens some times per second."""
    for _ in desk.scheduler._reporter.report(lambda: desk.clock.now):
        pass


def foretold(tickets: list[Ticket]) -> list[Ticket]:
    return sorted(tickets, key=lambda ticket: ticket.position)


def served(desk: Desk, holds: Ticket, tickets: list[Ticket], count: int = 999) -> list[Ticket]:
    """The order in which they, or so many of them, get the only slot; the last one has it."""
    order: list[Ticket] = []
    for _ in tickets[:count]:
        desk.remove(holds, tokens=ANSWER)
        (holds,) = (one for one in tickets if running(one) == [True])
        order.append(holds)
    return order


def users(chance: random.Random) -> list[User]:
    """Of such weights that no two are ever even."""
    return [User(f"user {n}", weight=chance.uniform(0.5, 3)) for n in range(4)]


@pytest.mark.parametrize("seed", range(12))
def test_users_of_any_weight_are_served_in_the_order_of_their_positions(seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk(1)
    everybody = users(chance)
    holds = submit(desk, EVE)
    tickets = [submit(desk, chance.choice(everybody)) for _ in range(20)]
    while tickets:  # later some are ahead of others
        report(desk)
        expected = foretold(tickets)
        assert [ticket.position for ticket in expected] == list(range(1, len(tickets) + 1))
        assert served(desk, holds, tickets, count=7) == expected[:7]
        holds = expected[:7][-1]
        tickets = expected[7:]


@pytest.mark.parametrize("change", ["comes", "goes"])
def test_who_comes_and_who_goes_moves_the_others(change: str) -> None:
    desk = Desk(1)
    holds = submit(desk, EVE)
    anns = [submit(desk, ANN) for _ in range(4)]
    bobs = [submit(desk, BOB) for _ in range(2)]
    if change == "goes":
        desk.remove(anns.pop(0))
    else:
        anns.append(submit(desk, ANN))
    report(desk)
    tickets = [*anns, *bobs]
    expected = foretold(tickets)
    assert [ticket.position for ticket in expected] == list(range(1, len(tickets) + 1))
    assert served(desk, holds, tickets) == expected


def test_of_two_that_are_even_who_will_have_fewer_running_is_first() -> None:
    desk = Desk(1)
    holds = submit(desk, EVE)
    submit(desk, ANN)
    second, bob = submit(desk, ANN), submit(desk, BOB)
    # By then BOB has been served what one request of ANN's uses, and she runs that one.
    flow = desk.scheduler._queue.flow(bob)
    flow.counter.raise_to(flow.counter.served() + ANSWER + PROMPT)
    report(desk)
    assert [second.position, bob.position] == [3, 2]
    desk.remove(holds)


def test_who_may_start_nothing_is_behind_who_may() -> None:
    desk = Desk(2)
    one = User("one", max_running=1)
    holds = submit(desk, one), submit(desk, EVE)
    waits = submit(desk, one)
    others = [submit(desk, BOB) for _ in range(3)]
    report(desk)
    assert [waits.position, *(ticket.position for ticket in others)] == [4, 1, 2, 3]
    desk.remove(holds[1], tokens=ANSWER)
    assert running(waits, *others) == [False, True, False, False]
    desk.remove(holds[0], tokens=ANSWER)  # now it may
    report(desk)
    assert (running(waits) == [True]) or waits.position == 1


def test_a_lost_slot_is_had_again_first() -> None:
    desk = Desk(1)
    lost = submit(desk, ANN)
    waits = submit(desk, BOB, priority=Priority.HIGH)
    desk.slots.size = 0
    desk.scheduler.requeue(lost, lost.slot_request)
    report(desk)
    assert [lost.position, waits.position] == [1, 2]


def test_of_all_models_the_better_classes_are_listed_first() -> None:
    desk = Desk(1)
    submit(desk, EVE)
    low = Priority.LOW
    tickets = [
        submit(desk, ANN, model="y", priority=low),
        submit(desk, ANN, model="x", priority=Priority.HIGH),
        submit(desk, BOB, model="x", priority=low),
        submit(desk, BOB, model="y", priority=low),
    ]
    listed = [tickets.index(ticket) for ticket in desk.scheduler.waiting()]
    assert listed == [1, 0, 2, 3]


@pytest.mark.parametrize("leave", [False, True])
def test_nothing_is_kept_of_who_waits_no_more(leave: bool) -> None:
    desk = Desk(1)
    holds = submit(desk, EVE)
    tickets = [submit(desk, ANN, model=model) for model in "xyx"]
    order = desk.scheduler._reporter.order
    assert repr(order) == "<WaitOrder of 3 tickets for 2 models>"
    act: Callable[[Ticket], None] = desk.remove
    if leave:
        for ticket in tickets:
            act(ticket)
    else:
        desk.slots.resize(4)
    assert repr(order) == "<WaitOrder of 0 tickets for 0 models>"
    assert tickets[0] not in order
    desk.remove(holds)

"""Thousands of requests of many users in virtual time: fair, nobody starves, no slot is idle.

That no slot is idle for which somebody waits is checked by the simulation after every event.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from llcuda_net.config.users import Priority, User
from tools.queueing.scenario import OFF, come_and_go, flood, length, measured
from tools.queueing.simulation import Fifo, Simulation, Upstream, Work, shares

HIGH, NORMAL, LOW = Priority


@pytest.mark.parametrize(
    ("seed", "seconds"),
    [
        (1, 900.0),
        pytest.param(1, 2700.0, marks=pytest.mark.slow),
        pytest.param(2, 2700.0, marks=pytest.mark.slow),
    ],
)
def test_users_get_what_is_due_to_them(seed: int, seconds: float) -> None:
    simulation, got = measured(None, seed, seconds)
    assert simulation.finished > 3000
    # The share of the least is several of the largest requests, or this would show nothing.
    assert min(got.due.values()) > 3 * simulation.largest["a"]
    assert got.worst(simulation.largest["a"]) <= OFF


def test_first_come_first_served_would_not_do() -> None:
    simulation, got = measured(Fifo, 1, 900.0)
    assert simulation.finished > 1500
    assert got.worst(10 * simulation.largest["a"]) > OFF
    assert got.worst(simulation.largest["a"]) > 1.0


def test_classes_below_get_what_is_left_and_share_it() -> None:
    waits: list[float] = []

    def began(work: Work) -> None:
        if work.slot_request.priority == HIGH:
            waits.append(simulation.clock.now - work.came)

    simulation = Simulation([Upstream("a", 8)], on_begin=began)
    users = [User(f"u{i}", weight=float(1 + i % 3)) for i in range(12)]
    for user in users:
        flood(simulation, user, 150, 15, model="a")
    chance = random.Random(5)

    def high() -> None:  # about half of all there is
        simulation.submit(
            User(f"h{chance.randrange(5)}"), length(chance, 120), model="a", priority=HIGH
        )
        simulation.after(chance.expovariate(1.0), high)

    high()
    simulation.run(200.0)
    before = simulation.so_far()
    simulation.run(2200.0)
    after = simulation.so_far()
    got = shares(before, after, users, "a", NORMAL)
    assert got.worst(simulation.largest["a"]) <= OFF
    best = sum(tokens for (_, _, priority), tokens in after.items() if priority == HIGH)
    assert 0.3 < best / sum(after.values()) < 0.7
    assert sum(waits) / len(waits) < 2.0


def singles(simulation: Simulation, every: float, **slot_request: Any) -> list[Work]:
    """A request of somebody new every so many seconds."""
    chance = random.Random(7)
    works: list[Work] = []

    def one() -> None:
        user = User(f"single{len(works)}")
        works.append(simulation.submit(user, length(chance, 150), **slot_request))
        simulation.after(chance.expovariate(1 / every), one)

    simulation.after(every, one)
    return works


@pytest.mark.parametrize("floods", [1, 3])
def test_a_flood_delays_others_by_one_turn(floods: int) -> None:
    order: list[Work] = []
    simulation = Simulation([Upstream("a", 3), Upstream("a", 2, 25.0)], on_begin=order.append)
    for i in range(floods):
        flood(simulation, User(f"flood{i}"), 300, 1000, model="a")
    works = singles(simulation, 20.0, model="a")
    simulation.run(2000.0)
    served = [work for work in works if work.first_began is not None]
    assert len(served) > 75
    for work in served:
        since = order[: order.index(work)]
        since = [other for other in since if (other.first_began or 0.0) > work.came]
        turns = Counter(other.user.name for other in since)
        # The next slot that becomes free is hers, but for one whose turn it was already.
        assert sum(turns[f"flood{i}"] for i in range(floods)) <= (floods > 1)


def test_nobody_starves_below_a_load_that_never_ends() -> None:
    simulation = Simulation([Upstream("a", 4)])
    for i in range(4):
        flood(simulation, User(f"high{i}"), 200, 20, model="a", priority=HIGH)
    flood(simulation, User("flood"), 200, 500, model="a", priority=LOW)
    works = singles(simulation, 50.0, model="a", priority=LOW)
    simulation.run(3000.0)
    served = [work for work in works if work.came < 2800.0]
    assert len(served) > 40
    # Twice the ageing, and then a turn of each of those who are there.
    for work in served:
        assert work.first_began is not None
        assert work.first_began - work.came < 2 * 30.0 + 60.0
    tokens = simulation.so_far()
    low = tokens["flood", "a", LOW]
    assert 0 < low < 0.1 * sum(tokens.values())  # all its thousand are no better than one


def test_requests_for_some_upstreams_only_leave_no_slot_idle() -> None:
    both, large = frozenset({"small", "big"}), frozenset({"big"})
    simulation = Simulation(
        [Upstream("a", 3, keys=both), Upstream("a", 2, keys=large), Upstream("a", 3, keys=both)]
    )
    users = [User(f"u{i}", max_running=(None, 1, 3)[i % 3]) for i in range(9)]
    for i, user in enumerate(users):
        for key in ("small", "big") if i % 2 else ("small",):
            flood(simulation, user, 100, 8, model="a", key=key)
    come_and_go(simulation, random.Random(3))
    simulation.run(1000.0)
    assert simulation.finished > 500

"""Virtual token counters: who has had least is next, and to be away is no credit and no debt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.config.users import User
from llcuda_net.scheduler.fair_share import CREDIT, FlowCounter, VirtualClock
from llcuda_net.scheduler.flows import PriorityClass
from llcuda_net.scheduler.quota import Mean, UserQuota


def run(clock: VirtualClock, usage: FlowCounter, tokens: float) -> None:
    clock.begin(usage, tokens, lambda: tokens, tokens)
    clock.settle(usage, tokens, tokens)


def test_tokens_count_by_weight() -> None:
    clock, light, heavy = VirtualClock(), FlowCounter(1.0), FlowCounter(4.0)
    run(clock, light, 100)
    run(clock, heavy, 100)
    assert (light.counter(), heavy.counter()) == (100.0, 25.0)


def test_what_runs_counts_as_it_stands_but_at_least_as_expected() -> None:
    clock, usage = VirtualClock(), FlowCounter(2.0)
    used = 10.0
    clock.begin(usage, "work", lambda: used, 100.0)
    assert (usage.served(), usage.counter()) == (5.0, 50.0)
    used = 300.0
    assert (usage.served(), usage.counter()) == (150.0, 150.0)
    clock.settle(usage, "work", 20.0)
    assert (usage.served(), usage.counter(), usage.running) == (10.0, 10.0, 0)


def test_whoever_begins_to_compete_is_lifted_to_the_least_of_those_who_do() -> None:
    clock, one, two, new, capped = (
        VirtualClock(),
        FlowCounter(1.0),
        FlowCounter(1.0),
        FlowCounter(1.0),
        FlowCounter(1.0),
    )
    clock.compete([(one, True), (two, True), (capped, False)])
    run(clock, one, 500)
    run(clock, two, 300)
    clock.compete([(one, True), (two, True), (new, True), (capped, False)])
    assert [usage.counter() for usage in (one, two, new, capped)] == [500, 300, 300, 0]
    assert clock.now == 300
    run(clock, two, 400)
    run(clock, new, 150)
    clock.compete([(one, True), (two, True), (new, False), (capped, True)])
    assert capped.counter() == 500
    clock.compete([(one, True), (two, True), (new, True), (capped, True)])
    assert new.counter() == 500  # 450, and 50 while it could not compete
    run(clock, one, 1000)
    clock.compete([(one, False), (two, True), (new, True), (capped, True)])
    clock.compete([(one, True), (two, True), (new, True), (capped, True)])
    assert one.counter() == 1500  # what it had it has had


def test_without_others_who_compete_those_who_run_tell_the_time() -> None:
    clock, one, new = VirtualClock(), FlowCounter(1.0), FlowCounter(1.0)
    clock.begin(one, "work", lambda: 700.0, 9000.0)
    clock.compete([(new, True)])
    assert new.counter() == 700  # not what is only expected of one
    clock.settle(one, "work", 800.0)
    clock.compete([(new, False)])
    late = FlowCounter(1.0)
    clock.compete([(late, True)])
    assert late.counter() == 700  # nobody is there: as it was


def test_credit_for_having_had_no_place_is_bounded() -> None:
    clock, placed, waiting = VirtualClock(), FlowCounter(1.0), FlowCounter(2.0)
    clock.compete([(placed, True), (waiting, True)])
    run(clock, placed, 1000)
    clock.begin(placed, "a", lambda: 0.0, 0.0, passed=[waiting])
    assert waiting.counter() == 0
    clock.settle(placed, "a", CREDIT)
    clock.begin(placed, "b", lambda: 0.0, 0.0, passed=[waiting])
    assert waiting.counter() == 1000


@given(
    before=st.floats(0.0, 1e6),
    lift=st.floats(0.0, 1e6),
    running=st.lists(st.floats(0.0, 1e3), max_size=3),
)
def test_those_who_are_lifted_are_even(before: float, lift: float, running: list[float]) -> None:
    row = PriorityClass()
    flow = row.flow(UserQuota(User(weight=3.0), Mean()))
    for number, used in enumerate(running):
        flow.usage.begin(number, lambda used=used: used, 0.0)  # type: ignore[misc]
    flow.usage.lift(before)
    row.clock.now = flow.usage.served() + lift
    flow.usage.lift(row.clock.now)
    assert flow.lead() == 0.0


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=6),
    sizes=st.lists(st.integers(1, 1000), min_size=50, max_size=300),
)
def test_counters_of_those_who_always_compete_stay_together(
    weights: list[float], sizes: list[int]
) -> None:
    clock = VirtualClock()
    shares = [FlowCounter(weight) for weight in weights]
    for size in sizes:
        clock.compete([(usage, True) for usage in shares])
        run(clock, min(shares, key=FlowCounter.counter), size)
        counters = [usage.counter() for usage in shares]
        assert max(counters) - min(counters) <= max(sizes) / min(weights) + 1e-6
    assert sum(s.counter() * s.weight for s in shares) == pytest.approx(sum(sizes))

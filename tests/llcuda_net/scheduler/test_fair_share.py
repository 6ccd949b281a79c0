"""Virtual token counters: who has had least is next, and to be away is no credit and no debt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.config.users import User
from llcuda_net.scheduler.fair_share import CREDIT, FlowCounter, VirtualClock
from llcuda_net.scheduler.flows import PriorityClass
from llcuda_net.scheduler.quota import MovingMean, UserQuota


def run(clock: VirtualClock, counter: FlowCounter, tokens: float) -> None:
    clock.start(counter, tokens, lambda: tokens, tokens)
    clock.finish(counter, tokens, tokens)


def test_tokens_count_by_weight() -> None:
    clock, light, heavy = VirtualClock(), FlowCounter(1.0), FlowCounter(4.0)
    run(clock, light, 100)
    run(clock, heavy, 100)
    assert (light.projected(), heavy.projected()) == (100.0, 25.0)


def test_what_runs_counts_as_it_stands_but_at_least_as_expected() -> None:
    clock, counter = VirtualClock(), FlowCounter(2.0)
    used = 10.0
    clock.start(counter, "work", lambda: used, 100.0)
    assert (counter.served(), counter.projected()) == (5.0, 50.0)
    used = 300.0
    assert (counter.served(), counter.projected()) == (150.0, 150.0)
    clock.finish(counter, "work", 20.0)
    assert (counter.served(), counter.projected(), counter.running) == (10.0, 10.0, 0)


def test_whoever_begins_to_compete_is_lifted_to_the_least_of_those_who_do() -> None:
    clock, one, two, new, capped = (
        VirtualClock(),
        FlowCounter(1.0),
        FlowCounter(1.0),
        FlowCounter(1.0),
        FlowCounter(1.0),
    )
    clock.update([(one, True), (two, True), (capped, False)])
    run(clock, one, 500)
    run(clock, two, 300)
    clock.update([(one, True), (two, True), (new, True), (capped, False)])
    assert [counter.projected() for counter in (one, two, new, capped)] == [500, 300, 300, 0]
    assert clock.now == 300
    run(clock, two, 400)
    run(clock, new, 150)
    clock.update([(one, True), (two, True), (new, False), (capped, True)])
    assert capped.projected() == 500
    clock.update([(one, True), (two, True), (new, True), (capped, True)])
    assert new.projected() == 500  # 450, and 50 while it could not compete
    run(clock, one, 1000)
    clock.update([(one, False), (two, True), (new, True), (capped, True)])
    clock.update([(one, True), (two, True), (new, True), (capped, True)])
    assert one.projected() == 1500  # what it had it has had


def test_without_others_who_compete_those_who_run_tell_the_time() -> None:
    clock, one, new = VirtualClock(), FlowCounter(1.0), FlowCounter(1.0)
    clock.start(one, "work", lambda: 700.0, 9000.0)
    clock.update([(new, True)])
    assert new.projected() == 700  # not what is only expected of one
    clock.finish(one, "work", 800.0)
    clock.update([(new, False)])
    late = FlowCounter(1.0)
    clock.update([(late, True)])
    assert late.projected() == 700  # nobody is there: as it was


def test_credit_for_having_had_no_place_is_bounded() -> None:
    clock, placed, waiting = VirtualClock(), FlowCounter(1.0), FlowCounter(2.0)
    clock.update([(placed, True), (waiting, True)])
    run(clock, placed, 1000)
    clock.start(placed, "a", lambda: 0.0, 0.0, passed_over=[waiting])
    assert waiting.projected() == 0
    clock.finish(placed, "a", CREDIT)
    clock.start(placed, "b", lambda: 0.0, 0.0, passed_over=[waiting])
    assert waiting.projected() == 1000


@given(
    before=st.floats(0.0, 1e6),
    lift=st.floats(0.0, 1e6),
    running=st.lists(st.floats(0.0, 1e3), max_size=3),
)
def test_those_who_are_lifted_are_even(before: float, lift: float, running: list[float]) -> None:
    priority_class = PriorityClass()
    flow = priority_class.flow(UserQuota(User(weight=3.0), MovingMean()))
    for number, used in enumerate(running):
        flow.counter.start(number, lambda used=used: used, 0.0)  # type: ignore[misc]
    flow.counter.raise_to(before)
    priority_class.clock.now = flow.counter.served() + lift
    flow.counter.raise_to(priority_class.clock.now)
    assert flow.lead() == 0.0


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=6),
    sizes=st.lists(st.integers(1, 1000), min_size=50, max_size=300),
)
def test_counters_of_those_who_always_compete_stay_together(
    weights: list[float], sizes: list[int]
) -> None:
    clock = VirtualClock()
    counters = [FlowCounter(weight) for weight in weights]
    for size in sizes:
        clock.update([(counter, True) for counter in counters])
        run(clock, min(counters, key=FlowCounter.projected), size)
        found = [counter.projected() for counter in counters]
        assert max(found) - min(found) <= max(sizes) / min(weights) + 1e-6
    assert sum(c.projected() * c.weight for c in counters) == pytest.approx(sum(sizes))


def test_who_starts_at_once_is_raised_as_one_who_waited() -> None:
    clocks = VirtualClock(), VirtualClock()
    news = FlowCounter(1.0), FlowCounter(1.0)
    for clock, new in zip(clocks, news, strict=True):
        others = [FlowCounter(1.0), FlowCounter(2.0)]
        clock.start(others[0], "work", lambda: 100.0, 0.0)
        clock.start(others[1], "work", lambda: 300.0, 0.0)
        if new is news[0]:
            clock.update([(new, True)])
        else:
            clock.enter(new)
        assert new.served() == 100.0
    alone = FlowCounter(1.0)
    clock = VirtualClock()
    clock.start(alone, "work", lambda: 100.0, 0.0)
    clock.enter(alone)
    assert alone.served() == 100.0

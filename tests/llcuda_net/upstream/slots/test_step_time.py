"""Whether a cache is unified is learnt from the steps, whatever the noise."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.upstream.slots.choice import SPLIT_MS, spread
from llcuda_net.upstream.slots.step_time import UNIFIED, KvCache, Sample, StepTime

#: Milliseconds of a step of one slot, of each further one, and of the worst split: measured on an
#: H200, and on two CPU cores.
H200, CPU = (2.8, 0.02, 17.0), (15.0, 2.0, 14.0)


def step_ms(shape: tuple[float, float, float], active: int, runs: int) -> float:
    whole, each, split = shape
    return whole + each * (active - 1) + split * spread(runs)


def feed(
    steps: StepTime,
    shape: tuple[float, float, float],
    seed: int,
    count: int,
    noise: float = 0.1,
    stalls: float = 0.0,
) -> None:
    """Measurements of requests that come and go, a third of them with gaps between the slots."""
    chance = random.Random(seed)
    for _ in range(count):
        active = chance.randint(1, 16)
        runs = chance.randint(1, min(4, active)) if chance.random() < 0.3 else 1
        found = step_ms(shape, active, runs) * chance.lognormvariate(0.0, noise)
        if chance.random() < stalls:
            found *= chance.choice((3.0, 10.0))
        steps.record(Sample(found, active, runs, chance.randint(8, 64)))


def test_before_anything_is_known_neighbours_are_preferred() -> None:
    steps = StepTime()
    assert not steps.unified
    assert steps.split_ms == SPLIT_MS
    assert steps.cache is KvCache.UNKNOWN


def test_what_is_told_need_not_be_learnt() -> None:
    steps = StepTime(unified=True)
    feed(steps, H200, seed=1, count=50)
    assert steps.unified
    assert steps.split_ms == 0.0
    assert steps.cache is KvCache.UNIFIED


@pytest.mark.parametrize("shape", [H200, CPU])
@pytest.mark.parametrize("seed", range(5))
def test_what_a_split_costs_is_learnt(shape: tuple[float, float, float], seed: int) -> None:
    steps = StepTime()
    feed(steps, shape, seed, 100, stalls=0.05)
    assert not steps.unified
    assert steps.split_ms == pytest.approx(shape[2], rel=0.35)
    assert steps.cache is KvCache.SEPARATE


@pytest.mark.parametrize("whole", [2.8, 15.0])
@pytest.mark.parametrize("seed", range(5))
def test_that_it_costs_nothing_is_learnt(whole: float, seed: int) -> None:
    steps = StepTime()
    feed(steps, (whole, whole / 20, 0.0), seed, 300, noise=0.05, stalls=0.02)
    assert steps.unified
    assert steps.split_ms == 0.0
    assert steps.cache is KvCache.UNIFIED


def test_a_few_splits_are_enough_where_they_cost_much() -> None:
    steps = StepTime()
    steps.record(Sample(2.9, 8, 1, 32))
    for _ in range(3):
        steps.record(Sample(12.9, 8, 2, 32))
    assert steps.split_ms > 10.0


def test_until_there_was_a_split_it_costs_little() -> None:
    """So that what a slot holds is used at first, and the truth is seen."""
    steps = StepTime()
    for active in range(1, 30):
        steps.record(Sample(step_ms(H200, active, 1), active, 1, 32))
    assert not steps.unified
    assert steps.split_ms < 1.0
    assert steps.cache is KvCache.UNKNOWN


@given(
    shape=st.tuples(st.floats(0.5, 200), st.floats(0, 1), st.floats(1, 10)),
    seed=st.integers(0, 1 << 16),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_split_that_matters_is_never_taken_for_none(
    shape: tuple[float, float, float], seed: int
) -> None:
    whole, each, split = shape
    steps, truth = StepTime(), (whole, whole * each / 10, whole * split)
    for part in range(10):
        feed(steps, truth, seed + part, 10, stalls=0.05)
        assert not steps.unified


@given(st.lists(st.tuples(st.floats(), st.integers(-1, 40), st.integers(0, 40), st.integers(0, 9))))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_whatever_is_measured_it_stays_finite(samples: list[tuple[float, int, int, int]]) -> None:
    steps = StepTime()
    for one in samples:
        steps.record(Sample(*one))
        assert 0.0 <= steps.split_ms < math.inf
    assert "StepTime" in repr(steps)


@pytest.mark.parametrize("seed", range(6))
def test_thousands_of_steps_with_stalls_leave_it_sane(seed: int) -> None:
    """What is hardly ever seen must not grow until rounding makes a variance negative."""
    steps, chance = StepTime(), random.Random(seed)
    for _ in range(3000):
        active = 1 if chance.random() < 0.97 else chance.randint(2, 4)
        stall = chance.expovariate(0.05) if chance.random() < 0.3 else 0.0
        runs = min(active, chance.randint(1, 2))
        steps.record(Sample(0.26 * (1 + stall), active, runs, chance.choice([1, 5, 90])))
        assert 0.0 <= steps.split_ms < 100
        assert 0.0 < steps.whole_ms < 100
    feed(steps, H200, seed=seed, count=200)
    assert steps.cache is KvCache.SEPARATE


def test_another_process_is_learnt_anew() -> None:
    steps = StepTime()
    feed(steps, H200, seed=1, count=100)
    assert steps.split_ms > 5.0
    steps.forget()
    assert steps.split_ms == SPLIT_MS
    feed(steps, (2.8, 0.1, 0.0), seed=2, count=300, noise=0.05)
    assert steps.unified


def test_one_that_became_another_unseen_is_learnt_as_well() -> None:
    """As after a restart that no health check and no request has met."""
    steps = StepTime()
    feed(steps, (2.8, 0.1, 0.0), seed=1, count=300, noise=0.05)
    assert steps.unified
    feed(steps, H200, seed=2, count=60)
    assert not steps.unified
    assert steps.split_ms > UNIFIED * 2.8

"""Statistics against tables, and against data of which the truth is known."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit

from llcuda_net.bench.statistics.estimates import (
    Estimate,
    bootstrap_mean,
    bootstrap_quantiles,
    student,
    t_bound,
    welch,
)


def test_students_bounds_are_those_of_the_tables() -> None:
    for freedom, value in ((1, 12.706), (2, 4.303), (9, 2.262), (1000, 1.962)):
        assert t_bound(freedom) == pytest.approx(value, abs=6e-4)


def test_students_interval_of_a_textbook_sample() -> None:
    found = student([4.0, 5.0, 6.0])
    assert found is not None
    half = 4.302653 * 1 / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((5.0, 5 - half, 5 + half))
    assert student([3.0]) == Estimate(3.0)
    assert student([]) is None


def _covered(estimates: list[Estimate], truth: float) -> float:
    hits = 0
    for estimate in estimates:
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= truth <= estimate.high
    return hits / len(estimates)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """At 95 %, of 200 samples: 0.95 +- 0.03 is two standard errors."""
    means, medians, nineties, students = [], [], [], []
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(1.0, 200)
        mean = bootstrap_mean(values, seed=seed, resamples=200)
        half, tenth = bootstrap_quantiles(
            [[value] for value in values], [0.5, 0.9], seed=seed, resamples=200
        )
        whole = student(np.random.default_rng(seed).normal(3.0, 1.0, 5))
        assert mean is not None
        assert half is not None
        assert tenth is not None
        assert whole is not None
        means.append(mean)
        medians.append(half)
        nineties.append(tenth)
        students.append(whole)
    assert 0.89 <= _covered(means, 1.0) <= 0.985
    assert 0.89 <= _covered(medians, math.log(2)) <= 0.985
    assert 0.89 <= _covered(nineties, math.log(10)) <= 0.985
    assert 0.91 <= _covered(students, 3.0) <= 0.985


def test_blocks_widen_the_interval_of_values_that_follow_each_other() -> None:
    """Neighbours alike, as in a queue: an interval that ignores it would be too narrow."""
    noise = np.random.default_rng(1).normal(size=2000)
    values = np.empty(2000)
    values[0] = noise[0]
    for i in range(1, 2000):
        values[i] = 0.8 * values[i - 1] + noise[i]
    together = bootstrap_mean(values)
    shuffled = bootstrap_mean(np.random.default_rng(2).permutation(values))
    assert together is not None
    assert shuffled is not None
    assert together.low is not None
    assert together.high is not None
    assert shuffled.low is not None
    assert shuffled.high is not None
    assert together.high - together.low > 1.8 * (shuffled.high - shuffled.low)


def test_gaps_of_one_answer_are_drawn_together() -> None:
    """A hundred equal gaps in each of 20 answers are 20 samples, not 2,000."""
    groups = [[float(i)] * 100 for i in range(20)]
    (found,) = bootstrap_quantiles(groups, [0.5])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low >= 4


def test_too_few_samples_have_no_interval() -> None:
    assert bootstrap_mean([1.0, 2.0]) == Estimate(1.5)
    assert bootstrap_quantiles([[1.0]] * 5, [0.5]) == [None]
    assert bootstrap_quantiles([], [0.5, 0.9]) == [None, None]
    assert bootstrap_quantiles([[float(i) for i in range(40)]], [0.5]) == [Estimate(19.0)]


def test_welch_by_hand() -> None:
    old, new = [10.0, 11.0, 12.0], [13.0, 15.0, 17.0]
    found = welch(old, new)
    assert found is not None
    va, vb = statistics.variance(old) / 3, statistics.variance(new) / 3
    freedom = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 2)
    assert found.estimate.value == pytest.approx(4.0)
    half = stdtrit(freedom, 0.975) * math.sqrt(va + vb)
    assert found.estimate.low == pytest.approx(4.0 - half)
    assert found.p == pytest.approx(2 * stdtr(freedom, -4.0 / math.sqrt(va + vb)))
    assert welch([1.0, 1.0], [2.0, 2.1, 2.2]) is not None
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None

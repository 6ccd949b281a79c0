"""Statistics against tables, and against data of which the truth is known."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llcuda_net.bench.beta import beta_share, t_quantile, t_share

from llcuda_net.bench.statistics.estimates import (
    Estimate,
    bootstrap_mean,
    bootstrap_quantiles,
    quantile,
    student,
    supported,
    welch,
)


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [  # of printed tables of Student's t
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 9, 2.262),
        (0.95, 4, 2.132),
        (0.995, 10, 3.169),
        (0.975, 1000, 1.962),
    ],
)
def test_t_is_that_of_the_tables(share: float, freedom: float, value: float) -> None:
    assert t_quantile(share, freedom) == pytest.approx(value, abs=6e-4)
    assert t_quantile(1 - share, freedom) == pytest.approx(-value, abs=6e-4)


def test_beta_where_it_is_known_in_closed_form() -> None:
    for x in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert beta_share(1, 1, x) == pytest.approx(x)
        assert beta_share(2, 1, x) == pytest.approx(x**2)
        assert beta_share(1, 3, x) == pytest.approx(1 - (1 - x) ** 3)
    with pytest.raises(ValueError, match="no incomplete beta"):
        beta_share(1, 1, 1.5)


@given(st.floats(-50, 50), st.integers(1, 200))
def test_the_quantile_inverts_the_share(t: float, freedom: int) -> None:
    share = t_share(t, freedom)
    if 1e-6 < share < 1 - 1e-6:
        assert t_quantile(share, freedom) == pytest.approx(t, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "share", "told"),
    [(19, 0.5, False), (20, 0.5, True), (999, 0.99, False), (1000, 0.99, True), (99, 0.9, False)],
)
def test_no_percentile_that_the_sample_cannot_support(count: int, share: float, told: bool) -> None:
    assert supported(count, share) is told
    assert (quantile(list(range(count)), share) is not None) is told


def test_a_quantile_is_a_value_of_the_sample() -> None:
    values = list(range(1, 1001))
    assert quantile(values, 0.5) == 500
    assert quantile(values, 0.99) == 990
    assert quantile(values, 0.9) == 900


@given(st.lists(st.floats(0, 1e6), min_size=100, max_size=300), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_quantile_has_its_share_at_or_below_it(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found is not None
    below = sum(value <= found for value in values)
    strictly = sum(value < found for value in values)
    assert below >= share * len(values) - 1e-9
    assert strictly < share * len(values)


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
    """At 95 %, of 300 samples: 0.95 +- 0.025 is two standard errors."""
    means, medians, nineties, students = [], [], [], []
    for seed in range(300):
        values = np.random.default_rng(seed).exponential(1.0, 300)
        mean = bootstrap_mean(values, seed=seed, resamples=300)
        half, tenth = bootstrap_quantiles(
            [[value] for value in values], [0.5, 0.9], seed=seed, resamples=300
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
    assert 0.90 <= _covered(means, 1.0) <= 0.985
    assert 0.90 <= _covered(medians, math.log(2)) <= 0.985
    assert 0.90 <= _covered(nineties, math.log(10)) <= 0.985
    assert 0.92 <= _covered(students, 3.0) <= 0.98


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
    half = t_quantile(0.975, freedom) * math.sqrt(va + vb)
    assert found.estimate.low == pytest.approx(4.0 - half)
    assert found.p == pytest.approx(2 * t_share(-4.0 / math.sqrt(va + vb), freedom))
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None

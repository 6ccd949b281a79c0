"""Statistics against tables, and against data of which the truth is known."""

from __future__ import annotations

import math
import statistics

import pytest
from scipy.special import stdtr, stdtrit

from llcuda_net.bench.statistics.estimates import (
    Estimate,
    log_student,
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
    assert student([3.0]) == Estimate(3.0, why="one repeat")
    assert student([]) is None


def test_coxs_interval_of_lognormal_means() -> None:
    """By hand: logarithms 0, ln 2 and ln 4 have the mean ln 2 and the variance (ln 2)²."""
    found = log_student([1.0, 2.0, 4.0])
    assert found is not None
    variance = math.log(2) ** 2
    half = 4.302653 * math.sqrt(variance / 3 + variance**2 / 4)
    assert found.value == pytest.approx(7 / 3)
    assert found.low == pytest.approx(math.exp(math.log(2) + variance / 2 - half))
    assert found.high == pytest.approx(math.exp(math.log(2) + variance / 2 + half))


def test_of_values_that_differ_little_coxs_interval_is_students() -> None:
    values = [10.0, 10.1, 10.2, 9.9, 9.8]
    one, other = student(values), log_student(values)
    assert one is not None
    assert other is not None
    assert other.low == pytest.approx(one.low, rel=1e-3)
    assert other.high == pytest.approx(one.high, rel=1e-3)
    assert log_student([0.0, 1.0, 2.0]) == student([0.0, 1.0, 2.0])
    assert log_student([2.0]) == Estimate(2.0, why="one repeat")
    assert log_student([]) is None


def test_an_estimate_and_its_json_are_the_same() -> None:
    for estimate in (Estimate(1.0, 0.5, 2.0), Estimate(3.0, why="one repeat")):
        assert Estimate.from_dict(estimate.as_dict()) == estimate
    assert Estimate(1.0, 0.5, 2.0).as_dict() == {"value": 1.0, "low": 0.5, "high": 2.0}
    assert Estimate(1.0, 0.5, 2.0).times(1e3) == Estimate(1e3, 500.0, 2e3)


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

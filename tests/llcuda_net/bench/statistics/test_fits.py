"""Fits to points of which the law is known, with and without a peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from llcuda_net.bench.statistics.fits import Fit, fit
from llcuda_net.bench.statistics.laws import LAWS, amdahl, gustafson

SIZES = [1.0, 2.0, 4.0, 8.0, 16.0]
TRUTHS = [
    ("Amdahl", [100.0, 0.05]),
    ("Gustafson", [100.0, 0.1]),
    ("universal", [100.0, 0.03, 0.002]),
]
#: Curves without a peak, with the most of 100 fits that may say that there is one.
WITHOUT: list[tuple[str, Callable[[Any], Any]]] = [
    ("linear", lambda n: 100.0 * n),
    ("a serial share of 5 %", lambda n: amdahl(n, np.asarray([100.0, 0.05]))),
    ("a serial share of 30 %", lambda n: amdahl(n, np.asarray([100.0, 0.3]))),
    ("level", lambda n: 100.0 + 0 * n),
    ("Gustafson", lambda n: gustafson(n, np.asarray([100.0, 0.3]))),
    ("a limit at 8", lambda n: 100.0 * np.minimum(n, 8.0)),
]


def fits(
    law: str, curve: Callable[[Any], Any], *, count: int, repeats: int = 3, noise: float = 0.03
) -> Iterator[Fit]:
    """Fits to a curve's points with so much noise, each by a seed of its own."""
    n = np.repeat(SIZES, repeats)
    for seed in range(count):
        relative = np.random.default_rng(seed).normal(0, noise, len(n))
        found = fit(law, list(n), list(curve(n) * (1 + relative)))
        assert found is not None
        yield found


@pytest.mark.parametrize(("law", "truth"), TRUTHS)
def test_exact_data_give_the_law_back(law: str, truth: list[float]) -> None:
    curve = LAWS[law][0](np.asarray(SIZES), np.asarray(truth))
    found = fit(law, SIZES, list(curve))
    assert found is not None
    assert [e.value for e in found.parameters.values()] == pytest.approx(truth, rel=1e-4)
    assert found.at(SIZES) == pytest.approx(list(curve), rel=1e-6)
    assert found.residual < 1e-6
    assert Fit.from_dict(found.as_dict()) == found
    if law == "universal":
        assert found.peak is not None
        assert found.peak.value == pytest.approx(np.sqrt(0.97 / 0.002), rel=1e-3)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(("law", "truth"), TRUTHS)
def test_intervals_hold_the_truth_as_often_as_they_say(
    law: str, truth: list[float], repeats: int
) -> None:
    """At 95 %, 200 fits to points that vary by 3 %: 0.95 +- 0.03 is two standard errors."""
    hits, peaks, known = np.zeros(len(truth)), 0, 0
    for found in fits(
        law, lambda n: LAWS[law][0](n, np.asarray(truth)), count=200, repeats=repeats
    ):
        if not found.holds:
            continue  # one in a hundred, by its own bound
        known += 1
        for i, (estimate, value) in enumerate(zip(found.parameters.values(), truth, strict=True)):
            assert estimate.low is not None
            hits[i] += estimate.low <= value <= (estimate.high or np.inf)
        if found.peak is not None:
            assert found.peak.low is not None
            assert found.peak.high is not None
            peaks += found.peak.low <= np.sqrt(0.97 / 0.002) <= found.peak.high
    assert known >= 190
    assert (hits / known >= 0.91).all(), hits / known
    assert (hits / known <= 0.99).all(), hits / known
    if law == "universal" and repeats > 1:
        assert peaks / known >= 0.8  # told, and rightly


def test_a_share_of_nothing_has_an_interval_from_0() -> None:
    """On the bound a profile is one-sided, and holds 0 more often than 95 %."""
    hits = 0
    for found in fits("Amdahl", lambda n: 100.0 * n, count=200):
        share = found.parameters["serial share"]
        assert 0 <= share.value <= 1
        hits += not share.low
    assert 0.95 <= hits / 200 <= 1


@pytest.mark.parametrize(("name", "curve"), WITHOUT)
@pytest.mark.parametrize("repeats", [1, 3])
def test_no_peak_is_said_where_there_is_none(
    name: str, curve: Callable[[Any], Any], repeats: int
) -> None:
    """At most in 5 of 100 fits: it was in 39 to 50 of them."""
    said = 0
    for found in fits("universal", curve, count=100, repeats=repeats):
        assert 0 <= found.parameters["sigma"].value <= 1
        assert found.parameters["kappa"].value >= 0
        assert (found.peak is None) == bool(found.peak_why)
        said += found.peak is not None
    assert said <= 5, name


def test_a_law_that_does_not_hold_has_no_intervals() -> None:
    """Sizes that are measured again and again at one limit are no law's."""
    (found,) = fits("universal", lambda n: 100.0 * np.minimum(n, 4.0), count=1, noise=0.005)
    assert not found.holds
    assert found.lack is not None
    assert found.lack < 0.01
    assert all(e.low is None and e.high is None for e in found.parameters.values())
    assert found.peak_why == "the law does not hold for these points"


def test_throughput_that_only_falls_has_no_peak_and_no_share_over_1() -> None:
    for law in LAWS:
        found = fit(law, SIZES, [100.0, 90.0, 80.0, 70.0, 60.0])
        assert found is not None
        for name, estimate in found.parameters.items():
            assert name == "rate" or 0 <= estimate.value <= 1
    assert found is not None
    assert found.peak is None


def test_no_law_is_fitted_to_fewer_than_four_sizes() -> None:
    assert fit("Amdahl", [1, 2, 4], [1, 2, 4]) is None
    assert fit("Amdahl", [1, 1, 2, 2, 4, 4], [1, 1, 2, 2, 4, 4]) is None
    assert fit("Amdahl", [1, 2, 3, 4], [1, 2, 3, 0.0]) is None
    assert fit("Amdahl", [1, 2, 3, 4], [1, 1.9, 2.9, 3.7]) is not None

"""Fits and knees on data of which the law is known."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_net.bench.statistics.estimates import Estimate
from llcuda_net.bench.statistics.knee import Knee, knee, saturated
from llcuda_net.bench.statistics.laws import LAWS, fit, karp_flatt, speedup

SIZES = [1.0, 2.0, 4.0, 8.0, 16.0]
TRUTHS = [
    ("Amdahl", [100.0, 0.05]),
    ("Gustafson", [100.0, 0.1]),
    ("universal", [100.0, 0.03, 0.002]),
]


@pytest.mark.parametrize(("law", "truth"), TRUTHS)
def test_exact_data_give_the_law_back(law: str, truth: list[float]) -> None:
    curve = LAWS[law][0](np.asarray(SIZES), np.asarray(truth))
    found = fit(law, SIZES, list(curve))
    assert found is not None
    assert [e.value for e in found.parameters.values()] == pytest.approx(truth, rel=1e-4)
    assert found.at(SIZES) == pytest.approx(list(curve), rel=1e-6)
    assert found.residual < 1e-6
    if law == "universal":
        assert found.peak == pytest.approx(np.sqrt(0.97 / 0.002), rel=1e-3)


@pytest.mark.parametrize(("law", "truth"), TRUTHS)
def test_intervals_hold_the_truth_as_often_as_they_say(law: str, truth: list[float]) -> None:
    """At 95 %, 200 fits to points that vary by 3 %: 0.95 +- 0.03 is two standard errors."""
    n = np.repeat(SIZES, 3)
    hits = np.zeros(len(truth))
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(0, 0.03, len(n))
        found = fit(law, list(n), list(LAWS[law][0](n, np.asarray(truth)) * (1 + noise)))
        assert found is not None
        for i, (estimate, value) in enumerate(zip(found.parameters.values(), truth, strict=True)):
            assert estimate.low is not None
            assert estimate.high is not None
            hits[i] += estimate.low <= value <= estimate.high
    assert (hits / 200 >= 0.89).all()
    assert (hits / 200 <= 0.995).all()


def test_no_law_is_fitted_to_fewer_than_four_sizes() -> None:
    assert fit("Amdahl", [1, 2, 4], [1, 2, 4]) is None
    assert fit("Amdahl", [1, 1, 2, 2, 4, 4], [1, 1, 2, 2, 4, 4]) is None
    assert fit("Amdahl", [1, 2, 3, 4], [1, 2, 3, 0.0]) is None
    assert fit("Amdahl", [1, 2, 3, 4], [1, 1.9, 2.9, 3.7]) is not None


def test_karp_flatt_gives_amdahls_share_back() -> None:
    for n in (2, 4, 16):
        assert karp_flatt(1 / (0.1 + 0.9 / n), n) == pytest.approx(0.1)
        assert karp_flatt(n, n) == pytest.approx(0.0)
    assert karp_flatt(1.0, 1) is None
    assert karp_flatt(1 / (0.1 + 0.9 / 4), 8, base=2) == pytest.approx(0.1)


def test_a_speedups_interval_is_of_both_measurements() -> None:
    found = speedup(Estimate(100, 97, 103), Estimate(200, 192, 208))
    assert found.value == 2.0
    assert found.high == pytest.approx(2.0 * (1 + 0.05))  # 3 % and 4 % in squares
    assert speedup(Estimate(100), Estimate(200, 190, 210)) == Estimate(2.0)


def estimates(values: list[float], half: float = 1.0) -> list[Estimate]:
    return [Estimate(v, v - half, v + half) for v in values]


@pytest.mark.parametrize(
    ("throughputs", "load"),
    [
        ([100, 200, 400, 400, 400], 4),  # a corner at 4
        ([100, 190, 330, 400, 410], 4),  # a bend
        ([100, 200, 400, 300, 200], 4),  # falls after its top
        ([100, 90, 80, 70, 60], 1),  # only falls
    ],
)
def test_the_knee_is_where_it_bends(throughputs: list[float], load: float) -> None:
    assert knee([1, 2, 4, 8, 16], estimates(throughputs)).load == load


@pytest.mark.parametrize(
    ("throughputs", "half", "why"),
    [
        ([100, 200, 400, 800, 1600], 1.0, "still rises"),
        ([100, 110, 105, 112, 108], 20.0, "cannot be told apart"),
    ],
)
def test_no_knee_is_made_up(throughputs: list[float], half: float, why: str) -> None:
    found = knee([1, 2, 4, 8, 16], estimates(throughputs, half))
    assert found.load is None
    assert why in found.why


def test_no_knee_of_three_points() -> None:
    assert knee([1, 2, 4], estimates([1, 2, 2])) == Knee(
        None, None, "under four points no knee is looked for"
    )


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (Estimate(0.99, 0.9, 1.1), "no"),
        (Estimate(0.7, 0.6, 0.8), "yes"),
        (Estimate(0.9, 0.7, 1.1), "cannot tell"),
        (Estimate(0.5), "yes"),
        (Estimate(0.9), "cannot tell"),
    ],
)
def test_saturation_is_what_is_offered_and_not_carried(share: Estimate, verdict: str) -> None:
    assert saturated(share) == verdict

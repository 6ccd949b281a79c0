"""Speedups, and knees on data of which the law is known."""

from __future__ import annotations

import pytest

from llcuda_net.bench.statistics.estimates import Estimate
from llcuda_net.bench.statistics.knee import Knee, knee
from llcuda_net.bench.statistics.laws import karp_flatt, speedup


def test_karp_flatt_gives_amdahls_share_back() -> None:
    for n in (2, 4, 16):
        assert karp_flatt(1 / (0.1 + 0.9 / n), n) == pytest.approx(0.1)
        assert karp_flatt(n, n) == pytest.approx(0.0)
    assert karp_flatt(1.0, 1) is None
    assert karp_flatt(0.9, 4) is None  # slower than one: no share is over 1
    assert karp_flatt(1 / (0.1 + 0.9 / 4), 8, base=2) == pytest.approx(0.1)


def test_a_speedups_interval_is_of_both_measurements() -> None:
    found = speedup(Estimate(100, 97, 103), Estimate(200, 192, 208))
    assert found is not None
    assert found.value == 2.0
    assert found.high == pytest.approx(2.0 * (1 + 0.05))  # 3 % and 4 % in squares
    assert speedup(Estimate(100), Estimate(200, 190, 210)) == Estimate(2.0)
    assert speedup(Estimate(0.0), Estimate(200, 190, 210)) is None


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

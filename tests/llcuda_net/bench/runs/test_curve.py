"""Points put together to a curve, and objectives."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.report import scaling
from llcuda_net.bench.runs import curve
from llcuda_net.bench.statistics.objective import keeps


def point(n: int, rate: float, slots: int | None = 8) -> dict[str, Any]:
    ttft = Histogram([0.1 * n] * 30).encode()
    return {
        "ranks": n, "servers": 1, "slots": slots, "inflight": 4 * n, "problems": [], "cautions": [],
        "tokens_per_s": {"value": rate, "low": rate - 1, "high": rate + 1},
        "imbalance": 0.0, "metrics": {"ttft": {"histogram": ttft}},
        "each": [{"cpu_share": 0.9}], "mpi": {}, "library": "",
    }  # fmt: skip


def test_a_curve_has_speedups_fits_and_its_limit() -> None:
    whole: dict[str, Any] = {"problems": [], "cautions": []}
    points = [point(n, 100 / (0.1 + 0.9 / n), 32) for n in (1, 2, 4, 8) for _ in range(3)]
    curve.fill(whole, points, "ranks")
    assert [row["size"] for row in whole["rows"]] == [1, 2, 4, 8]
    assert whole["rows"][1]["speedup"]["value"] == pytest.approx(1 / (0.1 + 0.45))
    assert whole["rows"][3]["efficiency"] == pytest.approx(1 / (0.1 + 0.9 / 8) / 8)
    assert all(row["karp_flatt"] == pytest.approx(0.1) for row in whole["rows"][1:])
    amdahl = next(each for each in whole["fits"] if each["law"] == "Amdahl")
    assert amdahl["parameters"]["serial share"]["value"] == pytest.approx(0.1, rel=1e-3)
    assert whole["fits_why"] == ""
    p50 = whole["rows"][1]["metrics"]["ttft"]["p50"]
    assert p50["value"] == pytest.approx(200, rel=2e-3)
    assert p50["low"] == p50["high"] == p50["value"]  # three runs that do not differ


@pytest.mark.parametrize(
    ("slots", "fitted", "why"),
    [
        (1, [], "no law is fitted: more is asked than there are slots"),
        (8, [], "no law is fitted to 2 sizes, and 4 are needed"),
        (32, [1, 2, 4, 8], "laws are fitted up to 8 ranks"),
    ],
)
def test_no_law_is_fitted_where_slots_are_the_limit(
    slots: int, fitted: list[float], why: str
) -> None:
    whole: dict[str, Any] = {"problems": [], "cautions": []}
    points = [point(n, 100.0 * min(n, slots / 4) - n, slots) for n in (1, 2, 4, 8, 16)]
    curve.fill(whole, points, "ranks")
    assert all(each["sizes"] == fitted for each in whole["fits"])
    assert bool(whole["fits"]) == bool(fitted)
    assert why in whole["fits_why"]
    assert whole["rows"][-1]["karp_flatt"] is None
    assert any("on, more is asked than there are slots" in c for c in whole["cautions"])


def test_a_single_point_has_no_speedup() -> None:
    whole: dict[str, Any] = {"problems": [], "cautions": [], "settings": {"mode": "weak"}}
    curve.fill(whole, [point(2, 100.0)], "ranks")
    (row,) = whole["rows"]
    assert row["speedup"] is row["efficiency"] is row["karp_flatt"] is None
    heads, cells = scaling.table(whole)
    assert not {"speedup", "efficiency", "Karp-Flatt", "p99"} & set(heads)
    assert len(heads) == len(cells[0])


def test_no_answers_are_no_base_of_a_speedup() -> None:
    whole: dict[str, Any] = {"problems": [], "cautions": []}
    curve.fill(whole, [point(1, 0.0), point(2, 100.0)], "ranks")
    assert [row["speedup"] for row in whole["rows"]] == [None, None]


def test_a_server_that_does_not_say_its_slots_has_no_limit_of_them() -> None:
    whole: dict[str, Any] = {"problems": [], "cautions": []}
    curve.fill(whole, [point(n, 100.0 * n, None) for n in (1, 2)], "ranks")
    assert not whole["cautions"]


def test_an_objective_is_kept_or_not() -> None:
    record = Record(0, 1.0, sent=1.0, ended=2.0, outcome=Outcome.DONE, tokens=3)
    record.chunks.extend([1.4, 1.5, 1.6])
    assert keeps(record, {"ttft": 0.5, "tpot": 0.11, "latency": 1.1})
    assert not keeps(record, {"ttft": 0.3})
    assert not keeps(record, {"tpot": 0.05})
    record.outcome = Outcome.TIMEOUT
    assert not keeps(record, {"ttft": 9.0})

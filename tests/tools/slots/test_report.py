"""Ratios are paired by repeat, and claim no more than the repeats support."""

from __future__ import annotations

import math

import pytest

from tools.slots.report import Interval, interval, ratios, summary, table
from tools.slots.runs import Run


def run(way: str, repeat: int, rate: float, kind: str = "distinct", streams: int = 8) -> Run:
    return Run(way, kind, streams, repeat, 1.0, rate, 10, [5.0])


def test_the_interval_is_students() -> None:
    found = interval([1.0, 1.0, 1.1])
    # Logarithms 0, 0, 0.0953: mean 0.0318, deviation 0.0550, t of 2 degrees of freedom 4.303.
    assert found.mean == pytest.approx(1.0323, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((0.9004, 1.1836), abs=1e-3)
    alone = interval([0.5])
    assert (alone.mean, math.isnan(alone.low)) == (0.5, True)
    assert (str(alone), str(Interval(1, 0.96, 1.04, 3))) == ("0.500", "1.000 [0.960, 1.040]")


def test_ratios_are_of_the_same_repeat() -> None:
    runs = [run("direct", 0, 100), run("llcuda", 0, 50), run("direct", 1, 10), run("llcuda", 1, 5)]
    runs += [run("llcuda", 2, 1000)]  # of which there is no direct one
    found = ratios(runs, "llcuda", "direct")
    assert found == Interval(0.5, 0.5, 0.5, 2)
    assert ratios(runs, "against", "direct") is None


def test_a_row_says_whether_it_meets_the_aim() -> None:
    good = [run(way, n, rate) for n in range(3) for way, rate in (("direct", 100), ("llcuda", 98))]
    bad = [run("llcuda", n, 90, streams=1) for n in range(3)]
    bad += [run("direct", n, 100, streams=1) for n in range(3)]
    rows = summary([*good, *bad])
    assert [(row["streams"], row["meets"]) for row in rows] == [(8, True), (1, False)]
    assert rows[0]["llcuda_first_ms"] == 5.0
    text = table(rows)
    assert "0.980 [0.980, 0.980]" in text
    assert "against" not in text
    assert "against" in table(summary([*good, run("against", 0, 50)]))

"""Better, worse, or cannot tell: never a verdict that two runs of the same could give."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_net.bench.statistics import compare
from llcuda_net.bench.statistics.compare import Change

OLD, SLOWER = [10.0, 10.1, 9.9], [20.0, 20.1, 19.9]


def verdicts(old: dict[str, list[float]], new: dict[str, list[float]]) -> list[str]:
    return [change.verdict for change in compare.compare(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (OLD, SLOWER, "worse"),
        (SLOWER, OLD, "better"),
        (OLD, [10.02, 10.12, 9.92], "cannot tell"),
        ([10.0, 14.0, 6.0], [12.0, 16.0, 8.0], "cannot tell"),
        ([10.0], [20.0], "cannot tell"),
        ([10.0, 10.0], [20.0, 20.0], "cannot tell"),
        ([-1.0, 1.1, 0.9], [20.0, 20.1, 19.9], "worse"),  # which has no logarithm
        ([0.0, 0.0], [0.0, 1.0], "cannot tell"),
    ],
)
def test_times(old: list[float], new: list[float], verdict: str) -> None:
    assert verdicts({"ttft": old}, {"ttft": new}) == [verdict]


def test_of_throughput_more_is_better() -> None:
    old, new = [100.0, 101.0, 99.0], [150.0, 151.0, 149.0]
    figure = "tokens_per_s at 4"
    assert verdicts({figure: old}, {figure: new}) == ["better"]
    assert verdicts({figure: new}, {figure: old}) == ["worse"]


def test_a_change_that_is_sure_and_does_not_matter_is_none() -> None:
    old, new = [100.0, 100.01, 99.99], [100.5, 100.51, 100.49]
    (change,) = compare.compare({"ttft": old}, {"ttft": new})
    assert (change.verdict, change.why) == ("cannot tell", "under 2% either way")


def test_runs_of_the_same_seldom_differ() -> None:
    """Of 60 times four runs of the same, with five figures each, some 5 % may find anything."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(60):
        runs = [{f"f{i}": list(rng.normal(100, 10, 5)) for i in range(5)} for _ in range(4)]
        changes = compare.compare_all(runs[0], runs[1:], [[], [], []])
        wrong += any(c.verdict != "cannot tell" for found in changes for c in found)
    assert wrong <= 60 * 0.05 + 4  # two standard errors


def test_the_interval_holds_the_ratio() -> None:
    """Two servers, one 1.3 times as slow, five repetitions each that vary by 15 %."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        old, new = rng.lognormal(0, 0.15, 5), 1.3 * rng.lognormal(0, 0.15, 5)
        found = compare.ratio(list(old), list(new))
        assert found is not None
        low, high = found.estimate.low, found.estimate.high
        assert low is not None
        assert high is not None
        held += low <= 0.3 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_holm_over_all_that_are_compared() -> None:
    """What is sure enough by itself is not among many; the surest needs the strictest bound."""
    old = {"a": [10.0, 10.4, 9.6, 10.2, 9.8]}
    near = {"a": [10.5, 10.9, 10.1, 10.7, 10.3]}  # p = 0.04
    assert verdicts(old, near) == ["worse"]
    both = compare.compare_all(old, [near, {"a": [10.1, 10.3, 9.7, 10.2, 9.8]}], [[], []])
    assert [found[0].verdict for found in both] == ["cannot tell", "cannot tell"]
    assert both[0][0].why.endswith(", not enough among 2 figures")
    # What is hindered is not judged, and does not count.
    hindered = compare.compare_all(old, [near, old], [[], ["it is of another model"]])
    assert hindered[0][0].verdict == "worse"
    assert hindered[1][0].why == "it is of another model"


def test_agreement_needs_an_interval_within_the_margin() -> None:
    old = {"a": [10.0, 10.1, 9.9, 10.05, 9.95]}

    def told(new: list[float], within: float = 0.1) -> Change:
        (found,) = compare.agreement(old, {"a": new, "b": [1.0]}, within)
        return found

    same = told([10.1, 10.2, 10.0, 10.15, 10.05])
    assert same.verdict == "agree"
    assert same.why.startswith("at most 2.")
    assert told([10.1, 10.2, 10.0, 10.15, 10.05], 0.001).verdict == "cannot tell"
    assert told([20.0, 20.1, 19.9, 20.05, 19.95]).verdict == "differ"
    noisy = told([5.0, 15.0, 10.0, 8.0, 12.0])
    assert noisy.verdict == "cannot tell"
    assert "could be there" in noisy.why
    assert told([10.0]).verdict == "cannot tell"
    assert "--repeats" in told([10.0]).why


def test_what_is_shown_is_what_the_ratio_is_of() -> None:
    """Of values that vary much, the arithmetic means may go the other way."""
    (change,) = compare.compare({"a": [1.0, 1.0, 100.0]}, {"a": [10.0, 10.0, 10.0]})
    assert change.new / change.old == pytest.approx(1 + change.relative.value)


def test_lines() -> None:
    changes = compare.compare({"ttft p50": OLD}, {"ttft p50": SLOWER})
    (line,) = compare.lines(changes, [])
    assert line.startswith("worse        ttft p50")
    assert "10 -> 20" in line
    assert "+100.0% (+95" in line
    assert compare.lines([], ["no"]) == [
        "cannot compare: no",
        "cannot tell: the two runs have no figure in common",
    ]
    assert [Change.from_dict(change.as_dict()) for change in changes] == changes

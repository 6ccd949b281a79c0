"""Shares within an objective, of requests of which every time is known."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.statistics import objective

SLO = {"ttft": 0.5, "latency": 2.0}


def record(
    first: float | None, ended: float, outcome: Outcome = Outcome.DONE, **more: Any
) -> Record:
    chunks = array("d", [] if first is None else [10 + first])
    return Record(0, 10.0, sent=10.0, chunks=chunks, ended=10 + ended, outcome=outcome, **more)


def test_what_is_within_and_what_is_not() -> None:
    records = [
        record(0.4, 1.9),
        record(0.6, 1.9),
        record(0.4, 2.1),
        record(0.4, 1.0, Outcome.FAILED),
        record(0.4, 1.0, warmup=True),
    ]
    found = objective.counts(records, SLO)
    assert found == {
        "requests": 4,
        "within": 1,
        "each": {"ttft": 2, "latency": 2},
        "open": 0,
    }
    assert objective.added([found, found])["each"] == {"ttft": 4, "latency": 4}


@pytest.mark.parametrize(
    ("first", "waited", "undecided"),
    [
        (0.4, 1.0, True),  # could have ended in time
        (None, 0.3, True),  # could have begun in time
        (None, 0.6, False),  # its first token is late already
        (0.6, 1.0, False),
        (0.4, 2.5, False),
    ],
)
def test_what_was_cut_is_counted_apart_while_it_may_keep_it(
    first: float | None, waited: float, undecided: bool
) -> None:
    found = objective.counts([record(first, waited, Outcome.CUT)], SLO)
    assert (found["within"], found["open"]) == (0, int(undecided))


def test_repeats_give_the_interval() -> None:
    """2, 3 and 4 of 4 within it, in windows of 2 s: 1, 1.5 and 2 requests/s."""
    runs = [
        ([record(0.4, 1.0)] * good + [record(0.9, 1.0)] * (4 - good), 0.0, 2.0)
        for good in (2, 3, 4)
    ]
    found = objective.reached(runs, {"ttft": 0.5})
    assert found["within"]["value"] == pytest.approx(0.75)
    assert found["within"]["low"] == pytest.approx(0.75 - 4.3027 * 0.25 / 3**0.5, rel=1e-3)
    assert found["within"]["high"] == 1.0  # there is no more than all
    assert found["goodput"]["value"] == pytest.approx(1.5)
    alone = objective.reached(runs[:1], {"ttft": 0.5})
    assert alone["within"] == {"value": 0.5, "low": None, "high": None, "why": "one repeat"}
    same = objective.reached([runs[2]] * 5, {"ttft": 0.5})
    assert same["within"]["why"] == "the repeats do not differ"
    assert (same["within"]["value"], same["within"]["high"]) == (1.0, None)
    assert objective.reached([([], 0.0, 1.0)], SLO)["within"] is None

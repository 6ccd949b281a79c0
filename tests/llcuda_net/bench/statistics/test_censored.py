"""Requests that did not end before the measurement did still say how long they took at least."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest

from llcuda_net.batch.record import GAP, METRICS, Outcome, Record
from llcuda_net.bench.statistics.censored import (
    censored_count,
    cut_share,
    observations,
    quantile,
)
from llcuda_net.util import quantile as plain


def record(outcome: Outcome, *chunks: float, ended: float, intended: float = 0.0) -> Record:
    found = Record(0, intended, sent=intended + 0.5, ended=ended, outcome=outcome, tokens=2)
    found.chunks = array("d", chunks)
    return found


def test_without_censoring_it_is_the_nearest_rank() -> None:
    rng = np.random.default_rng(1)
    for count in (1, 7, 100, 1000):
        values = [float(value) for value in rng.exponential(size=count)]
        for share in (0.0, 0.01, 0.5, 0.9, 0.99, 1.0):
            expected = sorted(values)[plain.rank(count, share)]
            assert quantile([(value, False) for value in values], share) == expected


def test_the_example_of_kaplan_and_meier() -> None:
    """Their section 2: deaths at 0.8, 3.1, 5.4, 9.2 of eight, losses at 1.0, 2.7, 7.0, 12.1.

    What is left after each death: 7/8, 7/8 4/5, 7/8 4/5 3/4, and half of that.
    """
    found = [(0.8, False), (1.0, True), (2.7, True), (3.1, False)]
    found += [(5.4, False), (7.0, True), (9.2, False), (12.1, True)]
    for left, value in ((0.875, 0.8), (0.7, 3.1), (0.525, 5.4), (0.2625, 9.2)):
        assert quantile(found, 1 - left) == value
    assert quantile(found, 1 - 0.26) is None
    assert quantile([], 0.5) is None


def test_of_equal_times_the_ends_come_first() -> None:
    assert quantile([(1.0, True), (1.0, False)], 0.5) == 1.0
    assert quantile([(1.0, True), (1.0, True), (1.0, False)], 0.5) is None


def test_a_known_distribution_is_found_though_half_of_it_is_cut() -> None:
    """Exponential times of mean 1 s, asked evenly over 2 s, all cut at 2 s: 43 % of them.

    The plain median of those that ended is 0.37 s, the true one 0.69 s.
    """
    rng = np.random.default_rng(2)
    times, until = rng.exponential(size=20_000), 2 - rng.uniform(0, 2, size=20_000)
    found = [(float(min(t, u)), bool(t > u)) for t, u in zip(times, until, strict=True)]
    assert censored_count(found) / len(found) == pytest.approx(0.43, abs=0.01)
    ended = plain.quantile([value for value, censored in found if not censored], 0.5)
    assert ended == pytest.approx(0.37, abs=0.01)
    for share in (0.1, 0.5, 0.8):
        assert quantile(found, share) == pytest.approx(-math.log(1 - share), rel=0.04)


def test_what_each_request_tells() -> None:
    done = record(Outcome.DONE, 2.0, 3.0, ended=4.0)
    cut = record(Outcome.CUT, 11.0, 12.0, 12.5, ended=14.0, intended=10.0)
    silent = record(Outcome.TIMEOUT, ended=30.0, intended=20.0)
    failed = record(Outcome.FAILED, ended=1.0)
    refused = record(Outcome.REFUSED, ended=1.0)
    requests = [done, cut, silent, failed, refused]
    assert observations(requests, "latency") == [(4.0, False), (4.0, True), (10.0, True)]
    assert observations(requests, "ttft") == [(2.0, False), (1.0, False), (10.0, True)]
    assert observations(requests, "service") == [(3.5, False), (3.5, True), (9.5, True)]
    assert observations(requests, "service_ttft") == [(1.5, False), (0.5, False), (9.5, True)]
    assert observations(requests, "lag") == [(0.5, False)] * 3
    assert observations(requests, "tpot") == [(1.0, False), (1.0, True)]
    assert observations(requests, GAP) == [(1.0, False), (1.0, False), (0.5, False), (1.5, True)]
    assert cut_share(requests) == pytest.approx(1 / 5)
    assert cut_share([]) == 0.0


def test_what_was_cut_before_it_was_sent() -> None:
    never = Record(0, 1.0, ended=3.0)
    for metric in METRICS:
        found = observations([never], metric)
        assert found == ([(2.0, True)] if metric in ("latency", "ttft", "lag") else [])
    assert observations([never], GAP) == []
    assert observations([Record(0, 1.0)], "latency") == []  # it has not even been cut
    assert cut_share([never]) == 0.0

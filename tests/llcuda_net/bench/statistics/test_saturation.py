"""Saturation is told of servers that are saturated, and of no others."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable

import pytest

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.statistics.saturation import Saturation, Window, critical, judge, window
from tests.support.bench_targets import constant, either, exponential

Service = Callable[[random.Random], float]


def served(
    rate: float, service: Service, slots: int | None, seconds: float, seed: int
) -> list[Record]:
    """Poisson arrivals to a queue before some slots, first come, first served, empty at first."""
    rng = random.Random(seed)
    free = [0.0] * (slots or 0)
    at = rng.expovariate(rate)
    records: list[Record] = []
    while at < seconds:
        begin = max(at, heapq.heappop(free)) if free else at
        end = begin + service(rng)
        if slots:
            heapq.heappush(free, end)
        records.append(Record(len(records), at, sent=at, ended=end, outcome=Outcome.DONE))
        at += rng.expovariate(rate)
    return records


def verdicts(
    rate: float, service: Service, slots: int | None, *, warmup: float, seconds: float = 5.0
) -> Counter[str]:
    """Of twenty sweeps of five rounds."""
    found: Counter[str] = Counter()
    for sweep in range(20):
        rounds = [
            served(rate, service, slots, warmup + seconds, 10 * sweep + number)
            for number in range(5)
        ]
        windows = [window(records, rate, warmup, warmup + seconds) for records in rounds]
        found[judge(windows, rate=rate).answer] += 1
    return found


@pytest.mark.parametrize("rate", [2, 4, 8])
def test_long_answers_are_no_queue(rate: float) -> None:
    """All answers take 3.0 s and nobody waits; windows are hardly longer than an answer."""
    assert verdicts(rate, constant(3.0), None, warmup=3.3) == {"no": 20}


@pytest.mark.parametrize("rate", [2, 4, 8])
def test_answers_that_vary_are_no_queue(rate: float) -> None:
    assert verdicts(rate, either(0.4, 6.05), None, warmup=6.7)["yes"] == 0


def test_longer_windows_tell_more() -> None:
    found = verdicts(4, either(0.4, 6.05), None, warmup=6.7, seconds=120)
    assert found["yes"] == 0
    assert found["no"] >= 15


@pytest.mark.parametrize("slots", [1, 8])
def test_servers_below_near_and_above_their_capacity(slots: int) -> None:
    """M/M/1 and M/M/8 that carry 20 requests/s."""

    def at(load: float, **options: float) -> Counter[str]:
        return verdicts(20 * load, exponential(slots / 20), slots, warmup=8, **options)

    half, near = at(0.5, seconds=20), at(0.9)
    assert half["no"] >= 19
    assert half["yes"] == near["yes"] == 0
    just = at(1.0)
    assert just["cannot tell"] >= 14  # it is neither
    assert just["yes"] <= 2
    assert at(0.8, seconds=20)["no"] >= 18
    over = at(1.25)
    assert over["yes"] >= 18
    assert over["no"] == 0
    assert at(1.1, seconds=20)["no"] == 0
    assert at(2.0) == {"yes": 20}


def test_a_window_too_short_for_its_answers_tells_nothing() -> None:
    found = verdicts(2, exponential(3.0), None, warmup=3, seconds=1.0)
    assert found["yes"] == 0
    assert found["no"] <= 4


def round_(*, after: int = 10, trend: float | None = 0.0, **lost: int) -> Window:
    counts = {"refused": 0, "failed": 0, "timeouts": 0, **lost}
    return Window(100, 100, 100, 10, after, trend, **counts)


def test_what_a_window_counts() -> None:
    """Two of 4 are under way at the end of the window from 2 to 6 s, one at its begin."""
    times = [(1.0, 1.5), (1.0, 3.0), (2.0, 4.0), (5.0, 7.0), (5.5, 9.0), (6.0, 7.0)]
    records = [
        Record(i, begin, sent=begin, ended=end, outcome=Outcome.DONE)
        for i, (begin, end) in enumerate(times)
    ]
    found = window(records, 1.0, 2.0, 6.0)
    assert (found.offered, found.warmup, found.arrived) == (4.0, 2.0, 3)
    assert (found.before, found.after) == (1, 2)
    assert found.growth == pytest.approx(1 / 3)
    assert found.trend == pytest.approx(2.0 / 7.1667, rel=1e-4)
    records[0].outcome = Outcome.TIMEOUT  # the server has it still
    records[2].outcome, records[2].error = Outcome.REFUSED, "overloaded: full"
    records[3].outcome = Outcome.CUT
    found = window(records, 1.0, 2.0, 6.0)
    assert (found.before, found.after, found.refused, found.trend) == (2, 3, 1, None)


def test_a_queue_that_is_full_is_saturated() -> None:
    found = judge([round_(refused=20), round_(refused=24), round_(refused=22)])
    assert (found.answer, found.why) == ("yes", "22% were refused: the queue was full")
    assert found.carried is not None
    assert found.carried.value == pytest.approx(0.78)


def test_failures_are_no_saturation_and_no_success() -> None:
    found = judge([round_(failed=20)] * 3)
    assert (found.answer, found.why) == ("cannot tell", "20% got no answer")
    assert judge([round_(timeouts=20)] * 3).answer == "cannot tell"


def test_one_round_tells_only_what_is_plain() -> None:
    assert judge([round_(after=90, trend=2.0)]).answer == "yes"
    assert judge([round_(after=25, trend=0.1)]).answer == "cannot tell"
    assert judge([round_()]).answer == "cannot tell"
    assert judge([round_()], reached=50, rate=20).answer == "no"
    assert judge([round_(after=90, trend=2.0)], reached=50, rate=20).answer == "yes"
    found = judge([round_()]).carried
    assert found is not None
    assert found.low is None


def test_without_a_trend_the_number_under_way_decides() -> None:
    assert judge([round_(after=60, trend=None), round_(after=65, trend=None),
                  round_(after=62, trend=None)]).answer == "yes"  # fmt: skip
    assert judge([round_(trend=None)] * 3).answer == "no"
    assert judge([]) == Saturation("cannot tell", "no request was offered", None)


def test_a_queue_at_its_capacity_grows_as_the_root_of_time() -> None:
    assert critical(round_()) == pytest.approx(1.128 * (200**0.5 - 100**0.5) / 100, rel=1e-3)

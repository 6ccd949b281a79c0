"""Which figures repeats give, which have an interval, and what is said where they have none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from llcuda_net.batch.record import GAP, Outcome, Record
from llcuda_net.bench.statistics import repeats
from llcuda_net.bench.statistics.estimates import Floats
from llcuda_net.bench.statistics.repeats import differences, figures, independent
from llcuda_net.bench.statistics.samples import Sample, of_records, pooled, sample


def each(values: Sequence[float] | Floats) -> Sample:
    """One value an answer."""
    return sample([[float(value)] for value in values])


def lognormal(repeats: int, answers: int, seed: int = 1) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [each(rng.lognormal(0.0, 0.5, answers)) for _ in range(repeats)]


def test_one_repeat_has_values_and_no_interval() -> None:
    found = figures(lognormal(1, 2000))
    assert found.mean is not None
    assert (found.mean.low, found.mean.why) == (None, "one repeat")
    p99 = found.quantiles["p99"]
    assert p99 is not None
    assert (p99.low, p99.why) == (None, "one repeat")


def test_five_repeats_have_intervals() -> None:
    found = figures(lognormal(5, 400), rehearsal=lognormal(1, 400, seed=9)[0])
    for name, truth in (("p50", 1.0), ("p90", np.exp(0.5 * 1.2816)), ("p99", np.exp(1.163))):
        estimate = found.quantiles[name]
        assert estimate is not None
        assert estimate.low is not None, estimate.why
        assert estimate.high is not None
        assert estimate.low <= truth <= estimate.high
    assert found.quantiles["p99.9"] is None
    assert found.why == {"p99.9": "under 10 answers beyond it"}


def test_a_percentile_needs_ten_answers_beyond_it() -> None:
    """20 answers have 63 gaps each, 1,260 in all: 12 are beyond p99, all of one slow answer."""
    slow = [[0.001 * answer + 0.0001 * gap for gap in range(63)] for answer in range(20)]
    found = figures([sample(slow[i::5]) for i in range(5)])
    assert found.quantiles["p99"] is None
    assert found.quantiles["p90"] is None  # of two answers
    assert found.why["p99"] == "under 10 answers beyond it"
    assert found.quantiles["p50"] is not None
    assert found.quantiles["p50"].low is None  # four answers in a repeat


def test_a_slow_answer_in_twenty_gives_no_percentile_of_gaps() -> None:
    records = []
    for number in range(40):
        record = Record(number, 0.0, outcome=Outcome.DONE)
        step = 0.1 if number % 20 == 0 else 0.01 + 1e-5 * number
        record.chunks.extend(step * i for i in range(64))
        record.ended = record.chunks[-1]
        records.append(record)
    found = figures([of_records(records[i::5], GAP) for i in range(5)])
    assert pooled([of_records(records, GAP)]).answers == 40
    assert found.quantiles["p99"] is None


def test_equal_values_are_no_reason_to_refuse() -> None:
    found = figures([each([0.013] * 100)] * 5)
    p90 = found.quantiles["p90"]
    assert p90 is not None
    assert (p90.value, p90.low, p90.high) == pytest.approx((0.013, 0.013, 0.013))


def correlated(length: int, memory: float, seed: int) -> Sample:
    """First-order autoregression: as good as length (1 - memory) / (1 + memory) values."""
    rng = np.random.default_rng(seed)
    values = np.empty(length)
    values[0] = rng.normal()
    for i in range(1, length):
        values[i] = memory * values[i - 1] + np.sqrt(1 - memory**2) * rng.normal()
    return each(10 + values)


def test_the_memory_of_a_repeat_is_seen() -> None:
    fresh = independent([correlated(1500, 0.0, seed) for seed in range(20)])
    alike = independent([correlated(1500, 0.95, seed) for seed in range(20)])
    assert fresh > 1200
    assert alike == pytest.approx(1500 / 39 * 1.5, rel=0.5)  # of an indicator a little more


def test_gaps_of_one_answer_count_as_one_where_they_are_alike() -> None:
    rng = np.random.default_rng(1)
    alike = [sample([[level] * 50 for level in rng.normal(10, 1, 40)]) for _ in range(5)]
    apart = [sample([list(rng.normal(10, 1, 50)) for _ in range(40)]) for _ in range(5)]
    assert independent(alike) == pytest.approx(40, rel=0.3)
    assert independent(apart) > 1500


def test_where_neighbours_are_alike_the_tail_has_no_interval() -> None:
    found = figures(
        [correlated(1500, 0.98, seed) for seed in range(5)], rehearsal=correlated(1500, 0.98, 9)
    )
    p50, p99 = found.quantiles["p50"], found.quantiles["p99"]
    assert p50 is not None
    assert p50.low is not None
    assert p99 is not None
    assert p99.low is None
    assert p99.why.startswith("neighbours are alike: a repeat is worth ")


def test_a_rehearsal_of_long_memory_is_believed() -> None:
    measured = [correlated(1500, 0.0, seed) for seed in range(5)]
    assert figures(measured).mean.low is not None  # type: ignore[union-attr]
    found = figures(measured, rehearsal=correlated(1500, 0.999, 9))
    assert found.mean is not None
    assert found.mean.low is None


def test_a_level_that_moves_has_no_interval() -> None:
    rng = np.random.default_rng(3)
    rising = [each(np.linspace(1, 2, 300) + rng.normal(0, 0.1, 300)) for _ in range(5)]
    found = figures(rising)
    assert found.mean is not None
    assert found.mean.why == "it rose while the repeats ran"
    falling = [each(10 - i + rng.normal(0, 0.1, 300)) for i in range(5)]
    found = figures(falling)
    assert found.mean is not None
    assert found.mean.why == "it fell from repeat to repeat"


def cut(latency: float, at: float) -> Record:
    record = Record(0, 0.0, sent=0.0)
    record.ended = min(latency, at)
    record.outcome = Outcome.DONE if latency <= at else Outcome.CUT
    return record


def test_cut_requests_are_in_the_percentiles_and_the_mean_says_so() -> None:
    """Half the answers take 0.4 s, nearly half 6.05 s, and all are cut at 6 s."""
    repeats = []
    for repeat in range(5):
        rng = np.random.default_rng(repeat)
        times = np.where(rng.random(100) < 0.55, 0.4, 6.05)
        repeats.append(of_records([cut(time, 6.0) for time in times], "latency"))
    found = figures(repeats)
    assert found.mean is not None
    assert found.mean.value > 2.5
    assert "requests were cut: it is at least this" in found.mean.why
    p50 = found.quantiles["p50"]
    assert p50 is not None
    assert p50.value == pytest.approx(0.4)
    assert found.quantiles["p90"] is None
    assert "requests were cut" in found.why["p90"]


def test_differences_may_be_negative() -> None:
    rng = np.random.default_rng(4)
    median, mean = differences([each(rng.normal(-1, 0.2, 50)) for _ in range(5)])
    for estimate in (median, mean):
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= -1 <= estimate.high
    assert differences([each([1.0])] * 2)[0] is None
    assert differences([]) == (None, None)


def test_nothing_is_nothing() -> None:
    assert figures([]).mean is None
    assert set(figures([each([])] * 3).quantiles.values()) == {None}


def test_a_percentile_of_times_is_no_negative_time() -> None:
    """Half of the gaps are none, and the later half of them is long: 2 x 0 - (0 + 1) / 2 < 0."""
    each = [sample([[0.0]] * 20 + [[1.0 + n]] * 20) for n in range(3)]
    found = repeats._estimate(0.0, "", repeats._corrected(each, 0.5))
    assert found.value == 0.0
    assert found.low == 0.0

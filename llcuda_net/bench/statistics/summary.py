"""The figures of a run, from its records: every value with its interval, or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from llcuda_net.batch.record import DIRECT, GAP, GAP_MEANING, METRICS, Record, outcomes
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.statistics.estimates import Estimate, not_negative, student
from llcuda_net.bench.statistics.repeats import differences, figures
from llcuda_net.bench.statistics.samples import Sample, of_records, sample
from llcuda_net.errors import ConfigError
from llcuda_net.util.quantile import PERCENTILES

#: The figures that an old and a new run are compared by: metric and statistic.
HEADLINES = (("ttft", "p50"), ("ttft", "p99"), ("gap", "p99"), ("tpot", "p50"), ("latency", "p50"))
#: Parts of a measuring window, whose rates give an interval: batch means (Schmeiser 1982,
#: "Batch Size Effects in the Analysis of Simulation Output").
BATCHES = 10
NAMES = {
    "ttft": "TTFT",
    "tpot": "time per output token",
    "latency": "end to end",
    "service_ttft": "TTFT from sending",
    "service": "end to end from sending",
    "lag": "dispatch lag",
    GAP: "inter-chunk",
}


def meaning(metric: str) -> str:
    """What a metric is, in words."""
    return GAP_MEANING if metric == GAP else METRICS[metric][0]


def distribution(repeats: Sequence[Sample], *, rehearsal: Sample | None = None) -> dict[str, Any]:
    """One metric's figures in milliseconds, for JSON.

    Args:
        repeats: its values in seconds, by whole run.
        rehearsal: those of a run that is not measured, see `repeats.figures`.

    Returns:
        unit, count, mean, percentiles, max, histogram; `why` has what is missing for a percentile
        that is None.
    """
    known = [value for each in repeats for value in each.values[~each.censored].tolist()]
    found: dict[str, Any] = {"unit": "ms", "count": len(known)}
    cut = sum(int(each.censored.sum()) for each in repeats)
    if cut:
        found["cut"] = cut
    if not known:
        return found
    told = figures(repeats, rehearsal=rehearsal)
    found["mean"] = _ms(told.mean)
    found.update({name: _ms(estimate) for name, estimate in told.quantiles.items()})
    if told.why:
        found["why"] = told.why
    found["max"] = max(float(each.values.max()) for each in repeats if len(each.values)) * 1e3
    found["histogram"] = Histogram(known).encode()
    return found


def _ms(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.times(1e3).as_dict()


def summarise(
    repeats: Sequence[Sequence[Record]], *, rehearsal: Sequence[Record] = ()
) -> dict[str, Any]:
    """All figures of the measured records of one path, for JSON.

    Args:
        repeats: of each whole run.
        rehearsal: of a run that is not measured; none: there was none.
    """
    records = [record for repeat in repeats for record in repeat]
    done = [record for record in records if record.done]
    found: dict[str, Any] = {
        "requests": len(records),
        "outcomes": outcomes(records),
        "errors": _errors(records),
        "tokens": sum(record.tokens for record in done),
        "prompt_tokens": sum(record.prompt_tokens for record in done),
        "cached_tokens": sum(record.cached_tokens for record in done),
        "metrics": {
            name: distribution(
                [of_records(repeat, name) for repeat in repeats],
                rehearsal=of_records(rehearsal, name) if rehearsal else None,
            )
            for name in (*METRICS, GAP)
        },
        "phases": phases(repeats),
    }
    if posts(done):
        found["post"] = distribution([sample(posts(repeat)) for repeat in repeats])
    return found


def posts(records: Iterable[Record]) -> list[list[float]]:
    """The seconds of work on each answer."""
    return [[record.post] for record in records if record.done and record.post is not None]


def _errors(records: Iterable[Record]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        if record.error:
            counts[record.error] = counts.get(record.error, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:10])


def phases(repeats: Sequence[Sequence[Record]]) -> dict[str, dict[str, Any]]:
    """Mean milliseconds by phase, as the server reported them, by whole runs."""
    done = [[record for record in repeat if record.done] for repeat in repeats]
    found = {}
    for name in dict.fromkeys(name for each in done for record in each for name in record.phases):
        means = [
            np.mean([record.phases.get(name, 0.0) for record in each]) for each in done if each
        ]
        mean = student(np.asarray(means))
        if mean is not None:
            found[name] = not_negative(mean).as_dict()
    return found


def parts(means: dict[str, dict[str, Any]]) -> list[tuple[str, float]]:
    """Phases that follow each other and add up: the prompt's reading is taken out of first_token.

    Args:
        means: what `phases` gave.
    """
    value = {name: float(each["value"] or 0.0) for name, each in means.items()}
    if "first_token" in value:
        value["first_token"] = max(0.0, value["first_token"] - value.get("prompt", 0.0))
    order = ("queue", "template", "connect", "prompt", "first_token", "generation", "persist")
    return [(name, value[name]) for name in order if value.get(name)]


def difference(repeats: Sequence[Sequence[Record]], metric: str) -> dict[str, Any] | None:
    """What the gateway adds to the direct way, pair by pair, in milliseconds.

    Each prompt went both ways, so that what differs between prompts cancels; the interval of the
    median (and the mean) of the pairs' differences is by whole runs.

    Args:
        repeats: the records of both ways, by run.
    """
    get = METRICS[metric][1]
    samples = []
    for records in repeats:
        pairs: dict[int, dict[bool, float]] = {}
        for record in records:
            value = get(record) if record.done else None
            if value is not None:
                pairs.setdefault(record.number, {})[record.path == DIRECT] = value
        samples.append(
            sample([[both[False] - both[True]] for both in pairs.values() if len(both) == 2])
        )
    count = sum(each.answers for each in samples)
    if not count:
        return None
    median, mean = differences(samples)
    return {"pairs": count, "median": _ms(median), "mean": _ms(mean)}


def rates(
    records: Sequence[Record],
    begin: float,
    end: float,
    *,
    batches: int = 1,
    closed: bool = False,
) -> dict[str, Any]:
    """Tokens/s and requests/s of the wall clock between two moments of one run.

    Every chunk that arrived in the window counts, of requests that are not over, too; a request
    counts where it ended.

    Args:
        batches: with more than one, parts of equal length are taken as repetitions: what differs
            between runs is not in such an interval.
        closed: the workers of a closed loop begin together, and so keep together: a window has
            more of the ends of their answers, or fewer, in every run alike. Each answer then
            counts, with its tokens, by the share of its time that lies in the window.

    Returns:
        `tokens_per_s` and `requests_per_s`, each an estimate for JSON.

    Raises:
        ConfigError: no request was measured between the two moments.
    """
    if not begin < end:
        raise ConfigError(
            "no request was measured after the warm-up: give more time, more requests or a higher"
            " rate"
        )
    edges = np.linspace(begin, end, batches + 1)
    length = (end - begin) / batches
    tokens, requests = np.zeros(batches), np.zeros(batches)
    for record in records:
        if closed and record.done:
            inside = np.clip(edges, record.sent, record.ended)
            share = np.diff(inside) / max(1e-9, record.service)
            requests += share
            tokens += share * (record.tokens or len(record.chunks))
        elif len(record.chunks):
            # A piece is most often a token; where the server counted more, each stands for more.
            each = record.tokens / len(record.chunks) if record.tokens else 1.0
            tokens += np.histogram(record.chunks, edges)[0] * each
    if not closed:
        ends = [r.ended for r in records if r.done and not math.isnan(r.ended)]
        requests += np.histogram(ends, edges)[0]
    found = {}
    for name, counts in (("tokens_per_s", tokens), ("requests_per_s", requests)):
        estimate = student(counts / length)
        assert estimate is not None
        found[name] = not_negative(estimate).as_dict()
    return found


def over_runs(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tokens/s and requests/s of several whole runs, from what `rates` gave of each."""
    found = {}
    for name in ("tokens_per_s", "requests_per_s"):
        estimate = student([one[name]["value"] for one in each])
        if estimate is not None:
            found[name] = not_negative(estimate).as_dict()
    return found


def headline(records: Sequence[Record]) -> dict[str, float]:
    """The values that a run contributes to a comparison, by "metric statistic"."""
    found = {}
    for metric, name in HEADLINES:
        one = figures([of_records(records, metric)], shares={name: PERCENTILES[name]})
        estimate = one.quantiles[name]
        if estimate is not None:
            found[f"{metric} {name}"] = estimate.value * 1e3
    return found

"""The figures of a run, from its records: every value with its interval, or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from llcuda_net.batch.histogram import Histogram
from llcuda_net.batch.record import DIRECT, GAP, GAP_MEANING, METRICS, Record, outcomes, values
from llcuda_net.bench.statistics.estimates import (
    Estimate,
    bootstrap_mean,
    bootstrap_quantiles,
    student,
)
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


def distribution(groups: Sequence[Sequence[float]], *, seed: int = 0) -> dict[str, Any]:
    """One metric's figures in milliseconds, for JSON.

    Args:
        groups: its values in seconds, by request, in order of time.
    """
    flat = [value for group in groups for value in group]
    found: dict[str, Any] = {"unit": "ms", "count": len(flat)}
    if not flat:
        return found
    mean = bootstrap_mean([float(np.mean(group)) for group in groups if len(group)], seed=seed)
    if groups and all(len(group) == 1 for group in groups):
        found["mean"] = None if mean is None else _ms(mean).as_dict()
    else:
        found["mean"] = Estimate(float(np.mean(flat)) * 1e3).as_dict()
    for name, estimate in zip(
        PERCENTILES, bootstrap_quantiles(groups, list(PERCENTILES.values()), seed=seed), strict=True
    ):
        found[name] = None if estimate is None else _ms(estimate).as_dict()
    found["max"] = max(flat) * 1e3
    found["histogram"] = Histogram(flat).encode()
    return found


def _ms(estimate: Estimate) -> Estimate:
    low, high = estimate.low, estimate.high
    return Estimate(
        estimate.value * 1e3,
        None if low is None else low * 1e3,
        None if high is None else high * 1e3,
    )


def summarise(records: Sequence[Record], *, seed: int = 0) -> dict[str, Any]:
    """All figures of the measured records of one path, for JSON."""
    done = [record for record in records if record.done]
    found: dict[str, Any] = {
        "requests": len(records),
        "outcomes": outcomes(records),
        "errors": _errors(records),
        "tokens": sum(record.tokens for record in done),
        "prompt_tokens": sum(record.prompt_tokens for record in done),
        "cached_tokens": sum(record.cached_tokens for record in done),
        "metrics": {
            name: distribution(values(records, name), seed=seed) for name in (*METRICS, GAP)
        },
        "phases": phases(done),
    }
    post = [[record.post] for record in done if record.post is not None]
    if post:
        found["post"] = distribution(post, seed=seed)
    return found


def _errors(records: Iterable[Record]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        if record.error:
            counts[record.error] = counts.get(record.error, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:10])


def phases(done: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """Mean milliseconds by phase, as the server reported them, with intervals."""
    names: list[str] = []
    for record in done:
        names += [name for name in record.phases if name not in names]
    found = {}
    for name in names:
        mean = bootstrap_mean([record.phases.get(name, 0.0) for record in done])
        if mean is not None:
            found[name] = mean.as_dict()
    return found


def parts(means: dict[str, dict[str, float | None]]) -> list[tuple[str, float]]:
    """Phases that follow each other and add up: the prompt's reading is taken out of first_token.

    Args:
        means: what `phases` gave.
    """
    value = {name: float(each["value"] or 0.0) for name, each in means.items()}
    if "first_token" in value:
        value["first_token"] = max(0.0, value["first_token"] - value.get("prompt", 0.0))
    order = ("queue", "template", "connect", "prompt", "first_token", "generation", "persist")
    return [(name, value[name]) for name in order if value.get(name)]


def difference(records: Sequence[Record], metric: str, *, seed: int = 0) -> dict[str, Any] | None:
    """What the first way takes more than the direct one, pair by pair, in milliseconds.

    Each prompt went both ways, so that what differs between prompts cancels; the interval is of the
    median (and the mean) of the pairs' differences, by moving blocks.
    """
    get = METRICS[metric][1]
    pairs: dict[tuple[int, int], dict[bool, float]] = {}
    for record in records:
        value = get(record) if record.done else None
        if value is not None:
            both = pairs.setdefault((record.number, record.turn), {})
            both[record.path == DIRECT] = value
    deltas = [both[False] - both[True] for both in pairs.values() if len(both) == 2]
    if not deltas:
        return None
    median = bootstrap_quantiles([[delta] for delta in deltas], [0.5], seed=seed)[0]
    mean = bootstrap_mean(deltas, seed=seed)
    return {
        "pairs": len(deltas),
        "median": None if median is None else _ms(median).as_dict(),
        "mean": None if mean is None else _ms(mean).as_dict(),
    }


def rates(
    records: Sequence[Record],
    begin: float,
    end: float,
    *,
    batches: int = BATCHES,
    closed: bool = False,
) -> dict[str, Any]:
    """Tokens/s and requests/s of the wall clock between two moments, with Student intervals.

    Every chunk that arrived in the window counts, of requests that are not over, too; a request
    counts where it ended. Batches of equal length are taken as repetitions.

    Args:
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
        found[name] = estimate.as_dict()
    return found


def headline(summary: dict[str, Any]) -> dict[str, float]:
    """The values that a repetition contributes to a comparison, by "metric statistic"."""
    found = {}
    for metric, name in HEADLINES:
        estimate = summary["metrics"].get(metric, {}).get(name)
        if estimate is not None:
            found[f"{metric} {name}"] = estimate["value"]
    return found

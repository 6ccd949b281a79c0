"""A service level objective (SLO), and how far it was reached: shares and goodput.

Of the requests that were measured, those count as within it that were answered, and within every
bound. One that failed, was refused or was given up is not; nor is one that was still under way when
the run ended. Of those some would have kept it yet: they are counted apart, and where there are any
the shares are lower bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llcuda_net.batch.record import METRICS, Outcome, Record
from llcuda_net.bench.statistics.estimates import Estimate, student

#: Repeats under which a mean has no interval.
LEAST = 3
#: A run's records, and its window in seconds since its start.
Run = tuple[Sequence[Record], float, float]


def keeps(record: Record, slo: Mapping[str, float]) -> bool:
    """Whether an answer came, and within every bound; what has no such time keeps it."""
    if not record.done:
        return False
    for metric, bound in slo.items():
        value = METRICS[metric][1](record)
        if value is not None and value > bound:
            return False
    return True


def counts(records: Sequence[Record], slo: Mapping[str, float]) -> dict[str, Any]:
    """How many of a run's measured requests kept it, for JSON; ranks' are added up by `added`.

    Args:
        slo: bounds in seconds by metric.

    Returns:
        `requests`: all that were measured; `within`: those that kept it; `each`: those by bound;
        `open`: those that were cut before they had broken a bound.
    """
    own = [record for record in records if not record.warmup]
    return {
        "requests": len(own),
        "within": sum(keeps(record, slo) for record in own),
        "each": {n: sum(keeps(record, {n: bound}) for record in own) for n, bound in slo.items()},
        "open": sum(_open(record, slo) for record in own),
    }


def added(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several ranks counted in the same window."""
    return {
        **{name: sum(part[name] for part in parts) for name in ("requests", "within", "open")},
        "each": {name: sum(part["each"][name] for part in parts) for name in parts[0]["each"]},
    }


def estimates(runs: Sequence[tuple[dict[str, Any], float]]) -> dict[str, Any]:
    """How far it was reached, by the repeats, for JSON.

    Args:
        runs: what `counts` gave of each, and the seconds of its window.

    Returns:
        `within`: of the measured requests, the share that kept it; `each`: the share by bound;
        `goodput`: requests that began in the window and kept it, by second of the window; `open`:
        how many were cut before they had broken a bound. Estimates, but for `open`; None of no
        requests.
    """
    known = [found for found, _ in runs if found["requests"]]
    names = runs[0][0]["each"] if runs else {}
    return {
        "within": _mean([found["within"] / found["requests"] for found in known], most=1.0),
        "each": {
            name: _mean([found["each"][name] / found["requests"] for found in known], most=1.0)
            for name in names
        },
        "goodput": _mean([found["within"] / seconds for found, seconds in runs if seconds > 0]),
        "open": sum(found["open"] for found, _ in runs),
    }


def reached(runs: Sequence[Run], slo: Mapping[str, float]) -> dict[str, Any]:
    """See `estimates`: of runs with their records, and the beginning and end of their windows."""
    return estimates([(counts(records, slo), end - begin) for records, begin, end in runs])


def _open(record: Record, slo: Mapping[str, float]) -> bool:
    """Whether it was cut while it could still have kept the objective."""
    if record.outcome is not Outcome.CUT:
        return False
    waited = record.ended - record.intended
    first = waited if record.ttft is None else record.ttft
    return waited <= slo.get("latency", waited) and first <= slo.get("ttft", first)


def _mean(values: Sequence[float], most: float | None = None) -> dict[str, Any] | None:
    """Of repeats, with Student's interval from three on, as far as there can be such a value."""
    found = student(values)
    if found is None:
        return None
    if len(values) < LEAST or found.low is None or found.high is None:
        many = "one repeat" if len(values) == 1 else f"{len(values)} repeats"
        return {**Estimate(found.value).as_dict(), "why": many}
    if len(set(values)) == 1:  # of how repeats differ nothing is known: all may be within it
        return {**Estimate(found.value).as_dict(), "why": "the repeats do not differ"}
    low, high = max(0.0, found.low), found.high
    return Estimate(found.value, low, high if most is None else min(most, high)).as_dict()

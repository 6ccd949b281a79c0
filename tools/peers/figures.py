"""What a tool said of a run, and what the server recorded of the same run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: The figures of a distribution that are compared.
NAMES = ("mean", "p50", "p90", "p99")
#: Expected arrivals in a window of the index of dispersion.
WINDOW = 10

Figures = dict[str, float | None]


@dataclass(slots=True)
class Said:
    """What a tool said; times in seconds.

    Attributes:
        counted: requests that its figures are of.
        cut: that it left out because they were under way at the end.
        failed: that failed, timed out or were refused.
        intervals: of 95 %, by "latency mean" and so on, where it gives some.
        notes: what it warned of.
    """

    counted: int
    cut: int
    failed: int
    latency: Figures
    ttft: Figures
    requests_per_s: float | None
    tokens_per_s: float | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Recorded:
    """What the server recorded of the requests that a tool measured.

    Attributes:
        arrived: how many came.
        rate: requests/s between the first and the last.
        dispersion: the index of dispersion of the arrivals: variance by mean of their numbers in
            windows of ten expected ones (Cox and Lewis, The Statistical Analysis of Series of
            Events, 1966); Poisson's is 1. None where there are under five windows.
        latency, ttft: from the arrival; what was cut counts with the time that it would have
            taken. A figure is None where it depends on requests that never began.
    """

    arrived: int
    rate: float | None
    dispersion: float | None
    latency: Figures
    ttft: Figures


def recorded(rows: Sequence[Mapping[str, Any]], rate: float, last: int) -> Recorded:
    """From the rows of GET /truth/requests; the `last` ones are those that were measured."""
    rows = rows[-last:] if last else []
    at = [float(row["arrived"]) for row in rows]
    span = at[-1] - at[0] if len(at) > 1 else 0.0
    whole: list[float] = []
    first: list[float] = []
    for row in rows:
        for out, seen, due in ((whole, "ended", "due"), (first, "first", "first_due")):
            end = row[seen] if row[seen] is not None else row[due]
            out.append(math.inf if end is None else end - row["arrived"])
    return Recorded(
        arrived=len(at),
        rate=(len(at) - 1) / span if span else None,
        dispersion=dispersion(at, WINDOW / rate),
        latency=figures(whole),
        ttft=figures(first),
    )


def dispersion(moments: Sequence[float], window: float) -> float | None:
    """The variance of the numbers in whole windows by their mean; see Recorded."""
    if len(moments) < 2:
        return None
    count = int((moments[-1] - moments[0]) / window)
    if count < 5:
        return None
    numbers = [0] * count
    for moment in moments:
        place = int((moment - moments[0]) / window)
        if place < count:
            numbers[place] += 1
    mean = statistics.fmean(numbers)
    return statistics.variance(numbers) / mean if mean else None


def figures(values: Sequence[float]) -> Figures:
    """Mean and percentiles (nearest rank); None where they are not finite, or there is nothing."""
    if not values:
        return dict.fromkeys(NAMES)
    rows = sorted(values)

    def rank(share: float) -> float:
        return rows[max(0, math.ceil(share * len(rows)) - 1)]

    found = [math.fsum(rows) / len(rows), rank(0.5), rank(0.9), rank(0.99)]
    return {n: v if math.isfinite(v) else None for n, v in zip(NAMES, found, strict=True)}


def error(value: float | None, true: float | None) -> float | None:
    """The relative error; None where either is missing."""
    return None if value is None or not true else value / true - 1

"""Estimates that say no more than the sample does: values with intervals, or nothing.

Sources: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), for percentile
intervals; H. Künsch, "The jackknife and the bootstrap for general stationary observations" (1989),
for blocks; B. Welch, "The generalization of Student's problem" (1947); Student, "The probable error
of a mean" (1908). The sample quantile is that of `util.quantile`: a value that was measured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llcuda_net.util.quantile import rank, supported

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1000
#: Least values for an interval: under this the resamples know only a handful of samples.
LEAST = 8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, with the interval in which the truth lies at CONFIDENCE; None: not known."""

    value: float
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Estimate:
        """The inverse of `as_dict`."""
        return cls(found["value"], found.get("low"), found.get("high"))


def t_bound(freedom: int) -> float:
    """Half the width of an interval at CONFIDENCE, in standard errors: Student's t."""
    from scipy.special import stdtrit  # a third of the start of a rank, which needs none of it

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def student(values: Sequence[float] | Floats) -> Estimate | None:
    """The mean of independent repetitions with Student's interval; None of nothing."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    mean = float(found.mean())
    if len(found) < 2:
        return Estimate(mean)
    half = t_bound(len(found) - 1) * float(found.std(ddof=1) / math.sqrt(len(found)))
    return Estimate(mean, mean - half, mean + half)


def block_length(count: int) -> int:
    """How many neighbours are resampled together: the cube root of the sample (Künsch 1989).

    Requests that follow each other share a queue, so their latencies are not independent.
    """
    return max(1, round(math.cbrt(count)))


def _draws(count: int, resamples: int, seed: int, *, room: int) -> Iterator[NDArray[np.int64]]:
    """How often each of `count` neighbours is drawn, in circular blocks.

    Args:
        room: numbers that each resample takes in memory; some 4 million are held at once.

    Yields:
        arrays of shape (some resamples, count), in all `resamples` rows.
    """
    rng = np.random.default_rng(seed)
    block = block_length(count)
    some = max(1, 4_000_000 // max(1, room))
    for first in range(0, resamples, some):
        rows = min(some, resamples - first)
        starts = rng.integers(0, count, size=(rows, math.ceil(count / block)))
        drawn = (starts[:, :, None] + np.arange(block)).reshape(rows, -1)[:, :count] % count
        drawn += np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def bootstrap_mean(
    values: Sequence[float] | Floats, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate | None:
    """The mean of values in order of time, with a percentile interval by moving blocks."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    mean = float(found.mean())
    if len(found) < LEAST:
        return Estimate(mean)
    means = [
        weights @ found / len(found)
        for weights in _draws(len(found), resamples, seed, room=len(found))
    ]
    return Estimate(mean, *_ends(np.concatenate(means)))


def bootstrap_quantiles(
    groups: Sequence[Sequence[float] | Floats],
    shares: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Estimate | None]:
    """Quantiles of all values together, resampling whole groups, neighbours in blocks.

    Args:
        groups: the values of each request in order of time: one each for a latency, many for the
            gaps between chunks, which belong together and must be drawn together.
        shares: which quantiles, 0 to 1.

    Returns:
        For each share its estimate; None where the sample does not support it.
    """
    sizes = np.asarray([len(group) for group in groups], dtype=np.int64)
    total = int(sizes.sum())
    if not total:
        return [None] * len(shares)
    values = np.concatenate([np.asarray(group, dtype=np.float64) for group in groups])
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    owner = np.repeat(np.arange(len(groups)), sizes)[order]
    wanted = [share if supported(total, share) else None for share in shares]
    points = [None if s is None else float(ordered[rank(total, s)]) for s in wanted]
    if len(groups) < LEAST or all(point is None for point in points):
        return [None if point is None else Estimate(point) for point in points]
    known = np.asarray([s for s in wanted if s is not None])
    drawn: list[Floats] = []
    for weights in _draws(len(groups), resamples, seed, room=total):
        cumulative = np.cumsum(weights[:, owner], axis=1)
        for row in cumulative:
            if row[-1]:  # else every group drawn was empty
                ranks = np.maximum(1, np.ceil(np.round(known * row[-1], 9)))
                drawn.append(ordered[np.searchsorted(row, ranks)])
    ends = iter([_ends(column) for column in np.asarray(drawn).T])
    return [None if point is None else Estimate(point, *next(ends)) for point in points]


def _ends(drawn: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus old, with its interval and the probability of as much by chance alone."""

    estimate: Estimate
    p: float


def welch(old: Sequence[float], new: Sequence[float]) -> Difference | None:
    """The difference of the means of two sets of repetitions, variances not assumed equal.

    None where either has fewer than two, or where no value differs, so that nothing is known of
    their spread.
    """
    if min(len(old), len(new)) < 2 or len(set(old)) == len(set(new)) == 1:
        return None
    from scipy.stats import ttest_ind  # a second to import, and only comparisons need it

    with warnings.catch_warnings():
        # That one of the two hardly varies makes the result no less right here.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ttest_ind(new, old, equal_var=False)
        low, high = found.confidence_interval(CONFIDENCE)
    between = float(np.mean(new) - np.mean(old))
    return Difference(Estimate(between, float(low), float(high)), float(found.pvalue))

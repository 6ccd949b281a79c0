"""Statistics that say no more than the sample does: values with intervals, or nothing.

Sources: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), for percentile
intervals; H. Künsch, "The jackknife and the bootstrap for general stationary observations" (1989),
for blocks; B. Welch, "The generalization of Student's problem" (1947); Student, "The probable error
of a mean" (1908). The sample quantile is type 1 of Hyndman and Fan, "Sample Quantiles in
Statistical Packages" (1996): a value that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llcuda_net.bench.beta import t_quantile, t_share

Floats = NDArray[np.float64]

#: Values that must lie beyond a percentile, on its thinner side, for it to be told.
BEYOND = 10
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


def supported(count: int, share: float) -> bool:
    """Whether a sample of `count` says anything of its quantile `share` (0 to 1).

    At least ten values must lie beyond it: 20 for a median, 1,000 for p99, 10,000 for p99.9.
    """
    return count * min(share, 1 - share) >= BEYOND - 1e-9


def quantile(values: Sequence[float] | Floats, share: float) -> float | None:
    """The least value at or below which `share` of the sample lies; None where unsupported."""
    if not supported(len(values), share):
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[rank(len(ordered), share)])


def rank(count: int, share: float) -> int:
    """The place, from 0, of the quantile `share` among so many values in order."""
    # Rounded first: 0.99 * 1000 is 990.0000000000001 in some orders of multiplication.
    return max(0, math.ceil(round(share * count, 9)) - 1)


def student(values: Sequence[float] | Floats) -> Estimate | None:
    """The mean of independent repetitions with Student's interval; None of nothing."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    mean = float(found.mean())
    if len(found) < 2:
        return Estimate(mean)
    half = t_quantile(0.5 + CONFIDENCE / 2, len(found) - 1) * float(
        found.std(ddof=1) / math.sqrt(len(found))
    )
    return Estimate(mean, mean - half, mean + half)


def block_length(count: int) -> int:
    """How many neighbours are resampled together: the cube root of the sample (Künsch 1989).

    Requests that follow each other share a queue, so their latencies are not independent.
    """
    return max(1, round(math.cbrt(count)))


def _weights(count: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of `count` neighbours is drawn, in circular blocks: one resample."""
    starts = rng.integers(0, count, size=math.ceil(count / block))
    drawn = (starts[:, None] + np.arange(block)[None, :]).ravel()[:count] % count
    return np.bincount(drawn, minlength=count)


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
    rng = np.random.default_rng(seed)
    block = block_length(len(found))
    means = [_weights(len(found), block, rng) @ found / len(found) for _ in range(resamples)]
    return Estimate(mean, *_ends(np.asarray(means)))


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
    rng = np.random.default_rng(seed)
    block = block_length(len(groups))
    known = np.asarray([s for s in wanted if s is not None])
    drawn = np.empty((resamples, len(known)))
    for row in drawn:
        cumulative = np.cumsum(_weights(len(groups), block, rng)[owner])
        if not cumulative[-1]:  # every group drawn was empty
            row[:] = np.nan
            continue
        ranks = np.maximum(1, np.ceil(np.round(known * cumulative[-1], 9)))
        row[:] = ordered[np.searchsorted(cumulative, ranks)]
    drawn = drawn[~np.isnan(drawn[:, 0])]
    ends = iter([_ends(column) for column in drawn.T])
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
    a, b = (np.asarray(each, dtype=np.float64) for each in (old, new))
    if min(len(a), len(b)) < 2:
        return None
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    between = float(b.mean() - a.mean())
    spread = math.sqrt(va + vb)
    if spread == 0:
        return None
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = t_quantile(0.5 + CONFIDENCE / 2, freedom) * spread
    p = 2 * t_share(-abs(between) / spread, freedom)
    return Difference(Estimate(between, between - half, between + half), p)

"""Statistics that claim no more than the sample supports."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from llcuda_net.util.quantile import quantile as percentile

__all__ = ["Spread", "added_median", "difference", "percentile", "spread"]

#: Resamples of a bootstrap.
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing: their median, least and greatest, and how many.

    Attributes:
        low, high: the median's 95 % interval, where it was estimated.
    """

    median: float
    least: float
    most: float
    count: int
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of what was measured; None if nothing was."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Spread(statistics.median(known), known[0], known[-1], len(known))


def difference(a: float | None, b: float | None) -> float | None:
    """a - b, where both are known."""
    return None if a is None or b is None else a - b


def added_median(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Spread | None:
    """How much greater the median of the first sample is than that of the second, over the pairs.

    The interval is a bootstrap in two stages (percentile; Davison and Hinkley, "Bootstrap Methods
    and their Application", 1997, 3.8): pairs are drawn again, and the values within each. With one
    pair it tells the scatter within it alone.
    """
    known = [(a, b) for a, b in pairs if percentile(a, 0.5) is not None is not percentile(b, 0.5)]
    found = spread(_gap(a, b) for a, b in known)
    if found is None:
        return None
    chance = random.Random(0)
    drawn = sorted(
        statistics.median(
            _gap(chance.choices(a, k=len(a)), chance.choices(b, k=len(b)))
            for a, b in chance.choices(known, k=len(known))
        )
        for _ in range(RESAMPLES)
    )
    ends = drawn[RESAMPLES // 40], drawn[-RESAMPLES // 40 - 1]
    return Spread(found.median, found.least, found.most, found.count, *ends)


def _gap(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.median_low(a) - statistics.median_low(b)

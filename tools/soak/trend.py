"""Whether a series of figures stays where it is: a slope that outliers do not move, and its bounds.

The slope is the median of those of all pairs of points (Theil 1950, Sen 1968), and its interval is
Sen's, from the variance of Kendall's tau. It asks for points that do not depend on each other, so
samples are joined before: a point is the median of a minute's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: Of the normal distribution, for 95 %.
_Z = 1.959964
#: Points below which nothing is said.
FEWEST = 6
#: Seconds that are joined to one point.
_POINT = 60.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a series may grow in the time that is judged: a share of its median, and more.

    Attributes:
        warm_up: the share of the time that is not judged.
    """

    share: float
    more: float
    warm_up: float = 0.1


@dataclass(frozen=True, slots=True)
class Trend:
    """How a series goes.

    Attributes:
        points: how many were judged.
        median: of them.
        slope, low, high: growth an hour, and the bounds of its 95 % interval.
        hours: the time that was judged.
        allowed: growth that is allowed in that time.
    """

    points: int
    median: float
    slope: float
    low: float
    high: float
    hours: float
    allowed: float

    @property
    def verdict(self) -> str:
        """flat: growth above what is allowed is outside of the interval; grows: the interval is
        above it as a whole; undecided: neither, as where there are too few points."""
        if self.points < FEWEST:
            return "undecided"
        if self.high * self.hours <= self.allowed:
            return "flat"
        return "grows" if self.low * self.hours > self.allowed else "undecided"

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {**asdict(self), "verdict": self.verdict}


def trend(times: Sequence[float], values: Sequence[float | None], allowance: Allowance) -> Trend:
    """Judge a series.

    Args:
        times: in seconds from the beginning.
        values: None where there is none.
    """
    known = [(t, v) for t, v in zip(times, values, strict=True) if v is not None]
    end = times[-1] if times else 0.0
    warm_up = allowance.warm_up * end
    points = _points([(t, v) for t, v in known if t > warm_up], end - warm_up)
    if not points:
        return Trend(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    x, y = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    slope, low, high = theil_sen(x / 3600, y)
    median = float(statistics.median(y))
    allowed = allowance.share * median + allowance.more
    return Trend(len(points), median, slope, low, high, float(x[-1] - x[0]) / 3600, allowed)


def _points(samples: Sequence[tuple[float, float]], length: float) -> list[tuple[float, float]]:
    """The medians of each minute; of a short run, of as much as leaves twelve points."""
    width = min(_POINT, length / 12)
    groups: dict[int, list[tuple[float, float]]] = {}
    for t, v in samples:
        groups.setdefault(int(t / width) if width > 0 else 0, []).append((t, v))
    return [
        (statistics.median(t for t, _ in group), statistics.median(v for _, v in group))
        for group in groups.values()
    ]


def theil_sen(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """The slope of y over x, and the bounds of its 95 % interval."""
    n = len(x)
    if n < 2:
        return 0.0, 0.0, 0.0
    first, second = np.triu_indices(n, 1)
    apart = x[second] != x[first]
    rise, run = (y[second] - y[first])[apart], (x[second] - x[first])[apart]
    slopes = np.sort(rise / run)
    count = len(slopes)
    reach = _Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, math.floor((count - reach) / 2))
    high = min(count - 1, math.ceil((count + reach) / 2))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])

"""The one definition of a sample quantile, and of when a sample is large enough to have one.

The quantile is the nearest rank: the least value of the sample at or below which the share lies
(type 1 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996). It is a value that
was measured, never one between two of them: the median of 0 … 19 is 9.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sized
from typing import Protocol

#: Values that must lie beyond a quantile, on its thinner side, for it to be reported.
BEYOND = 10
#: The percentiles that reports show where the sample supports them.
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Sample(Iterable[float], Sized, Protocol):
    """Numbers in any order: a list, an array."""


def supported(count: int, share: float) -> bool:
    """Whether a sample of `count` values is large enough for its quantile `share` (0 to 1).

    At least ten values must lie beyond it: 20 for a median, 1,000 for p99, 10,000 for p99.9.
    """
    return count * min(share, 1 - share) >= BEYOND - 1e-9


def rank(count: int, share: float) -> int:
    """The place, from 0, of the quantile `share` (0 to 1) among `count` values in order."""
    # Rounded first: 0.99 * 1000 is 990.0000000000001 in some orders of multiplication.
    return max(0, math.ceil(round(share * count, 9)) - 1)


def quantile(values: Sample, share: float) -> float | None:
    """The least value at or below which `share` (0 to 1) of the sample lies.

    Returns:
        the value, in the sample's unit; None where the sample is too small (see `supported`).
    """
    return _of_sorted(sorted(values), share)


def percentiles_ms(seconds: Sample) -> dict[str, float | None]:
    """Milliseconds at each of PERCENTILES, by name; None where the sample is too small for it."""
    ordered = sorted(seconds)
    found = {name: _of_sorted(ordered, share) for name, share in PERCENTILES.items()}
    return {name: None if value is None else value * 1e3 for name, value in found.items()}


def _of_sorted(ordered: list[float], share: float) -> float | None:
    if not supported(len(ordered), share):
        return None
    return float(ordered[rank(len(ordered), share)])

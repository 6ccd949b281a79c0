"""Distributions of times: a mean, a distribution function, and quantiles from that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Law:
    """A distribution of times of 0 or more.

    Attributes:
        mean: in seconds.
        below: P(time <= x).
        most: a time that is reached; quantiles are sought up to it, and beyond where it must be.
    """

    mean: float
    below: Callable[[float], float]
    most: float

    def quantile(self, share: float) -> float:
        """The least time at or below which the share lies, by bisection; exact to 1e-12."""
        low, high = 0.0, self.most
        # A share that an atom reaches exactly must not be missed by rounding.
        aim = share - 1e-12
        while self.below(high) < aim:
            high *= 2
        while high - low > 1e-12 * max(high, 1e-3):
            middle = (low + high) / 2
            if self.below(middle) >= aim:
                high = middle
            else:
                low = middle
        return high

    def scaled(self, factor: float) -> Law:
        """The law of `factor` times the time."""
        if factor == 0:
            return atoms({0.0: 1.0})
        return Law(self.mean * factor, lambda x: self.below(x / factor), self.most * factor)


def atoms(shares: Mapping[float, float]) -> Law:
    """A law of some times only, each with its share."""
    rows = sorted(shares.items())

    def below(x: float) -> float:
        # A time that went through `scaled` and back is not to be missed by its last digit.
        return math.fsum(share for time, share in rows if time <= x * (1 + 1e-14))

    return Law(math.fsum(time * share for time, share in rows), below, rows[-1][0])


def exponential(mean: float) -> Law:
    """The exponential law."""
    return Law(mean, lambda x: -math.expm1(-x / mean) if x > 0 else 0.0, mean)

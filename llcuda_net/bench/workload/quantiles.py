"""Distributions as tables of quantiles, and draws that are the same on every machine.

A draw is a hash of its name, and a value is interpolated between two quantiles: only additions,
multiplications and divisions of IEEE 754, which round alike everywhere. Libraries' generators of
random numbers and logarithms may differ in their last bit from one version to the next.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

#: The shares at which the tables of this package give quantiles.
SHARES = (
    *(0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    *(0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999, 1.0),
)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution by its quantiles at `SHARES`, straight between them.

    Attributes:
        values: one for each share, rising.
        source: where they are from, in words.
        unit: of the values.
    """

    values: tuple[float, ...]
    source: str
    unit: str = "tokens"

    def at(self, share: float) -> float:
        """The value below which that share of all lies.

        Args:
            share: from 0 up to 1.
        """
        above = max(1, bisect_left(SHARES, share))
        low, high = SHARES[above - 1], SHARES[above]
        first, last = self.values[above - 1], self.values[above]
        return first + (last - first) * ((share - low) / (high - low))

    @property
    def mean(self) -> float:
        """Of the table as it is drawn from."""
        pieces = zip(SHARES, SHARES[1:], self.values, self.values[1:], strict=False)
        return sum((high - low) * (first + last) / 2 for low, high, first, last in pieces)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "unit": self.unit,
            "mean": round(self.mean, 2),
            "p50": self.at(0.5),
            "p90": self.at(0.9),
            "p99": self.at(0.99),
            "max": self.values[-1],
            "quantiles": [list(pair) for pair in zip(SHARES, self.values, strict=True)],
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """A distribution of whole numbers from 1 on.

    Attributes:
        upto: the share of all that is at most 1, 2, 3 …; the last is 1.
        source: where they are from, in words.
    """

    upto: tuple[float, ...]
    source: str

    def at(self, share: float) -> int:
        """The least number at or below which more than that share of all lies."""
        return next(n for n, most in enumerate(self.upto, 1) if share < most or most == 1)

    @property
    def mean(self) -> float:
        """Of the numbers."""
        return sum(1 - most for most in (0.0, *self.upto[:-1]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "unit": "turns",
            "mean": round(self.mean, 2),
            "max": len(self.upto),
            "at_most": list(self.upto),
            "source": self.source,
        }


def draw(*name: object) -> float:
    """A number from 0 up to 1 that hangs on nothing but its name."""
    found = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=8).digest()
    return (int.from_bytes(found) >> 11) / (1 << 53)

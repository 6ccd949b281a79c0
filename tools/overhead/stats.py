"""Statistics that claim no more than the sample supports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from llcuda_net.util.quantile import quantile as percentile

__all__ = ["Spread", "difference", "percentile", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing: their median, least and greatest, and how many."""

    median: float
    least: float
    most: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of what was measured; None if nothing was."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    middle = len(known) // 2
    median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
    return Spread(median, known[0], known[-1], len(known))


def difference(a: float | None, b: float | None) -> float | None:
    """a - b, where both are known."""
    return None if a is None or b is None else a - b

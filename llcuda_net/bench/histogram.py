"""Mergeable histograms of times: G. Tene's HdrHistogram, three significant figures, microseconds.

Merging adds counts, so what several ranks measured gives the same percentiles as if one had.
"""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

from llcuda_net.bench.statistics import rank, supported

#: The longest time that is told from a longer one, in microseconds: an hour.
LONGEST = 3_600_000_000
#: Greatest relative error of a value read back: three significant figures.
PRECISION = 1e-3


class Histogram:
    """Counts of times in seconds, from 1 microsecond to an hour; what lies outside is clamped."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(1, LONGEST, 3)
        for value in seconds:
            self.add(value)

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts.record_value(min(LONGEST, max(0, round(seconds * 1e6))))

    def merge(self, other: Histogram) -> Histogram:
        """Add another's counts to this one's; returns this one."""
        self._counts.add(other._counts)
        return self

    def quantile(self, share: float) -> float | None:
        """The value in seconds below which `share` (0 to 1) lies; None where unsupported."""
        total = len(self)
        if not supported(total, share):
            return None
        # By the rank of `statistics.quantile`: the library would round to the nearest rank.
        part = 100 * (rank(total, share) + 1) / total
        return float(self._counts.get_value_at_percentile(part)) / 1e6

    def steps(self) -> list[tuple[float, float]]:
        """(seconds, share at or below it) of each value that occurred: the distribution's curve."""
        total = len(self)
        found: list[tuple[float, float]] = []
        for item in self._counts.get_recorded_iterator():
            found.append((item.value_iterated_to / 1e6, item.total_count_to_this_value / total))
        return found

    def encode(self) -> str:
        """HdrHistogram's own compressed text (V2), which other languages' libraries read, too."""
        return str(self._counts.encode().decode("ascii"))

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The inverse of `encode`.

        Raises:
            ValueError: the text is none.
        """
        new = cls()
        try:
            found = HdrHistogram.decode(text)
        except Exception as error:  # the library raises what its parts happen to raise
            raise ValueError(f"not an encoded histogram: {error}") from None
        new._counts.add(found)
        return new

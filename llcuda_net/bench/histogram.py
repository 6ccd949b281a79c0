"""Mergeable histograms of times: G. Tene's HdrHistogram, three significant digits, microseconds.

Merging adds counts, so what several ranks measured gives the same percentiles as if one rank had
measured all of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

from llcuda_net.util.numbers import plain
from llcuda_net.util.quantile import PERCENTILES, rank, supported

#: The longest time that differs from a longer one, in microseconds: an hour.
LONGEST = 3_600_000_000
#: Greatest relative error of a value read back: three significant digits.
PRECISION = 1e-3


class Histogram:
    """Counts of times in seconds, from 1 microsecond to an hour; times outside are clamped."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(1, LONGEST, 3)
        for value in seconds:
            self.add(value)

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def __repr__(self) -> str:
        return (
            f"<Histogram of {len(self)} times, up to {plain(self._counts.get_max_value() / 1e6)} s>"
        )

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
        # By the rank of `util.quantile`: the library would round to the nearest rank.
        part = 100 * (rank(total, share) + 1) / total
        return float(self._counts.get_value_at_percentile(part)) / 1e6

    def percentiles_ms(self) -> dict[str, float | None]:
        """Milliseconds at each of PERCENTILES, by name; None where unsupported."""
        found = {name: self.quantile(share) for name, share in PERCENTILES.items()}
        return {name: None if value is None else value * 1e3 for name, value in found.items()}

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
            ValueError: the text is no encoded histogram.
        """
        new = cls()
        try:
            found = HdrHistogram.decode(text)
        except Exception as error:  # the library raises what its parts happen to raise
            raise ValueError(f"not an encoded histogram: {error}") from None
        new._counts.add(found)
        return new

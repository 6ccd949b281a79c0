"""Which batches of a server's journal are still needed: a decision, without a database.

A batch is needed as long as one before it, or it itself, is the oldest with records of a generation
that is open. One that stays open while many later batches follow would keep all of them: what is
live in the oldest ones is then written again into a new batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

#: Bytes of batches that are kept before the live records of the oldest ones are written again; and
#: bytes of the oldest ones that are read for that at a time.
KEEP, COPY = 64 << 20, 4 << 20
#: The same, as a multiple of what is live: where much is, writing it again would have no end.
_LIVE = 3


class Trimming:
    """What is known of the batches of one life.

    Args:
        keep, copy: see KEEP and COPY.

    Attributes:
        low: batches before this number are not needed.
        done: batches before this number are deleted.
    """

    def __init__(self, keep: int = KEEP, copy: int = COPY) -> None:
        self.low = self.done = 1
        self._keep = keep
        self._copy = copy
        self._sizes: deque[tuple[int, int]] = deque()  # number and bytes, of those from `low` on
        self._total = 0
        self._oldest: dict[int, int] = {}  # by slot: the number of its oldest batch
        self._live: dict[int, int] = {}  # by slot: bytes of its records
        self._live_total = 0
        self._holders: dict[int, set[int]] = {}  # by number: the slots whose oldest it is

    def __repr__(self) -> str:
        return f"<Trimming low={self.low} open={len(self._oldest)} bytes={self._total}>"

    def added(self, number: int, sizes: Mapping[int, int]) -> None:
        """A batch is in the database, with so many bytes of records of each slot."""
        size = sum(sizes.values())
        self._sizes.append((number, size))
        self._total += size
        self._live_total += size
        for slot, more in sizes.items():
            known = self._live.get(slot)
            if known is None:
                self._oldest[slot] = number
                self._holders.setdefault(number, set()).add(slot)
            self._live[slot] = (known or 0) + more
        self._advance()

    def forgotten(self, slot: int) -> None:
        """The generation of this slot is not open any more."""
        number = self._oldest.pop(slot, None)
        if number is not None:
            self._live_total -= self._live.pop(slot)
            holders = self._holders[number]
            holders.discard(slot)
            if not holders:
                del self._holders[number]
                self._advance()

    def _advance(self) -> None:
        # The last batch stays: by its number one sees whether the database was set back.
        while len(self._sizes) > 1 and self._sizes[0][0] not in self._holders:
            self._total -= self._sizes.popleft()[1]
        self.low = self._sizes[0][0] if self._sizes else self.low

    @property
    def due(self) -> bool:
        """Whether there is something to delete, or to write again."""
        return self.low > self.done or self.crowded > 0

    @property
    def crowded(self) -> int:
        """Up to which number live records are to be written again; 0: there is no need."""
        if self._total <= max(self._keep, _LIVE * self._live_total):
            return 0
        size = last = 0
        for number, one in self._sizes:
            if size and size + one > self._copy:
                break
            size, last = size + one, number
        return last if last < self._sizes[-1][0] else 0

    def live(self, slot: int) -> bool:
        """Whether the generation of a slot is open."""
        return slot in self._oldest

    def moved(self, last: int, number: int, sizes: Mapping[int, int]) -> None:
        """What is live in the batches up to `last` was written again, as the batch `number`."""
        size = sum(sizes.values())
        self._sizes.append((number, size))
        self._total += size
        later = next(one for one, _ in self._sizes if one > last)
        for holder in [one for one in self._holders if one <= last]:
            for slot in self._holders.pop(holder):
                self._oldest[slot] = later  # or a later one; the next round finds out
                self._holders.setdefault(later, set()).add(slot)
        self._advance()

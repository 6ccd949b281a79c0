"""When Python looks for garbage that refers to itself.

What is not in a cycle is freed at once, by its count of references. For cycles CPython looks
through all containers that were made lately (generations 0 and 1), and, where many have been added,
through every one there is (generation 2). That last kind takes a time that grows with all that the
server holds: 250 ms and more were seen with 5,000 requests, in which no token was sent.

Requests as the tests make them leave no cycle, so little is expected to be found. What is there
after the start is set apart (`gc.freeze`), and the rest is looked through only when nobody waits
for a token, or when the process has grown so much that there may be garbage. Growth is measured
from the last look, so a process that only grows is looked through ever less often.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

#: Containers that are made between two looks at the young ones, and looks at those until one at the
#: middle ones. Such a look goes through 14,000 containers at most (seen with CPython 3.11).
_YOUNG, _MIDDLE = 2_000, 5
#: The same for looks at all: they are begun here.
_NEVER = 1 << 30
#: Looks at the middle ones after which an idle server looks at all.
_WORTH = 20
#: Bytes by which the process has grown since the last look at all, at least, before one in the
#: midst of work; and the part of what it took then.
_GROWN, _PART = 128 << 20, 0.5


class Garbage:
    """Decides when all containers are looked through."""

    def __init__(self) -> None:
        self._resident = 0  # bytes that the process took after the last look at all
        self._idle = False

    def __repr__(self) -> str:
        return f"<Garbage last collected at {self._resident:,} bytes>"

    @contextlib.contextmanager
    def sparing(self) -> Iterator[None]:
        """From the end of the start on: no look at all begins by itself, in this process."""
        before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
        try:
            yield
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()

    def look(self, resident: int, *, idle: bool) -> bool:
        """Collect all garbage if it is time for that; whether it was. Call it twice a second.

        Args:
            resident: bytes that the process takes.
            idle: whether nobody waits for a token.
        """
        settled, self._idle = idle and self._idle, idle
        self._resident = self._resident or resident
        grown = resident - self._resident
        if settled:
            due = gc.get_count()[2] >= _WORTH
        else:
            due = grown > max(_GROWN, _PART * self._resident)
        if due:
            self.collect(resident)
        return due

    def collect(self, resident: int) -> None:
        """Collect all garbage now, where the process takes so many bytes."""
        gc.collect()
        self._resident = resident

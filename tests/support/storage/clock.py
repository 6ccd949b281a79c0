"""A wall clock for stores."""

from __future__ import annotations

from tests.support.storage.records import SECOND, START


class Clock:
    """A wall clock that somebody sets."""

    def __init__(self, now: int = START + 100 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

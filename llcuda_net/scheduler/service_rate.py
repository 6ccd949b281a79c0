"""How fast a queue moves, measured, and so how long somebody in it still waits."""

from __future__ import annotations

from collections import deque

#: How many moves are remembered.
_MOVES = 32
#: From how few moves nothing is concluded.
_FEWEST = 2


class ServiceRate:
    """The pace of one model's queue: the mean time from one that gets a slot to the next."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_MOVES)
        self._since: float | None = None

    def waits(self, now: float) -> None:
        """Somebody waits: from now on it can be seen how fast it moves."""
        if self._since is None:
            self._since = now

    def moved(self, now: float) -> None:
        """Somebody who waited has got a slot."""
        if self._since is not None:
            self._intervals.append(now - self._since)
            self._since = now

    def empty(self) -> None:
        """Nobody waits any more."""
        self._since = None

    def wait(self, position: int, now: float) -> float | None:
        """Seconds until the one at this position has a slot, or None while that is not known."""
        moves = len(self._intervals)
        if moves < _FEWEST:
            return None
        total = sum(self._intervals)
        standing = 0.0 if self._since is None else now - self._since
        # A queue that has come to a stop is slower than it was.
        return position * max(total / moves, (total + standing) / (moves + 1))

"""A circuit breaker: whether work may be given to an upstream, by how it has done so far.

    closed --tripped, as after some failures in a row--> open --its pause is over--> half open
    half open --success--> closed;  half open --tripped--> open, for twice as long

M. Nygard, "Release It!" (2nd edition, 2018), chapter 5. No I/O; the clock is trio's.
"""

from __future__ import annotations

import random
from enum import StrEnum

import trio

#: Failures in a row that open it.
THRESHOLD = 3
#: Seconds for which it stays open at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class State(StrEnum):
    """Whether work may be given: CLOSED yes, OPEN no, HALF_OPEN one attempt that decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """The circuit breaker of one upstream.

    Attributes:
        state: see State.
        reason: why it is not closed.
        retry_at: while it is open: when it may be half open, on trio's clock.
    """

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.reason = ""
        self.retry_at = 0.0
        self._pause = FIRST_PAUSE
        self._failures = 0

    def __repr__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"<CircuitBreaker {self.state.name}{why}, {self._failures} failures in a row>"

    @property
    def closed(self) -> bool:
        """Whether work may be given."""
        return self.state is State.CLOSED

    def record_success(self) -> None:
        """The upstream has done what was asked of it."""
        self.state = State.CLOSED
        self.reason = ""
        self._pause = FIRST_PAUSE
        self._failures = 0

    def record_failure(self) -> bool:
        """The upstream failed, perhaps by the request's fault; whether that is too often by now."""
        self._failures += 1
        return self._failures >= THRESHOLD

    def trip(self, reason: str, until: float = 0.0) -> None:
        """The upstream failed in a way that leaves no doubt.

        Args:
            until: before which it asked not to be probed, on trio's clock.
        """
        if self.state is State.OPEN:
            return  # others learn of the same failure
        self.state = State.OPEN
        self.reason = reason
        # Jitter: several servers in front of one upstream must not all come back at once.
        pause = self._pause * random.uniform(0.75, 1.25)
        self.retry_at = max(trio.current_time() + pause, until)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def retry_now(self) -> None:
        """Half open without a pause: there is reason to think that the upstream is back."""
        self.retry_at = trio.current_time()
        self._pause = FIRST_PAUSE

    def probe(self) -> None:
        """The pause is over: one attempt decides."""
        self.state = State.HALF_OPEN

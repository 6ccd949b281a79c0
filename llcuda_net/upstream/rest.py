"""The rest of an upstream that answers that it takes no more for now (429, 503 with Retry-After).

It has not failed: it stays up, and gets no work before the time that it named. Where it named
none, rests grow like those of a circuit breaker, until it has done something. No I/O; the clock is
trio's.
"""

from __future__ import annotations

import random

import trio

#: Seconds of a rest for which no time was named: at first, and at most.
FIRST_REST, LONGEST_REST = 1.0, 15.0
#: The least rest: some servers name 0 seconds.
LEAST_REST = 0.1


class Rest:
    """Whether an upstream rests.

    Attributes:
        until: its end, on trio's clock; 0: it does not rest.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self._next = FIRST_REST

    def __repr__(self) -> str:
        return f"<Rest: {self.left:.1f} s left>"

    @property
    def left(self) -> float:
        """Seconds until its end; 0 where it does not rest."""
        return max(0.0, self.until - trio.current_time())

    def begin(self, seconds: float | None) -> None:
        """It takes no more.

        Args:
            seconds: after which it wants to be asked again; None: it does not say.
        """
        if seconds is None:
            # Jitter: several servers in front of one upstream must not all come back at once.
            seconds = self._next * random.uniform(0.75, 1.25)
            self._next = min(2 * self._next, LONGEST_REST)
        self.until = max(self.until, trio.current_time() + max(seconds, LEAST_REST))

    def record_success(self) -> None:
        """It has done something: the next rest is short again."""
        self._next = FIRST_REST

    def over(self) -> bool:
        """Whether it has ended since this was last asked."""
        ended = 0 < self.until <= trio.current_time()
        if ended:
            self.until = 0.0
        return ended

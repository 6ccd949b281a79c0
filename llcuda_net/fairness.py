"""Whose turn it is: virtual token counters. Arithmetic only; it knows no clock and no event loop.

Each user has a counter of the tokens served to them, divided by their weight, and the one with the
lowest is served next: the Virtual Token Counter of Sheng et al., "Fairness in Serving Large
Language Models" (OSDI 2024). What somebody did not ask for they cannot ask for later, and what they
had while nobody else wanted it is not held against them: whoever begins to compete is lifted to the
virtual time of start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM
1996), which is the counter of the request that is served, or would be, now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: Tokens by which somebody's counter may lag behind those served, while their own work has no
#: place: enough that they get what they missed where others had no better claim, and not so
#: much that an upstream which was away for an hour is theirs for the next.
CREDIT = 16384.0


class Share:
    """One user's part in what a lane serves.

    What runs is counted as it stands when the counter is read, so that nothing needs to be done
    for each token.

    Attributes:
        weight: tokens count for less the greater it is.
        competing: whether the user had work that they may begin, when that was last looked at.
    """

    __slots__ = ("_running", "_settled", "competing", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.competing = False
        self._settled = 0.0
        self._running: dict[object, Callable[[], float]] = {}

    @property
    def running(self) -> int:
        """How much is counted as it stands."""
        return len(self._running)

    def counter(self) -> float:
        """Tokens served and being served, divided by the weight."""
        if not self._running:
            return self._settled
        return self._settled + sum(cost() for cost in self._running.values()) / self.weight

    def begin(self, work: object, cost: Callable[[], float]) -> None:
        """Count something that runs now, with what it has cost when asked."""
        self._running[work] = cost

    def settle(self, work: object, cost: float) -> None:
        """Count what it did cost, now that it is over."""
        del self._running[work]
        self._settled += cost / self.weight

    def lift(self, least: float) -> None:
        """Let nothing below `least` be said of the counter."""
        counter = self.counter()
        if counter < least:
            self._settled += least - counter


class Lane:
    """Those who compete: one model's requests of one priority class.

    Attributes:
        now: the virtual time when it was last looked at.
    """

    __slots__ = ("_served", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._served = 0.0

    def compete(self, shares: Iterable[tuple[Share, bool]]) -> None:
        """See who competes, and lift those who did not until now.

        Args:
            shares: those with work that waits, and whether they may begin any.
        """
        new = []
        lowest = None
        for share, may in shares:
            if not may:
                share.competing = False
            elif not share.competing:
                new.append(share)
            else:
                counter = share.counter()
                if lowest is None or counter < lowest:
                    lowest = counter
        self.now = self._served if lowest is None else lowest
        for share in new:
            share.lift(self.now)
            share.competing = True

    def serve(self, share: Share, passed: Iterable[Share]) -> None:
        """Something of this share begins now.

        Args:
            passed: those who were to be served before, but had nothing for which there was a place.
        """
        self._served = share.counter()
        for other in passed:
            other.lift(self._served - CREDIT)

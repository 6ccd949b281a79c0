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


class FlowCounter:
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
        self._running: dict[object, tuple[Callable[[], float], float]] = {}

    @property
    def running(self) -> int:
        """How much is counted as it stands."""
        return len(self._running)

    def served(self) -> float:
        """Tokens served up to now, divided by the weight."""
        if not self._running:
            return self._settled
        used = sum(used() for used, _ in self._running.values())
        return self._settled + used / self.weight

    def counter(self) -> float:
        """The same, with what is still expected of what runs: who has the lowest is next."""
        if not self._running:
            return self._settled
        used = sum(max(used(), expected) for used, expected in self._running.values())
        return self._settled + used / self.weight

    def begin(self, work: object, used: Callable[[], float], expected: float) -> None:
        """Count something that runs now.

        Args:
            used: tells the tokens that it has used.
            expected: how many it is going to use.
        """
        self._running[work] = used, expected

    def settle(self, work: object, used: float) -> None:
        """Count what it has used, now that it is over."""
        del self._running[work]
        self._settled += used / self.weight

    def lift(self, least: float) -> None:
        """Have at least so much served."""
        served = self.served()
        if served < least:
            self._settled += least - served


class VirtualClock:
    """Those who compete: one model's requests of one priority class.

    Attributes:
        now: the virtual time when it was last looked at.
    """

    __slots__ = ("_running", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._running: set[FlowCounter] = set()

    def compete(self, shares: Iterable[tuple[FlowCounter, bool]]) -> None:
        """See who competes, and lift those who did not until now.

        The virtual time is what was served to the one of whom that is the least: of those who
        compete already, or where there are none, of those of whom something runs. What is only
        expected is left out: a guess that was too high would be a debt of whoever comes.

        Args:
            shares: those with work that waits, and whether they may begin any.
        """
        new = []
        old = []
        for usage, may in shares:
            if not may:
                usage.competing = False
            elif usage.competing:
                old.append(usage)
            else:
                new.append(usage)
        self.now = min((usage.served() for usage in old or self._running), default=self.now)
        for usage in new:
            usage.lift(self.now)
            usage.competing = True

    def begin(
        self,
        usage: FlowCounter,
        work: object,
        used: Callable[[], float],
        expected: float,
        passed: Iterable[FlowCounter] = (),
    ) -> None:
        """Something of this share begins now.

        Args:
            passed: those who were to be served before, but had nothing for which there was a place.
        """
        for other in passed:
            other.lift(usage.served() - CREDIT)
        usage.begin(work, used, expected)
        self._running.add(usage)

    def settle(self, usage: FlowCounter, work: object, used: float) -> None:
        """Something of this share is over, and has used so many tokens."""
        usage.settle(work, used)
        if not usage.running:
            self._running.discard(usage)

"""Fair sharing by virtual token counters. Arithmetic only: no clock, no event loop.

Theory. Each user has a counter of the tokens served to them, divided by their weight, and the user
with the lowest counter is served next: the Virtual Token Counter of Sheng et al., "Fairness in
Serving Large Language Models" (OSDI 2024). Two users who both always have work then differ by at
most about one request per slot, whatever the lengths of their prompts and answers. A counter alone
would remember too much: a user who was away for an hour would come back with the lowest counter and
take every slot for the next hour. So whoever begins to compete is raised to the virtual time of
start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996): the
counter of the request that is in service, or would be, now. What users did not ask for, they cannot
claim later; what they had while nobody else competed is not held against them, since the others are
raised to it. A request that runs is counted with the tokens that it has used, or with those that it
is expected to use where that is more, so that a user with many short queued requests cannot fill
all slots before the first token is made. The expectation is for ranking only: the virtual time is
made of tokens that were really served.

In a cluster, each server has counters of its own for its own slots, and hears now and then what the
others have served. That counts like what was served here, for those who compete or run here, so
that who has much elsewhere gets less here. It puts nobody further behind than CREDIT: what a user
had elsewhere for an hour, while nobody else wanted it, is not to be paid here for an hour. The
bound that follows from this is in docs/cluster.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

#: Tokens by which a counter may lag behind those served, while no upstream has a place for its
#: user's work: enough to make up for what they missed where others had no better claim, and not
#: so much that an upstream which was away for an hour is theirs for the next. Also how far ahead
#: of the virtual time what was served elsewhere may put a counter.
CREDIT = 16384.0


class FlowCounter:
    """The tokens served to one flow, divided by its weight.

    What runs is counted when the counter is read, so that nothing has to be done for each token.

    Attributes:
        weight: tokens count for less the greater it is.
        competing: whether the flow had work that might start, at the last `VirtualClock.update`.
    """

    __slots__ = ("_finished", "_running", "competing", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.competing = False
        self._finished = 0.0
        self._running: dict[object, tuple[Callable[[], float], float]] = {}

    def __repr__(self) -> str:
        return (
            f"<FlowCounter {self.served():.0f} served, {self.running} running, "
            f"weight {self.weight:g}{', competing' if self.competing else ''}>"
        )

    @property
    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    def served(self) -> float:
        """Tokens served up to now, divided by the weight."""
        if not self._running:
            return self._finished
        used = sum(used() for used, _ in self._running.values())
        return self._finished + used / self.weight

    def projected(self) -> float:
        """Tokens served and those expected of what runs, divided by the weight."""
        if not self._running:
            return self._finished
        used = sum(max(used(), expected) for used, expected in self._running.values())
        return self._finished + used / self.weight

    def start(self, work: object, used: Callable[[], float], expected: float) -> None:
        """Count something that runs from now on.

        Args:
            used: returns the tokens that it has used.
            expected: how many it is expected to use.
        """
        self._running[work] = used, expected

    def finish(self, work: object, used: float) -> None:
        """Count what it has used, now that it runs no more."""
        del self._running[work]
        self._finished += used / self.weight

    def add_elsewhere(self, tokens: float, most: float) -> None:
        """Count tokens that other servers have served, while `served` is less than `most`."""
        self._finished += max(0.0, min(tokens / self.weight, most - self.served()))

    def raise_to(self, least: float) -> None:
        """Set `served` to at least this."""
        if not self._running:
            self._finished = max(self._finished, least)
            return
        served = self.served()
        if served < least:
            self._finished += least - served


class VirtualClock:
    """The virtual time of those who compete: one model's requests of one priority class.

    Attributes:
        now: the virtual time at the last `update`.
    """

    __slots__ = ("_running", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._running: set[FlowCounter] = set()

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.now:.0f}, {len(self._running)} flows running>"

    def update(self, waiting: Iterable[tuple[FlowCounter, bool]], others: float = math.inf) -> None:
        """Set who competes, and raise those who did not until now to the virtual time.

        The virtual time is the least that was served to any of those who compete already, or,
        where there are none, to any of those of whom something runs. What is only expected is left
        out: too high a guess would be a debt of whoever comes.

        Args:
            waiting: the counters with work that waits, each with whether any of it may start.
            others: the least that was served to those who compete already and are not among
                these; infinity where there are none.
        """
        new = []
        old = []
        for counter, may_start in waiting:
            if not may_start:
                counter.competing = False
            elif counter.competing:
                old.append(counter)
            else:
                new.append(counter)
        if others < math.inf or old:
            self.now = min((counter.served() for counter in old), default=others)
            self.now = min(self.now, others)
        else:
            self.now = min((counter.served() for counter in self._running), default=self.now)
        for counter in new:
            counter.raise_to(self.now)
            counter.competing = True

    def enter(self, counter: FlowCounter) -> None:
        """Raise a counter to the virtual time whose work starts at once, while nobody waits."""
        if any(other is not counter for other in self._running):  # alone it is that time
            self.now = min(other.served() for other in self._running)
            counter.raise_to(self.now)

    def start(
        self,
        counter: FlowCounter,
        work: object,
        used: Callable[[], float],
        expected: float,
        passed_over: Iterable[FlowCounter] = (),
    ) -> None:
        """Count something of this counter that runs from now on.

        Args:
            passed_over: those ranked before it who had nothing for which there was a place. Their
                lag is bounded by CREDIT.
        """
        for other in passed_over:
            other.raise_to(counter.served() - CREDIT)
        counter.start(work, used, expected)
        self._running.add(counter)

    def finish(self, counter: FlowCounter, work: object, used: float) -> None:
        """Count what it has used, now that it runs no more."""
        counter.finish(work, used)
        if not counter.running:
            self._running.discard(counter)

"""The tickets that wait for one model in one class: a flow per user, and the flows' order.

Theory. Most flows that wait are of users who run nothing. Their rank stands still, since no token
moves their counter: such a flow is *settled*. Each kind has a list of them, sorted by rank, so the
next one is the first, and a change is found by bisection. A flow whose user runs something, or that
has just changed, is *live*: its rank is computed at each look. A flow whose user runs nothing and
may not start *rests* until the user's bucket has filled again. So a look costs as much as there is
in use, not as much as there is in the queue.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Container
from typing import NamedTuple

from llcuda_net.scheduler.fair_share import CREDIT, FlowCounter, VirtualClock
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Ticket, by_number

#: Most settled flows whose lag is bounded at one start. The others follow at the next ones.
_MOST_RAISED = 64

#: A flow's rank: the lowest is served next.
Rank = tuple[float, int, int]


class Flow:
    """One user's tickets for one model and class, oldest first, and the user's counter there.

    Attributes:
        counter: tokens served to this flow.
        tickets: those that wait, oldest first.
        oldest: the oldest ticket of each kind, and since when it is that.
        settled: its entries in its class's sorted lists, by kind; empty: it is in none.
        rests: its entry among those that rest; None: it is not there.
    """

    def __init__(self, quota: UserQuota, priority_class: PriorityClass) -> None:
        self.quota = quota
        self.priority_class = priority_class
        self.counter = FlowCounter(quota.user.weight)
        self.tickets: list[Ticket] = []
        self.oldest: dict[Kind, tuple[Ticket, float]] = {}
        self.settled: dict[Kind, _Entry] = {}
        self.rests: _Entry | None = None
        self._by_kind: dict[Kind, list[Ticket]] = {}

    def __repr__(self) -> str:
        return (
            f"<Flow of {self.quota.user.name!r}: {len(self.tickets)} waiting, "
            f"{self.counter.running} running, {self.lead():.0f} tokens ahead>"
        )

    def add(self, ticket: Ticket, now: float) -> None:
        """Add a ticket that waits."""
        self.counter.weight = self.quota.user.weight
        bisect.insort(self.tickets, ticket, key=by_number)
        alike = self._by_kind.setdefault(ticket.kind, [])
        bisect.insort(alike, ticket, key=by_number)
        if alike[0] is ticket:
            self.oldest[ticket.kind] = ticket, now

    def remove(self, ticket: Ticket, now: float) -> None:
        """Remove a ticket that waits no more."""
        alike = self._by_kind[ticket.kind]
        for tickets in (self.tickets, alike):
            del tickets[bisect.bisect_left(tickets, ticket.number, key=by_number)]
        if not alike:
            del self._by_kind[ticket.kind], self.oldest[ticket.kind]
        elif self.oldest[ticket.kind][0] is ticket:
            self.oldest[ticket.kind] = alike[0], now
        if not self.tickets:
            self.counter.competing = False

    def head(self, kinds: Container[Kind]) -> Ticket | None:
        """The oldest ticket of these kinds."""
        found = None
        for kind, (ticket, _) in self.oldest.items():
            if kind in kinds and (found is None or ticket.number < found.number):
                found = ticket
        return found

    def rank(self, ticket: Ticket) -> Rank:
        """A ticket's rank among its class: the lowest is served next."""
        return self.lead(), len(self.quota.running), ticket.number

    def lead(self) -> float:
        """Weighted tokens by which the counter is ahead of the virtual time."""
        # Rounded, so that those who were raised to the same time are even.
        return round(self.counter.projected() - self.priority_class.clock.now, 6)


class _Entry(NamedTuple):
    """A flow in a sorted list. No two have the same number, so flows are never compared."""

    at: float
    number: int
    flow: Flow


class Head(NamedTuple):
    """The ticket of a class that is served next."""

    rank: Rank
    ticket: Ticket
    flow: Flow


class PriorityClass:
    """One model's tickets of one class: the flows of those that wait or run.

    Attributes:
        clock: the virtual time of its flows.
        waiting: the flows with tickets that wait, by user.
        kinds: how many wait of each kind.
        held_back: kinds of which none was served while better classes waited, and since when.
        running: how many of its tickets run.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.waiting: dict[str, Flow] = {}
        self.kinds: Counter[Kind] = Counter()
        self.held_back: dict[Kind, float] = {}
        self.running = 0
        self._flows: dict[str, Flow] = {}
        self._live: dict[Flow, None] = {}
        self._settled: dict[Kind, list[_Entry]] = {}
        self._resting: list[_Entry] = []

    def __repr__(self) -> str:
        return (
            f"<PriorityClass {self.queued} waiting of {len(self.waiting)} users, "
            f"{self.running} running, {len(self.held_back)} kinds held back>"
        )

    @property
    def queued(self) -> int:
        """How many wait."""
        return self.kinds.total()

    def flow(self, quota: UserQuota) -> Flow:
        """A user's flow."""
        name = quota.user.name
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = Flow(quota, self)
        return flow

    def forget(self) -> None:
        """Forget all flows: nobody waits or runs here. Each refers to its class, so to itself."""
        self._flows.clear()

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """Add a ticket that waits."""
        flow = self.waiting[quota.user.name] = self.flow(quota)
        self._unsettle(flow)
        flow.add(ticket, now)
        self.kinds[ticket.kind] += 1

    def remove(self, ticket: Ticket, now: float) -> None:
        """Remove a ticket that waits no more."""
        name = ticket.slot_request.user.name
        flow = self.waiting[name]
        self._unsettle(flow)
        flow.remove(ticket, now)
        if not flow.tickets:
            del self.waiting[name], self._live[flow]
        self.kinds[ticket.kind] -= 1
        if not self.kinds[ticket.kind]:
            del self.kinds[ticket.kind]
            self.held_back.pop(ticket.kind, None)

    # -- the order of the flows -------------------------------------------------------------------

    def changed(self, name: str) -> None:
        """A user's limits have changed, or what they run: look at their flow again."""
        flow = self.waiting.get(name)
        if flow is not None:
            self._unsettle(flow)

    def served_elsewhere(self, name: str, tokens: float) -> None:
        """Other servers have served a user's requests of this model and class."""
        flow = self._flows.get(name)
        if flow is None or not (flow.counter.competing or flow.counter.running):
            return  # what nobody here had to wait for is nobody's debt
        self.changed(name)
        flow.counter.add_elsewhere(tokens, self.clock.now + CREDIT)

    def update(self, now: float) -> None:
        """Update the virtual time, and who competes: flows whose users may start something."""
        while self._resting and self._resting[0].at <= now:
            self._unsettle(self._resting[0].flow)
        least = min(
            (entries[0].flow.counter.served() for entries in self._settled.values()),
            default=math.inf,
        )
        self.clock.update([(flow.counter, flow.quota.may_start(now)) for flow in self._live], least)
        for flow in [flow for flow in self._live if not flow.quota.running]:
            self._settle(flow, now)

    def head(self, kinds: Container[Kind], now: float) -> Head | None:
        """The ticket of these kinds that is served next, of those that may start."""
        best = None
        for kind, entries in self._settled.items():
            if kind in kinds:
                served, number, flow = entries[0]
                rank = round(served - self.clock.now, 6), 0, number
                if best is None or rank < best.rank:
                    best = Head(rank, flow.oldest[kind][0], flow)
        for flow in self._live:
            ticket = flow.head(kinds)
            if ticket is not None and flow.counter.competing and flow.quota.may_start(now):
                rank = flow.rank(ticket)
                if best is None or rank < best.rank:
                    best = Head(rank, ticket, flow)
        return best

    def passed_over(self, head: Head, kinds: Container[Kind]) -> list[FlowCounter]:
        """The counters of those ranked before `head` that have nothing of these kinds.

        Of settled flows only some of those that lag by more than their credit, which is bounded.
        """
        found = [
            flow
            for flow in self._live
            if flow.counter.competing
            and flow.head(kinds) is None
            and flow.rank(flow.tickets[0]) < head.rank
        ]
        least = head.flow.counter.served() - CREDIT
        closed = [entries for kind, entries in self._settled.items() if kind not in kinds]
        for entries in closed:
            while entries and entries[0].at < least and len(found) < _MOST_RAISED:
                found.append(entries[0].flow)
                self._unsettle(entries[0].flow)
        return [flow.counter for flow in found]

    def refilled_at(self, now: float) -> float:
        """When somebody may start whom the tokens per minute keep from it now."""
        resting = self._resting[0].at if self._resting else math.inf
        times = (flow.quota.refilled_at(now) for flow in self._live)
        return min((at for at in times if at > now), default=resting)

    def _settle(self, flow: Flow, now: float) -> None:
        """Put a flow whose user runs nothing where it stays until something changes."""
        del self._live[flow]
        if flow.counter.competing:
            served = round(flow.counter.served(), 6)
            for kind, (ticket, _) in flow.oldest.items():
                entry = flow.settled[kind] = _Entry(served, ticket.number, flow)
                bisect.insort(self._settled.setdefault(kind, []), entry)
        else:
            at = flow.quota.refilled_at(now)
            flow.rests = _Entry(at if at > now else math.inf, flow.tickets[0].number, flow)
            bisect.insort(self._resting, flow.rests)

    def _unsettle(self, flow: Flow) -> None:
        """Look at a flow each time from now on."""
        for kind, entry in flow.settled.items():
            entries = self._settled[kind]
            del entries[bisect.bisect_left(entries, entry)]
            if not entries:
                del self._settled[kind]
        flow.settled.clear()
        if flow.rests is not None:
            del self._resting[bisect.bisect_left(self._resting, flow.rests)]
            flow.rests = None
        self._live[flow] = None

"""The tickets that wait for one model in one class: a flow per user, and the flows' order."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Container

from llcuda_net.scheduler.fair_share import FlowCounter, VirtualClock
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Ticket, by_number


class Flow:
    """One user's tickets for one model and class, oldest first, and the user's counter there.

    Attributes:
        counter: tokens served to this flow.
        tickets: those that wait, oldest first.
        oldest: the oldest ticket of each kind, and since when it is that.
    """

    def __init__(self, quota: UserQuota, priority_class: PriorityClass) -> None:
        self.quota = quota
        self.priority_class = priority_class
        self.counter = FlowCounter(quota.user.weight)
        self.tickets: list[Ticket] = []
        self.oldest: dict[Kind, tuple[Ticket, float]] = {}
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

    def rank(self, ticket: Ticket) -> tuple[float, int, int]:
        """A ticket's rank among its class: the lowest is served next."""
        return self.lead(), len(self.quota.running), ticket.number

    def lead(self) -> float:
        """Weighted tokens by which the counter is ahead of the virtual time."""
        # Rounded, so that those who were raised to the same time are even.
        return round(self.counter.projected() - self.priority_class.clock.now, 6)

    def forecast(self) -> Forecast:
        """The ranks at which its tickets will be served, if all goes on as it does now."""
        return Forecast(self)


class Forecast:
    """The rank that each ticket of a flow will have when its turn comes."""

    __slots__ = ("_blocked", "_cost", "_lead", "_running", "_tickets")

    def __init__(self, flow: Flow) -> None:
        self._tickets = flow.tickets
        self._running = len(flow.quota.running)
        # Those at their limits come after those who are not.
        self._blocked = not flow.counter.competing
        self._lead = flow.lead()
        first = flow.tickets[0]
        expected = flow.quota.expected_tokens(first.slot_request.most_tokens)
        self._cost = first.expected_use(expected) / flow.counter.weight

    def rank(self, index: int) -> tuple[bool, float, int, int]:
        """The rank of the flow's ticket at `index`: the lowest is served next."""
        lead = self._lead + index * self._cost
        return self._blocked, lead, self._running + index, self._tickets[index].number

    def before(self, rank: tuple[bool, float, int, int]) -> int:
        """How many of the flow's tickets will be served before one of this rank."""
        return bisect.bisect_left(range(len(self._tickets)), rank, key=self.rank)


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

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """Add a ticket that waits."""
        flow = self.waiting[quota.user.name] = self.flow(quota)
        flow.add(ticket, now)
        self.kinds[ticket.kind] += 1

    def remove(self, ticket: Ticket, now: float) -> None:
        """Remove a ticket that waits no more."""
        name = ticket.slot_request.user.name
        flow = self.waiting[name]
        flow.remove(ticket, now)
        if not flow.tickets:
            del self.waiting[name]
        self.kinds[ticket.kind] -= 1
        if not self.kinds[ticket.kind]:
            del self.kinds[ticket.kind]
            self.held_back.pop(ticket.kind, None)

    def competing(self, now: float) -> list[Flow]:
        """Update the virtual time; returns the flows whose users may start something."""
        flows = self.waiting.values()
        self.clock.update((flow.counter, flow.quota.may_start(now)) for flow in flows)
        return [flow for flow in flows if flow.counter.competing]

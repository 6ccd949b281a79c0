"""The places of those who wait for one model in one class, user by user."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Container

from llcuda_net.scheduler.fair_share import FlowCounter, VirtualClock
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Ticket


def number(ticket: Ticket) -> int:
    """What tickets are sorted by: the oldest first."""
    return ticket.number


class Flow:
    """One user's tickets for one model and class, oldest first, and their share there.

    Attributes:
        first: the oldest of each kind, and since when it is that.
    """

    def __init__(self, quota: UserQuota, row: PriorityClass) -> None:
        self.quota = quota
        self.row = row
        self.usage = FlowCounter(quota.user.weight)
        self.tickets: list[Ticket] = []
        self.first: dict[Kind, tuple[Ticket, float]] = {}
        self._kinds: dict[Kind, list[Ticket]] = {}

    def add(self, ticket: Ticket, now: float) -> None:
        """One more waits."""
        self.usage.weight = self.quota.user.weight
        bisect.insort(self.tickets, ticket, key=number)
        alike = self._kinds.setdefault(ticket.kind, [])
        bisect.insort(alike, ticket, key=number)
        if alike[0] is ticket:
            self.first[ticket.kind] = ticket, now

    def remove(self, ticket: Ticket, now: float) -> None:
        """One waits no more."""
        alike = self._kinds[ticket.kind]
        for tickets in (self.tickets, alike):
            del tickets[bisect.bisect_left(tickets, ticket.number, key=number)]
        if not alike:
            del self._kinds[ticket.kind], self.first[ticket.kind]
        elif self.first[ticket.kind][0] is ticket:
            self.first[ticket.kind] = alike[0], now
        if not self.tickets:
            self.usage.competing = False

    def head(self, kinds: Container[Kind]) -> Ticket | None:
        """The oldest of these kinds."""
        found = None
        for kind, (ticket, _) in self.first.items():
            if kind in kinds and (found is None or ticket.number < found.number):
                found = ticket
        return found

    def rank(self, ticket: Ticket) -> tuple[float, int, int]:
        """Where it stands among its class: the lowest is served next."""
        return self.lead(), len(self.quota.running), ticket.number

    def lead(self) -> float:
        """How far the user's counter is before the virtual time."""
        # Rounded, so that those who were lifted to the same are even.
        return round(self.usage.counter() - self.row.clock.now, 6)

    def plan(self) -> Plan:
        """How its tickets will be served, as far as can be told now."""
        return Plan(self)


class Plan:
    """When each ticket of a seat will be served, if all goes on as it does now."""

    __slots__ = ("_blocked", "_cost", "_lead", "_running", "_tickets")

    def __init__(self, flow: Flow) -> None:
        self._tickets = flow.tickets
        self._running = len(flow.quota.running)
        # Those at their limits come after those who are not.
        self._blocked = not flow.usage.competing
        self._lead = flow.lead()
        first = flow.tickets[0]
        expected = flow.quota.expected(first.slot_request.most_tokens)
        self._cost = first.will_use(expected) / flow.usage.weight

    def rank(self, index: int) -> tuple[bool, float, int, int]:
        """Where the ticket at `index` of the seat will stand: the lowest is served next."""
        lead = self._lead + index * self._cost
        return self._blocked, lead, self._running + index, self._tickets[index].number

    def before(self, rank: tuple[bool, float, int, int]) -> int:
        """How many of the seat's tickets will be served before one of this rank."""
        return bisect.bisect_left(range(len(self._tickets)), rank, key=self.rank)


class PriorityClass:
    """One model's tickets of one class: those who wait, and what runs of theirs.

    Attributes:
        kinds: how many wait of each kind.
        held: kinds of which none was served although better classes waited, and since when.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.waiting: dict[str, Flow] = {}
        self.kinds: Counter[Kind] = Counter()
        self.held: dict[Kind, float] = {}
        self.running = 0
        self._flows: dict[str, Flow] = {}

    @property
    def queued(self) -> int:
        """How many wait."""
        return self.kinds.total()

    def flow(self, quota: UserQuota) -> Flow:
        """A user's seat."""
        name = quota.user.name
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = Flow(quota, self)
        return flow

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """One more waits."""
        flow = self.waiting[quota.user.name] = self.flow(quota)
        flow.add(ticket, now)
        self.kinds[ticket.kind] += 1

    def remove(self, ticket: Ticket, now: float) -> None:
        """One waits no more."""
        name = ticket.slot_request.user.name
        flow = self.waiting[name]
        flow.remove(ticket, now)
        if not flow.tickets:
            del self.waiting[name]
        self.kinds[ticket.kind] -= 1
        if not self.kinds[ticket.kind]:
            del self.kinds[ticket.kind]
            self.held.pop(ticket.kind, None)

    def compete(self, now: float) -> None:
        """See whose tickets may begin."""
        self.clock.compete(
            (flow.usage, flow.quota.may_begin(now)) for flow in self.waiting.values()
        )

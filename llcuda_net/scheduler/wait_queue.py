"""All who wait, by model and class; how waiting lifts into a better class; their order."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterator

from llcuda_net.config.users import Priority
from llcuda_net.scheduler.flows import Flow, PriorityClass, number
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Ticket


class PriorityClasses:
    """One model's rows, a class each, best first.

    A class that waits while a better one does is held back, and what it then has waited for long
    comes into the next better class. Not what waits for other reasons: if whatever is old came
    first, those who have much waiting would come before those who have little, which is what the
    fair order within a class is there to prevent. So it is but the oldest of a user's alike that
    rises, and the next not until that one is gone.
    """

    def __init__(self) -> None:
        self._rows = [PriorityClass() for _ in Priority]
        #: When something may have to rise, at the earliest.
        self._rise_at = math.inf
        self._risen: Counter[tuple[str, Kind]] = Counter()

    def __getitem__(self, priority: int) -> PriorityClass:
        return self._rows[priority]

    def __bool__(self) -> bool:
        return any(row.queued or row.running for row in self._rows)

    @property
    def rise_at(self) -> float:
        """When something may have to rise, at the earliest."""
        return self._rise_at if any(row.held for row in self._rows) else math.inf

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """One more waits."""
        row = self._rows[ticket.priority]
        row.add(ticket, quota, now)
        if ticket.risen:
            self._risen[quota.user.name, ticket.kind] += 1
        if any(better.queued for better in self._rows[: ticket.priority]):
            row.held.setdefault(ticket.kind, now)
        for worse in self._rows[ticket.priority + 1 :]:
            for kind in worse.kinds:
                worse.held.setdefault(kind, now)
        self._rise_at = min(self._rise_at, now)

    def remove(self, ticket: Ticket, now: float) -> None:
        """One waits no more."""
        self._rows[ticket.priority].remove(ticket, now)
        self._rise_at = min(self._rise_at, now)
        name = ticket.slot_request.user.name
        if ticket.risen:
            self._risen[name, ticket.kind] -= 1
            for row in self._rows:  # only from now on the next of theirs can rise
                flow = row.waiting.get(name)
                if flow is not None and ticket.kind in flow.first:
                    flow.first[ticket.kind] = flow.first[ticket.kind][0], now

    def serve(self, ticket: Ticket, now: float) -> None:
        """One waits no more, as it runs: what is like it is not held back, up to now."""
        self.remove(ticket, now)
        row = self._rows[ticket.priority]
        if row.held.pop(ticket.kind, None) is not None and any(
            better.queued for better in self._rows[: ticket.priority]
        ):
            row.held[ticket.kind] = now

    def tidy(self, priority: Priority) -> None:
        """Forget the counters of a class in which nobody waits or runs: all are even again."""
        row = self._rows[priority]
        if not row.queued and not row.running:
            self._rows[priority] = PriorityClass()

    def rise(self, now: float) -> None:
        """Have those come into a better class who were held back for long enough."""
        while self.rise_at <= now:
            self._rise_at = math.inf
            for row in self._rows[1:]:
                for ticket, quota, at in list(self._rising(row)):
                    if at <= now:
                        row.remove(ticket, now)
                        if ticket.risen:
                            self._risen[quota.user.name, ticket.kind] -= 1
                        self.tidy(ticket.priority)
                        ticket.priority = Priority(ticket.priority - 1)
                        self.add(ticket, quota, now)
                    else:
                        self._rise_at = min(self._rise_at, at)

    def _rising(self, row: PriorityClass) -> Iterator[tuple[Ticket, UserQuota, float]]:
        """Those who may rise from a row, and when."""
        for name, flow in row.waiting.items() if row.held else ():
            for kind, (ticket, since) in flow.first.items():
                if kind in row.held and (ticket.risen or not self._risen[name, kind]):
                    yield ticket, flow.quota, max(since, row.held[kind]) + ticket.step


class WaitQueue:
    """All who wait.

    Attributes:
        returned: those who had a slot and lost it; they come before all others.
        kinds: how many wait of each kind.
    """

    def __init__(self) -> None:
        self.returned: list[Ticket] = []
        self.kinds: Counter[Kind] = Counter()
        self._models: dict[str, PriorityClasses] = {}
        self._quotas: dict[Ticket, UserQuota] = {}

    def __len__(self) -> int:
        return len(self._quotas)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._quotas

    def empty(self, model: str) -> bool:
        """Whether nobody waits for a model."""
        return not any(kind[0] == model for kind in self.kinds)

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """One more waits."""
        self._quotas[ticket] = quota
        self.kinds[ticket.kind] += 1
        quota.queued += 1
        if ticket.returned:
            quota.returned += 1
            bisect.insort(self.returned, ticket, key=number)
        else:
            self._rows(ticket).add(ticket, quota, now)

    def remove(self, ticket: Ticket, now: float) -> None:
        """One waits no more, and will not run."""
        if not self._taken(ticket):
            self._rows(ticket).remove(ticket, now)
        self.tidy(ticket)

    def serve(self, ticket: Ticket, quota: UserQuota, now: float) -> Flow:
        """One waits no more, as it runs; the seat on which it is counted."""
        rows = self._rows(ticket)
        if not self._taken(ticket):
            rows.serve(ticket, now)
        flow = rows[ticket.priority].flow(quota)
        flow.row.running += 1
        return flow

    def _taken(self, ticket: Ticket) -> bool:
        """Take it from what is counted, and out of those who came back if it is there."""
        quota = self._quotas.pop(ticket)
        self.kinds[ticket.kind] -= 1
        if not self.kinds[ticket.kind]:
            del self.kinds[ticket.kind]
        quota.queued -= 1
        if ticket.returned:
            quota.returned -= 1
            del self.returned[bisect.bisect_left(self.returned, ticket.number, key=number)]
        return ticket.returned

    def tidy(self, ticket: Ticket) -> None:
        """Forget what need not be known of its model and class any more."""
        rows = self._rows(ticket)
        rows.tidy(ticket.priority)
        if not rows:
            del self._models[ticket.slot_request.model]

    def rise(self, now: float) -> None:
        """Have those come into a better class who were held back for long enough."""
        for rows in self._models.values():
            rows.rise(now)

    def next_rise(self) -> float:
        """When something may have to rise, at the earliest."""
        return min((rows.rise_at for rows in self._models.values()), default=math.inf)

    def flows(self, priority: Priority, now: float) -> list[Flow]:
        """Those seats of a class whose users may begin something."""
        found = []
        for rows in self._models.values():
            row = rows[priority]
            if row.waiting:
                row.compete(now)
                found += [flow for flow in row.waiting.values() if flow.usage.competing]
        return found

    def position(self, ticket: Ticket) -> int:
        """Where a ticket stands among those of its model, from 1."""
        model = ticket.slot_request.model
        ahead = sum(
            other.slot_request.model == model
            for other in self.returned
            if not ticket.returned or other.number < ticket.number
        )
        if ticket.returned:
            return ahead + 1
        rows = self._rows(ticket)
        ahead += sum(rows[better].queued for better in range(ticket.priority))
        row = rows[ticket.priority]
        flow = row.waiting[ticket.slot_request.user.name]
        index = bisect.bisect_left(flow.tickets, ticket.number, key=number)
        rank = flow.plan().rank(index)
        return ahead + 1 + sum(other.plan().before(rank) for other in row.waiting.values())

    def order(self) -> Iterator[Ticket]:
        """All, as they will be served if all goes on as it does now."""
        yield from self.returned.copy()
        for priority in Priority:
            ranked: list[tuple[tuple[bool, float, int, int], Ticket]] = []
            for rows in self._models.values():
                for flow in rows[priority].waiting.values():
                    places = range(len(flow.tickets))
                    ranked += zip(map(flow.plan().rank, places), flow.tickets, strict=True)
            ranked.sort(key=lambda entry: entry[0])
            yield from [ticket for _, ticket in ranked]

    def _rows(self, ticket: Ticket) -> PriorityClasses:
        rows = self._models.get(ticket.slot_request.model)
        if rows is None:
            rows = self._models[ticket.slot_request.model] = PriorityClasses()
        return rows

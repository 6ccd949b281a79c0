"""All tickets that wait, by model and class, and the order in which they will be served."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterator

from llcuda_net.config.users import Priority
from llcuda_net.scheduler.ageing import PriorityClasses
from llcuda_net.scheduler.flows import Flow
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Ticket, by_number


class WaitQueue:
    """All tickets that wait.

    Attributes:
        requeued: those that had a slot and lost it; they come before all others.
        kinds: how many wait of each kind.
    """

    def __init__(self) -> None:
        self.requeued: list[Ticket] = []
        self.kinds: Counter[Kind] = Counter()
        self._models: dict[str, PriorityClasses] = {}
        self._quotas: dict[Ticket, UserQuota] = {}

    def __repr__(self) -> str:
        models = len({model for model, _ in self.kinds})
        return f"<WaitQueue {len(self)} waiting, {len(self.requeued)} requeued, {models} models>"

    def __len__(self) -> int:
        return len(self._quotas)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._quotas

    def empty(self, model: str) -> bool:
        """Whether nobody waits for a model."""
        return not any(kind[0] == model for kind in self.kinds)

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """Add a ticket."""
        self._quotas[ticket] = quota
        self.kinds[ticket.kind] += 1
        quota.queued += 1
        if ticket.requeued:
            quota.requeued += 1
            bisect.insort(self.requeued, ticket, key=by_number)
        else:
            self._classes(ticket).add(ticket, quota, now)

    def remove(self, ticket: Ticket, now: float) -> None:
        """Remove a ticket that will not run."""
        if not self._uncount(ticket):
            self._classes(ticket).remove(ticket, now)
        self.prune(ticket)

    def start(self, ticket: Ticket, quota: UserQuota, now: float) -> Flow:
        """Remove a ticket that runs from now on; returns the flow that counts it."""
        classes = self._classes(ticket)
        if not self._uncount(ticket):
            classes.start(ticket, now)
        flow = classes[ticket.priority].flow(quota)
        flow.priority_class.running += 1
        return flow

    def start_at_once(self, ticket: Ticket, quota: UserQuota) -> Flow:
        """The flow that counts a ticket which runs from now on, and never waited: nobody does."""
        flow = self._classes(ticket)[ticket.priority].flow(quota)
        flow.counter.weight = quota.user.weight
        flow.priority_class.running += 1
        flow.priority_class.clock.enter(flow.counter)
        return flow

    def _uncount(self, ticket: Ticket) -> bool:
        """Take a ticket from the counts; returns whether it was requeued."""
        quota = self._quotas.pop(ticket)
        self.kinds[ticket.kind] -= 1
        if not self.kinds[ticket.kind]:
            del self.kinds[ticket.kind]
        quota.queued -= 1
        if ticket.requeued:
            quota.requeued -= 1
            del self.requeued[bisect.bisect_left(self.requeued, ticket.number, key=by_number)]
        return ticket.requeued

    def prune(self, ticket: Ticket) -> None:
        """Forget a ticket's class and model, where nobody waits or runs there any more."""
        classes = self._classes(ticket)
        classes.prune(ticket.priority)
        if not classes:
            del self._models[ticket.slot_request.model]

    def promote(self, now: float) -> None:
        """Move those into the next better class that were held back for long enough."""
        for classes in self._models.values():
            classes.promote(now)

    def promote_at(self) -> float:
        """Before this time nothing is promoted."""
        return min((classes.promote_at for classes in self._models.values()), default=math.inf)

    def competing(self, priority: Priority, now: float) -> list[Flow]:
        """The flows of a class, of all models, whose users may start something."""
        found = []
        for classes in self._models.values():
            if classes[priority].waiting:
                found += classes[priority].competing(now)
        return found

    def position(self, ticket: Ticket) -> int:
        """A ticket's position among those of its model, from 1."""
        model = ticket.slot_request.model
        ahead = sum(
            other.slot_request.model == model
            for other in self.requeued
            if not ticket.requeued or other.number < ticket.number
        )
        if ticket.requeued:
            return ahead + 1
        classes = self._classes(ticket)
        ahead += sum(classes[better].queued for better in range(ticket.priority))
        waiting = classes[ticket.priority].waiting
        flow = waiting[ticket.slot_request.user.name]
        index = bisect.bisect_left(flow.tickets, ticket.number, key=by_number)
        rank = flow.forecast().rank(index)
        return ahead + 1 + sum(other.forecast().before(rank) for other in waiting.values())

    def order(self) -> Iterator[Ticket]:
        """All tickets, as they will be served if all goes on as it does now."""
        yield from self.requeued.copy()
        for priority in Priority:
            ranked: list[tuple[tuple[bool, float, int, int], Ticket]] = []
            for classes in self._models.values():
                for flow in classes[priority].waiting.values():
                    places = range(len(flow.tickets))
                    ranked += zip(map(flow.forecast().rank, places), flow.tickets, strict=True)
            ranked.sort(key=lambda entry: entry[0])
            yield from [ticket for _, ticket in ranked]

    def _classes(self, ticket: Ticket) -> PriorityClasses:
        classes = self._models.get(ticket.slot_request.model)
        if classes is None:
            classes = self._models[ticket.slot_request.model] = PriorityClasses()
        return classes

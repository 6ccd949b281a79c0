"""All tickets that wait, by model and class."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterator

from llcuda_net.config.users import Priority
from llcuda_net.scheduler.ageing import PriorityClasses
from llcuda_net.scheduler.flows import Flow, PriorityClass
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

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._quotas)

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

    def classes(self, priority: Priority) -> list[PriorityClass]:
        """One class of each model of which anybody waits in it."""
        found = [classes[priority] for classes in self._models.values()]
        return [one for one in found if one.waiting]

    def changed(self, quota: UserQuota) -> None:
        """A user's limits have changed, or what they run."""
        for classes in self._models.values():
            for priority in Priority:
                classes[priority].changed(quota.user.name)

    def served_elsewhere(self, model: str, priority: int, user: str, tokens: float) -> None:
        """Other servers have served a user."""
        classes = self._models.get(model)
        if classes is not None:
            classes[priority].served_elsewhere(user, tokens)

    def queued(self, model: str) -> int:
        """How many wait for a model."""
        return sum(count for kind, count in self.kinds.items() if kind[0] == model)

    def refilled_at(self, now: float) -> float:
        """When somebody may start whom the tokens per minute keep from it now."""
        return min(
            (one.refilled_at(now) for priority in Priority for one in self.classes(priority)),
            default=math.inf,
        )

    def flow(self, ticket: Ticket) -> Flow:
        """The flow in which a ticket waits, of one that was not requeued."""
        return self._classes(ticket)[ticket.priority].waiting[ticket.slot_request.user.name]

    def _classes(self, ticket: Ticket) -> PriorityClasses:
        classes = self._models.get(ticket.slot_request.model)
        if classes is None:
            classes = self._models[ticket.slot_request.model] = PriorityClasses()
        return classes

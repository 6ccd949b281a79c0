"""The priority classes of one model, and how waiting lifts a ticket into a better class.

Theory. Classes are strict: nothing of a class starts while something of a better one could. Alone
that would starve the worse ones, so a ticket ages: after `ageing_step` seconds of being held back
it moves up one class. If whatever is old moved up, a flood of old tickets would come before those
who have little waiting, which the fair order within a class is there to prevent. Hence three rules.
First, only time counts in which a better class waits and nothing of the ticket's kind is served: a
class that gets a slot now and then is not starved, however old its tickets are. Second, of a user's
tickets of one kind only the oldest ages; the next one begins to age when that one is gone. Third,
of each user and kind at most one ticket is promoted at a time. So a flood of low priority gets
through no faster than a single request. The time of the next promotion is computed only when
one may be due (`promote_at` is a lower bound of it: whoever begins to age is due after the shortest
step of all), so that neither waiting nor what comes and goes meanwhile costs anything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from llcuda_net.config.users import Priority
from llcuda_net.scheduler.flows import PriorityClass
from llcuda_net.scheduler.quota import UserQuota
from llcuda_net.scheduler.ticket import Kind, Ticket

#: Most tickets that are promoted at once.
_MOST_PROMOTED = 64


class PriorityClasses:
    """One model's tickets that wait, class by class, best first."""

    def __init__(self) -> None:
        self._classes = [PriorityClass() for _ in Priority]
        #: Before this time nothing is promoted.
        self._promote_at = math.inf
        #: How many promoted tickets wait, by user and kind.
        self._promoted: Counter[tuple[str, Kind]] = Counter()
        #: No ticket that waits ages in fewer seconds.
        self._least_step = math.inf

    def __repr__(self) -> str:
        waiting = "/".join(str(one.queued) for one in self._classes)
        running = "/".join(str(one.running) for one in self._classes)
        return f"<PriorityClasses {waiting} waiting, {running} running>"

    def __getitem__(self, priority: int) -> PriorityClass:
        return self._classes[priority]

    def __bool__(self) -> bool:
        return any(one.queued or one.running for one in self._classes)

    @property
    def promote_at(self) -> float:
        """Before this time nothing is promoted; infinity where nothing is held back."""
        return self._promote_at if any(one.held_back for one in self._classes) else math.inf

    def add(self, ticket: Ticket, quota: UserQuota, now: float) -> None:
        """Add a ticket that waits."""
        own = self._classes[ticket.priority]
        own.add(ticket, quota, now)
        if ticket.promoted:
            self._promoted[quota.user.name, ticket.kind] += 1
        if any(better.queued for better in self._classes[: ticket.priority]):
            own.held_back.setdefault(ticket.kind, now)
        for worse in self._classes[ticket.priority + 1 :]:
            for kind in worse.kinds:
                worse.held_back.setdefault(kind, now)
        self._least_step = min(self._least_step, ticket.ageing_step)
        self._ages_from(now)

    def remove(self, ticket: Ticket, now: float) -> None:
        """Remove a ticket that waits no more."""
        self._classes[ticket.priority].remove(ticket, now)
        self._ages_from(now)
        name = ticket.slot_request.user.name
        if ticket.promoted:
            self._promoted[name, ticket.kind] -= 1
            for one in self._classes:  # the user's next of this kind ages from now on
                flow = one.waiting.get(name)
                if flow is not None and ticket.kind in flow.oldest:
                    flow.oldest[ticket.kind] = flow.oldest[ticket.kind][0], now

    def start(self, ticket: Ticket, now: float) -> None:
        """Remove a ticket that runs from now on: its kind was not held back up to now."""
        self.remove(ticket, now)
        own = self._classes[ticket.priority]
        if own.held_back.pop(ticket.kind, None) is not None and any(
            better.queued for better in self._classes[: ticket.priority]
        ):
            own.held_back[ticket.kind] = now

    def prune(self, priority: Priority) -> None:
        """Forget the counters of a class in which nobody waits or runs: all are even again."""
        one = self._classes[priority]
        if not one.queued and not one.running:
            one.forget()
            self._classes[priority] = PriorityClass()

    def promote(self, now: float) -> None:
        """Move those into the next better class that were held back for long enough.

        Only so many at a time, so that it does not take long; the others are due at once.
        """
        left = _MOST_PROMOTED
        while left and self.promote_at <= now:
            self._promote_at = math.inf
            for one in self._classes[1:]:
                due: list[tuple[Ticket, UserQuota]] = []
                for ticket, quota, at in self._ageing(one):
                    if at > now or len(due) == left:
                        self._promote_at = min(self._promote_at, at)
                    else:
                        due.append((ticket, quota))
                left -= len(due)
                for ticket, quota in due:
                    one.remove(ticket, now)
                    if ticket.promoted:
                        self._promoted[quota.user.name, ticket.kind] -= 1
                    self.prune(ticket.priority)
                    ticket.priority = Priority(ticket.priority - 1)
                    self.add(ticket, quota, now)

    def _ages_from(self, now: float) -> None:
        """Somebody may age from now on."""
        self._promote_at = min(self._promote_at, now + self._least_step)

    def _ageing(self, one: PriorityClass) -> Iterator[tuple[Ticket, UserQuota, float]]:
        """The tickets of a class that age, each with when it will be promoted."""
        for name, flow in one.waiting.items() if one.held_back else ():
            for kind, (ticket, since) in flow.oldest.items():
                if kind in one.held_back and (ticket.promoted or not self._promoted[name, kind]):
                    yield ticket, flow.quota, max(since, one.held_back[kind]) + ticket.ageing_step

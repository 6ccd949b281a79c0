"""The order in which those who wait are expected to be served, and so the position of each.

Theory. `assignment` computes only who is next. Where everybody stands is a forecast: a flow's
tickets are served one after the other, and each puts the flow behind by what a request is expected
to use. So a ticket's rank is its flow's, plus that for each of the flow's tickets before it. The
ranks of all tickets of a model are kept in a sorted list. A position is an index of it, found by
bisection. A ticket is ranked when it comes, and again whenever `refresh` is called with it. In
between its rank stays as it was; where requests use what was expected it would not change anyway.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from llcuda_net.scheduler.flows import Flow
from llcuda_net.scheduler.ticket import Ticket, by_number
from llcuda_net.scheduler.wait_queue import WaitQueue


class Rank(NamedTuple):
    """A ticket's rank among those of its model: the lowest is served next.

    Attributes:
        priority: its class; below the best one if it had a slot and lost it.
        blocked: whether its user may start nothing now.
        lead: weighted tokens that its user will have been served by then.
        running: how many its user will have running by then.
        number: of the ticket; no two ranks are equal.
    """

    priority: int
    blocked: bool
    lead: float
    running: int
    number: int


class Forecast:
    """The ranks that the tickets of a flow will have when their turn comes, as of now."""

    __slots__ = ("_blocked", "_cost", "_flow", "_lead", "_running")

    def __init__(self, flow: Flow) -> None:
        quota, counter, first = flow.quota, flow.counter, flow.tickets[0]
        self._flow = flow
        self._blocked = not counter.competing
        # Not relative to the virtual time, so that ranks of different moments can be compared.
        self._lead = counter.projected()
        expected = quota.expected_tokens(first.slot_request.most_tokens)
        self._cost = first.expected_use(expected) / counter.weight
        self._running = len(quota.running)

    def rank(self, ticket: Ticket) -> Rank:
        """A ticket's rank."""
        index = bisect.bisect_left(self._flow.tickets, ticket.number, key=by_number)
        lead = round(self._lead + index * self._cost, 6)
        return Rank(ticket.priority, self._blocked, lead, self._running + index, ticket.number)


def forecast(queue: WaitQueue, ticket: Ticket, known: dict[Flow, Forecast]) -> Rank:
    """The rank of a ticket that waits.

    Args:
        known: forecasts of this moment; a new one is added.
    """
    if ticket.requeued:
        return Rank(-1, False, 0.0, 0, ticket.number)
    flow = queue.flow(ticket)
    found = known.get(flow)
    if found is None:
        found = known[flow] = Forecast(flow)
    return found.rank(ticket)


class WaitOrder:
    """All tickets that wait, in order.

    Args:
        queue: where they wait.
    """

    def __init__(self, queue: WaitQueue) -> None:
        self._queue = queue
        self._lines: dict[str, list[tuple[Rank, Ticket]]] = {}
        self._ranks: dict[Ticket, Rank] = {}

    def __repr__(self) -> str:
        return f"<WaitOrder of {len(self._ranks)} tickets for {len(self._lines)} models>"

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._ranks

    def add(self, ticket: Ticket) -> None:
        """Add a ticket that waits."""
        rank = self._ranks[ticket] = forecast(self._queue, ticket, {})
        bisect.insort(self._lines.setdefault(ticket.slot_request.model, []), (rank, ticket))

    def remove(self, ticket: Ticket) -> None:
        """Remove a ticket that waits no more. Idempotent."""
        rank = self._ranks.pop(ticket, None)
        if rank is not None:
            line = self._lines[ticket.slot_request.model]
            del line[bisect.bisect_left(line, (rank,))]
            if not line:
                del self._lines[ticket.slot_request.model]

    def refresh(self, tickets: Iterable[Ticket]) -> None:
        """Rank tickets anew; those that are not here are left out."""
        known: dict[Flow, Forecast] = {}
        for ticket in tickets:
            old = self._ranks.get(ticket)
            if old is None:
                continue
            rank = forecast(self._queue, ticket, known)
            if rank != old:
                line = self._lines[ticket.slot_request.model]
                del line[bisect.bisect_left(line, (old,))]
                bisect.insort(line, (rank, ticket))
                self._ranks[ticket] = rank

    def position(self, ticket: Ticket) -> int:
        """A ticket's position among those of its model, from 1."""
        line = self._lines[ticket.slot_request.model]
        return bisect.bisect_left(line, (self._ranks[ticket],)) + 1

    def __iter__(self) -> Iterator[Ticket]:
        """All tickets, next first: of each class by their positions, whatever their model."""
        lines = [_numbered(line) for line in self._lines.values()]
        for _, _, _, ticket in lines[0] if len(lines) == 1 else heapq.merge(*lines):
            yield ticket


def _numbered(line: list[tuple[Rank, Ticket]]) -> Iterator[tuple[int, int, int, Ticket]]:
    """The entries of one model, with what those of several are merged by."""
    for index, (rank, ticket) in zip(itertools.count(), line, strict=False):
        yield rank.priority, index, rank.number, ticket

"""Those who wait: by model, class and user, and the order in which they are to be served."""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Container, Hashable, Iterator
from typing import TypeVar

from llcuda_net.allowance import Account
from llcuda_net.fairness import Lane, Share
from llcuda_net.tickets import Ticket
from llcuda_net.users import Priority

_T = TypeVar("_T", bound=Hashable)

#: How many more than those who wait may be noted for a better class, before it is tidied up.
_GONE = 1000


def _number(ticket: Ticket) -> int:
    return ticket.number


def _less(counts: Counter[_T], of: _T) -> None:
    """One less, and none left behind."""
    counts[of] -= 1
    if not counts[of]:
        del counts[of]


class Seat:
    """One user's tickets for one model and class, oldest first, and their share there."""

    def __init__(self, account: Account, row: Row) -> None:
        self.account = account
        self.row = row
        self.share = Share(account.user.weight)
        self.tickets: list[Ticket] = []
        self._kinds: Counter[Hashable] = Counter()

    def add(self, ticket: Ticket) -> None:
        """One more waits."""
        bisect.insort(self.tickets, ticket, key=_number)
        self._kinds[ticket.kind] += 1
        self.share.weight = self.account.user.weight

    def remove(self, ticket: Ticket) -> None:
        """One waits no more."""
        del self.tickets[bisect.bisect_left(self.tickets, ticket.number, key=_number)]
        _less(self._kinds, ticket.kind)
        if not self.tickets:
            self.share.competing = False

    def head(self, kinds: Container[Hashable]) -> Ticket | None:
        """The oldest of these kinds."""
        if not any(kind in kinds for kind in self._kinds):
            return None
        return next(ticket for ticket in self.tickets if ticket.kind in kinds)

    def rank(self, ticket: Ticket) -> tuple[float, int, int]:
        """Where it stands among its class: the lowest is served next."""
        return self.lead(), len(self.account.running), ticket.number

    def lead(self) -> float:
        """How far the user's counter is before the virtual time."""
        return self.share.counter() - self.row.lane.now

    def cost(self) -> float:
        """By how much the counter will grow with each, as far as is known."""
        first = self.tickets[0]
        expected = self.account.expected(first.claim.most_tokens)
        return first.will_use(expected) / self.share.weight

    def plan(self) -> Plan:
        """How its tickets will be served, as far as can be told now."""
        lead, blocked = self.lead(), not self.share.competing
        return Plan(self, blocked, max(lead, 0.0) if blocked else lead, self.cost())


class Plan:
    """When each ticket of a seat will be served, if all goes on as it does now."""

    __slots__ = ("_blocked", "_cost", "_lead", "_running", "_tickets")

    def __init__(self, seat: Seat, blocked: bool, lead: float, cost: float) -> None:
        self._blocked = blocked
        self._lead = lead
        self._cost = cost
        self._running = len(seat.account.running)
        self._tickets = seat.tickets

    def rank(self, index: int) -> tuple[bool, float, int, int]:
        """Where the ticket at `index` of the seat will stand: the lowest is served next."""
        lead = self._lead + index * self._cost
        return self._blocked, lead, self._running + index, self._tickets[index].number

    def before(self, rank: tuple[bool, float, int, int]) -> int:
        """How many of the seat's tickets will be served before one of this rank."""
        return bisect.bisect_left(range(len(self._tickets)), rank, key=self.rank)


class Row:
    """One model's tickets of one class: those who wait, and what runs of theirs."""

    def __init__(self) -> None:
        self.lane = Lane()
        self.waiting: dict[str, Seat] = {}
        self.queued = 0
        self.running = 0
        self._seats: dict[str, Seat] = {}

    def seat(self, account: Account) -> Seat:
        """A user's seat."""
        name = account.user.name
        seat = self._seats.get(name)
        if seat is None:
            seat = self._seats[name] = Seat(account, self)
        return seat

    def add(self, ticket: Ticket, account: Account) -> None:
        """One more waits."""
        seat = self.waiting[account.user.name] = self.seat(account)
        seat.add(ticket)
        self.queued += 1

    def remove(self, ticket: Ticket) -> None:
        """One waits no more."""
        name = ticket.claim.user.name
        seat = self.waiting[name]
        seat.remove(ticket)
        if not seat.tickets:
            del self.waiting[name]
        self.queued -= 1

    def compete(self, now: float) -> None:
        """See whose tickets may begin."""
        self.lane.compete(
            (seat.share, seat.account.may_begin(now)) for seat in self.waiting.values()
        )


class Line:
    """All who wait."""

    def __init__(self) -> None:
        #: Those who had a slot before and lost it: they come before all others.
        self.returned: list[Ticket] = []
        self.kinds: Counter[tuple[str, Hashable]] = Counter()
        self.models: Counter[str] = Counter()
        self._rows: list[dict[str, Row]] = [{} for _ in Priority]
        self._rising: list[tuple[float, int, Ticket]] = []
        self._accounts: dict[Ticket, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._accounts

    def add(self, ticket: Ticket, account: Account) -> None:
        """One more waits."""
        self._accounts[ticket] = account
        self.kinds[ticket.kind] += 1
        self.models[ticket.claim.model] += 1
        account.queued += 1
        if ticket.returned:
            account.returned += 1
            bisect.insort(self.returned, ticket, key=_number)
            return
        self._row(ticket).add(ticket, account)

    def remove(self, ticket: Ticket) -> None:
        """One waits no more."""
        account = self._accounts.pop(ticket)
        _less(self.kinds, ticket.kind)
        _less(self.models, ticket.claim.model)
        account.queued -= 1
        if ticket.returned:
            account.returned -= 1
            del self.returned[bisect.bisect_left(self.returned, ticket.number, key=_number)]
        else:
            self._row(ticket).remove(ticket)

    def serve(self, ticket: Ticket, account: Account) -> Seat:
        """One waits no more, for it runs; the seat on which it is counted."""
        self.remove(ticket)
        seat = self._row(ticket).seat(account)
        seat.row.running += 1
        return seat

    def tidy(self, ticket: Ticket) -> None:
        """Forget the counters of its model and class where nobody waits or runs: all are even."""
        rows = self._rows[ticket.priority]
        row = rows.get(ticket.claim.model)
        if row is not None and not row.queued and not row.running:
            del rows[ticket.claim.model]

    def rises(self, ticket: Ticket, at: float) -> None:
        """Have it come into a better class at this time, if it waits still."""
        if ticket.priority > Priority.HIGH and at != float("inf"):
            heapq.heappush(self._rising, (at, ticket.number, ticket))
            if len(self._rising) > 2 * len(self) + _GONE:
                self._rising = [entry for entry in self._rising if entry[2] in self]
                heapq.heapify(self._rising)

    def next_rise(self) -> float:
        """When the next comes into a better class."""
        while self._rising and self._rising[0][2] not in self:
            heapq.heappop(self._rising)
        return self._rising[0][0] if self._rising else float("inf")

    def rise(self, now: float) -> None:
        """Have those come into a better class who have waited long enough."""
        while self._rising and self._rising[0][0] <= now:
            at, _, ticket = heapq.heappop(self._rising)
            if ticket not in self or ticket.returned:
                continue
            self._row(ticket).remove(ticket)
            self.tidy(ticket)
            ticket.priority = Priority(ticket.priority - 1)
            self._row(ticket).add(ticket, self._accounts[ticket])
            self.rises(ticket, at + ticket.step)

    def seats(self, priority: Priority, now: float) -> list[Seat]:
        """Those seats of a class whose users may begin something."""
        rows = self._rows[priority].values()
        for row in rows:
            row.compete(now)
        return [seat for row in rows for seat in row.waiting.values() if seat.share.competing]

    def position(self, ticket: Ticket) -> int:
        """Where a ticket stands among those of its model, from 1."""
        model = ticket.claim.model
        ahead = sum(
            other.claim.model == model
            for other in self.returned
            if not ticket.returned or other.number < ticket.number
        )
        if ticket.returned:
            return ahead + 1
        for better in range(ticket.priority):
            row = self._rows[better].get(model)
            ahead += 0 if row is None else row.queued
        row = self._rows[ticket.priority][model]
        seat = row.waiting[ticket.claim.user.name]
        index = bisect.bisect_left(seat.tickets, ticket.number, key=_number)
        rank = seat.plan().rank(index)
        return ahead + 1 + sum(other.plan().before(rank) for other in row.waiting.values())

    def order(self) -> Iterator[Ticket]:
        """All, as they will be served if all goes on as it does now."""
        yield from list(self.returned)
        for rows in self._rows:
            ranked = []
            for row in rows.values():
                for seat in row.waiting.values():
                    plan = seat.plan()
                    ranked += [(plan.rank(i), ticket) for i, ticket in enumerate(seat.tickets)]
            ranked.sort(key=lambda entry: entry[0])
            yield from [ticket for _, ticket in ranked]

    def _row(self, ticket: Ticket) -> Row:
        rows = self._rows[ticket.priority]
        row = rows.get(ticket.claim.model)
        if row is None:
            row = rows[ticket.claim.model] = Row()
        return row

"""The places of those who wait for one model in one class, user by user."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Container

from llcuda_net.scheduler.fair_share import Lane, Share
from llcuda_net.scheduler.quota import Account
from llcuda_net.scheduler.ticket import Kind, Ticket


def number(ticket: Ticket) -> int:
    """What tickets are sorted by: the oldest first."""
    return ticket.number


class Seat:
    """One user's tickets for one model and class, oldest first, and their share there.

    Attributes:
        first: the oldest of each kind, and since when it is that.
    """

    def __init__(self, account: Account, row: Row) -> None:
        self.account = account
        self.row = row
        self.share = Share(account.user.weight)
        self.tickets: list[Ticket] = []
        self.first: dict[Kind, tuple[Ticket, float]] = {}
        self._kinds: dict[Kind, list[Ticket]] = {}

    def add(self, ticket: Ticket, now: float) -> None:
        """One more waits."""
        self.share.weight = self.account.user.weight
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
            self.share.competing = False

    def head(self, kinds: Container[Kind]) -> Ticket | None:
        """The oldest of these kinds."""
        found = None
        for kind, (ticket, _) in self.first.items():
            if kind in kinds and (found is None or ticket.number < found.number):
                found = ticket
        return found

    def rank(self, ticket: Ticket) -> tuple[float, int, int]:
        """Where it stands among its class: the lowest is served next."""
        return self.lead(), len(self.account.running), ticket.number

    def lead(self) -> float:
        """How far the user's counter is before the virtual time."""
        # Rounded, so that those who were lifted to the same are even.
        return round(self.share.counter() - self.row.lane.now, 6)

    def plan(self) -> Plan:
        """How its tickets will be served, as far as can be told now."""
        return Plan(self)


class Plan:
    """When each ticket of a seat will be served, if all goes on as it does now."""

    __slots__ = ("_blocked", "_cost", "_lead", "_running", "_tickets")

    def __init__(self, seat: Seat) -> None:
        self._tickets = seat.tickets
        self._running = len(seat.account.running)
        # Those at their limits come after those who are not.
        self._blocked = not seat.share.competing
        self._lead = seat.lead()
        first = seat.tickets[0]
        expected = seat.account.expected(first.claim.most_tokens)
        self._cost = first.will_use(expected) / seat.share.weight

    def rank(self, index: int) -> tuple[bool, float, int, int]:
        """Where the ticket at `index` of the seat will stand: the lowest is served next."""
        lead = self._lead + index * self._cost
        return self._blocked, lead, self._running + index, self._tickets[index].number

    def before(self, rank: tuple[bool, float, int, int]) -> int:
        """How many of the seat's tickets will be served before one of this rank."""
        return bisect.bisect_left(range(len(self._tickets)), rank, key=self.rank)


class Row:
    """One model's tickets of one class: those who wait, and what runs of theirs.

    Attributes:
        kinds: how many wait of each kind.
        held: kinds of which none was served although better classes waited, and since when.
    """

    def __init__(self) -> None:
        self.lane = Lane()
        self.waiting: dict[str, Seat] = {}
        self.kinds: Counter[Kind] = Counter()
        self.held: dict[Kind, float] = {}
        self.running = 0
        self._seats: dict[str, Seat] = {}

    @property
    def queued(self) -> int:
        """How many wait."""
        return self.kinds.total()

    def seat(self, account: Account) -> Seat:
        """A user's seat."""
        name = account.user.name
        seat = self._seats.get(name)
        if seat is None:
            seat = self._seats[name] = Seat(account, self)
        return seat

    def add(self, ticket: Ticket, account: Account, now: float) -> None:
        """One more waits."""
        seat = self.waiting[account.user.name] = self.seat(account)
        seat.add(ticket, now)
        self.kinds[ticket.kind] += 1

    def remove(self, ticket: Ticket, now: float) -> None:
        """One waits no more."""
        name = ticket.claim.user.name
        seat = self.waiting[name]
        seat.remove(ticket, now)
        if not seat.tickets:
            del self.waiting[name]
        self.kinds[ticket.kind] -= 1
        if not self.kinds[ticket.kind]:
            del self.kinds[ticket.kind]
            self.held.pop(ticket.kind, None)

    def compete(self, now: float) -> None:
        """See whose tickets may begin."""
        self.lane.compete(
            (seat.share, seat.account.may_begin(now)) for seat in self.waiting.values()
        )

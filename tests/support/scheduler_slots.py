"""A scheduler under test: its slots, its tickets' holders, and a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import pytest

from llcuda_net.config.users import ANONYMOUS, User
from llcuda_net.errors import RequestError
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from llcuda_protocol import ErrorCode

ANN, BOB, EVE = User("ann"), User("bob"), User("eve")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Held:
    """A slot that somebody has."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._given_back = False

    def release(self) -> None:
        assert not self._given_back
        self._given_back = True
        self._slots.busy -= 1
        self._slots.on_free()


class Slots:
    """Some slots that are all alike.

    Args:
        on_free: called when there may be a free one.

    Attributes:
        keys: of what there is a place for; None: of everything.
        asked: how often one was asked for.
    """

    def __init__(self, size: int, on_free: Callable[[], None] = lambda: None) -> None:
        self.size = size
        self.on_free = on_free
        self.busy = 0
        self.keys: set[Hashable] | None = None
        self.asked = 0

    def resize(self, size: int) -> None:
        self.size = size
        self.on_free()

    def place(self, ticket: Ticket) -> Held | None:
        self.asked += 1
        if self.busy >= self.size or (
            self.keys is not None and ticket.slot_request.key not in self.keys
        ):
            return None
        self.busy += 1
        return Held(self)


class Holder:
    """Who holds a ticket: what it has made, and what it does when the ticket moves."""

    def __init__(self) -> None:
        self.tokens: Callable[[], int] = lambda: 0
        self.hear: Callable[[Ticket], None] = lambda ticket: None


class Desk:
    """A scheduler for some slots, with a clock that stands still until it is moved.

    Attributes:
        reason: what explains why there is no place for a ticket.
    """

    def __init__(self, slots: int, max_queue: int = 9999, **options: Any) -> None:
        self.clock = Clock()
        self.slots = Slots(slots, lambda: self.scheduler.dispatch())
        self.reason: Callable[[Ticket], str] = lambda ticket: ""
        self._holders: dict[Ticket, Holder] = {}
        options.setdefault("clock", self.clock)
        self.scheduler = Scheduler(
            lambda ticket: self.slots.place(ticket),
            max_queue,
            explain=lambda ticket: self.reason(ticket),
            **options,
        )

    def submit(
        self, user: User = ANONYMOUS, *, always: bool = False, **slot_request: Any
    ) -> Ticket:
        holder = Holder()
        ticket = self.scheduler.submit(
            SlotRequest(user, **slot_request),
            always=always,
            on_move=lambda ticket: holder.hear(ticket),
            tokens_made=lambda: holder.tokens(),
        )
        self._holders[ticket] = holder
        return ticket

    def listen(self, ticket: Ticket, hear: Callable[[Ticket], None]) -> None:
        """Call `hear` when the ticket moves."""
        self._holders[ticket].hear = hear

    def make(self, ticket: Ticket, tokens: int | Callable[[], int]) -> None:
        """The ticket has made so many tokens in all, or whatever a function returns."""
        self._holders[ticket].tokens = tokens if callable(tokens) else lambda: tokens

    def remove(self, *tickets: Ticket, tokens: int = 0) -> None:
        """Remove tickets, which have made so many tokens if they ran."""
        for ticket in tickets:
            if tokens:
                self.make(ticket, tokens)
            self.scheduler.remove(ticket)

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due by it is done."""
        end = self.clock.now + seconds
        while (due := max(self.scheduler.due(), self.clock.now)) <= end:
            self.clock.now = due
            self.scheduler.dispatch()
        self.clock.now = end
        self.scheduler.dispatch()


def refused(submit: Callable[[], Ticket], match: str) -> RequestError:
    """The request is refused, with the time after which to retry."""
    with pytest.raises(RequestError, match=match) as caught:
        submit()
    assert caught.value.code == ErrorCode.OVERLOADED
    assert caught.value.retry
    assert caught.value.retry_after is not None
    return caught.value


def running(*tickets: Ticket) -> list[bool]:
    """Which of them have a slot."""
    assert all(t.granted.is_set() for t in tickets if t.lease is not None)
    return [ticket.lease is not None for ticket in tickets]

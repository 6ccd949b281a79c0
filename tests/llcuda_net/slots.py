"""Slots to be had of an admission under test, and a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable

from llcuda_net.admission import Ticket


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
        self._slots.pump()


class Slots:
    """Some slots that are all alike.

    Attributes:
        pump: called when one is given back.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = 0
        self.pump: Callable[[], None] = lambda: None

    def resize(self, size: int) -> None:
        self.size = size
        self.pump()

    def place(self, ticket: Ticket) -> Held | None:
        if self.busy >= self.size:
            return None
        self.busy += 1
        return Held(self)

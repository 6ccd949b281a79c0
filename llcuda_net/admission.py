"""Who may use the upstream's slots: first come, first served, with a bounded queue.

Work is handed to an upstream only while we hold one of its slots, so that its own queue, which
tells nobody anything, never builds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType

import trio

from llcuda_net.errors import RequestError
from llcuda_protocol import ErrorCode


class Admission:
    """A bounded queue for a number of slots.

    Args:
        slots: how many may run at once.
        max_queue: how many may wait; one more is refused at once.
    """

    def __init__(self, slots: int, max_queue: int) -> None:
        self._slots = slots
        self._max_queue = max_queue
        self._running = 0
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._idle = trio.lowlevel.ParkingLot()
        self._spare: set[trio.CancelScope] = set()

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._running

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def set_slots(self, slots: int) -> None:
        """Follow an upstream that came back with another number of slots."""
        self._slots = slots
        self._admit()

    def enter(self, *, always: bool = False) -> Ticket:
        """Take a place, at once: a slot if one is free, else the last place in the queue.

        Args:
            always: however many wait: it was accepted before.

        Raises:
            RequestError: the queue is full.
        """
        for scope in self._spare:
            scope.cancel()
        ticket = Ticket(self)
        if self._running < self._slots and not self._waiting:
            self._running += 1
            ticket.turn.set()
        elif always or len(self._waiting) < self._max_queue:
            self._waiting[ticket] = None
            ticket.position = len(self._waiting)
        else:
            raise RequestError(
                ErrorCode.OVERLOADED,
                f"{self._running} requests run and {len(self._waiting)} wait; try again later",
                retry=True,
                retry_after=1.0,
            )
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up a ticket: its slot, or its place in the queue."""
        if ticket.turn.is_set():
            self._running -= 1
            self._admit()
        elif ticket in self._waiting:
            del self._waiting[ticket]
            self._tell()
        if self.idle:
            self._idle.unpark_all()

    @property
    def idle(self) -> bool:
        """Whether nobody uses a slot, and nobody waits for one."""
        return not self._running and not self._waiting

    @asynccontextmanager
    async def spare(self, settle: float) -> AsyncIterator[None]:
        """Time in which nobody wants a slot: for work that must not delay anybody's.

        Begins when nobody has used one for `settle` seconds. What is done in it is cancelled as
        soon as somebody takes a place, who is not made to wait for it: it holds no slot.
        """
        begun = False
        while not begun:
            while not self.idle:
                await self._idle.park()
            with trio.CancelScope() as scope:
                self._spare.add(scope)
                try:
                    await trio.sleep(settle)
                    begun = True
                    yield
                finally:
                    self._spare.discard(scope)

    def _admit(self) -> None:
        moved = False
        while self._waiting and self._running < self._slots:
            ticket, _ = self._waiting.popitem(last=False)
            self._running += 1
            ticket.position = 0
            ticket.turn.set()
            ticket.on_position(0)
            moved = True
        if moved:
            self._tell()

    def _tell(self) -> None:
        for position, ticket in enumerate(self._waiting, 1):
            if ticket.position != position:
                ticket.position = position
                ticket.on_position(position)


class Ticket:
    """A place at the upstream; `async with` waits for the slot and gives it back.

    Attributes:
        position: 1 for the first that waits; 0 for one that holds a slot.
        on_position: called with the new position when the queue moves.
    """

    def __init__(self, admission: Admission) -> None:
        self.turn = trio.Event()
        self.position = 0
        self.on_position: Callable[[int], None] = lambda position: None
        self._admission = admission

    async def __aenter__(self) -> None:
        try:
            await self.turn.wait()
        except BaseException:
            self._admission.leave(self)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.leave(self)

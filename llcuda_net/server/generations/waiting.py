"""What waits for a slot when the pool changes, or when a model has had no upstream for too long."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import trio

from llcuda_net.errors import RequestError, UpstreamUnavailable
from llcuda_net.generation.generation import Generation
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import Kind, Phase, Ticket
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.pool import Pool

#: Seconds between two looks for models that have no upstream any more.
_LOOK = 1.0
#: How many requests are failed in one turn of the event loop.
_AT_ONCE = 16


class Waiting:
    """The generations behind the tickets that wait.

    Args:
        most: seconds for which a model may have no upstream before what waits for it fails.
    """

    def __init__(self, pool: Pool, scheduler: Scheduler, most: float) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._most = most
        self._generations: WeakKeyDictionary[Ticket, Generation] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Waiting: {self._scheduler.queued}, at most {self._most:g} s without an upstream>"

    def add(self, ticket: Ticket, generation: Generation) -> None:
        """Note whose ticket it is; forgotten with the ticket."""
        self._generations[ticket] = generation

    def without_upstream(self) -> list[tuple[Generation, str | None]]:
        """Those that wait for a model that no upstream has now, each with the model's name."""
        kinds = [kind for kind in self._scheduler.waiting_kinds() if not self._can_serve(kind)]
        if not kinds:
            return []
        found = []
        for ticket in self._scheduler.waiting():
            generation = self._generations.get(ticket)
            if generation is not None and ticket.kind in kinds:
                name = self._pool.meanings().get(ticket.kind[0]) or generation.model.get("name")
                found.append((generation, name or generation.wanted))
        return found

    def short_of_slots(self, since: float) -> list[tuple[Generation, Ticket]]:
        """Those that have waited since a time for slots alone, in the order of their turns; see
        Scheduler.short_of_slots.
        """
        return [
            (generation, ticket)
            for ticket in self._scheduler.short_of_slots(since)
            if (generation := self._generations.get(ticket)) is not None
            and self._can_serve(ticket.kind)
        ]

    def _can_serve(self, kind: Kind) -> bool:
        requirement = kind[1]
        assert isinstance(requirement, Requirement)
        return self._pool.can_serve(requirement) or self._pool.loads(requirement)

    async def follow_pool(self, changed: Callable[[], object] = lambda: None) -> None:
        """Give out what there is whenever the pool has changed; for ever.

        Args:
            changed: called then, too.
        """
        while True:
            await self._pool.wait_change()
            self._scheduler.dispatch()
            changed()
            await self._refuse_unloadable()

    async def _refuse_unloadable(self) -> None:
        """End what waits for a model that could not be loaded, with the reason."""
        for kind in self._scheduler.waiting_kinds():
            requirement = kind[1]
            assert isinstance(requirement, Requirement)
            error = self._pool.failure(requirement)
            if error is not None:
                await self._fail(kind, error)

    async def end_outages(self) -> None:
        """End what waits for a model that no upstream has had for too long; for ever."""
        while True:
            await trio.sleep(_LOOK)
            self._scheduler.dispatch()  # some wait for a time
            for kind in self._scheduler.waiting_kinds():
                requirement = kind[1]
                assert isinstance(requirement, Requirement)
                out = self._pool.outage(requirement)
                if out > self._most:
                    error = UpstreamUnavailable(
                        f"for {out:.0f} s {self._pool.why(requirement)}",
                        retry=True,
                        retry_after=1.0,
                    )
                    await self._fail(kind, error)

    async def _fail(self, kind: Kind, error: RequestError) -> None:
        """Fail what waits of a kind, in slices: thousands may."""
        waiting = [ticket for ticket in self._scheduler.waiting() if ticket.kind == kind]
        for count, ticket in enumerate(waiting, 1):
            generation = self._generations.get(ticket)
            if ticket.phase is not Phase.WAITING:
                continue
            if generation is not None:
                generation.hand_back(error)
            else:  # texts to embed
                self._scheduler.fail(ticket, error)
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

"""Hands generations over that wait here in vain, while another server has what they wait for.

A generation waits at the server that accepted or adopted it. Where that has no upstream of its
model any more, and another server has one, it goes there: it is suspended here, and the other one
adopts it, as it would from a server that died. It has all of its log, so nothing changes for its
readers: here it is followed from then on, with the readers that it has. Other servers that follow
it look for it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from llcuda_net.cluster.owners.handing import hand_over
from llcuda_net.cluster.standing import Standing
from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Left
from llcuda_net.server.cluster.host import OwnersHost
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.replica.bodies import joined

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds between two looks, and for which one waits in vain before it goes.
LOOK, PATIENCE = 1.0, 3.0
#: Generations that go at one look.
_AT_ONCE = 16
#: Seconds between two looks at whether one has stopped.
_SETTLING = 0.01


class Database(Protocol):
    """What is asked of the cluster."""

    @property
    def number(self) -> int:
        """This server's."""

    def standing(self) -> Standing:
        """Whether it is a member."""

    async def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        """Do something in one transaction; raises RequestError."""


class Handing:
    """Looks for what waits in vain.

    Args:
        elsewhere: the server that has an upstream of a model, of this name; None: none has.
        moved: has a generation followed that was this server's.

    Attributes:
        handed: how many went since the start.
    """

    def __init__(
        self,
        cluster: Database,
        host: OwnersHost,
        elsewhere: Callable[[str | None], int | None],
        moved: Callable[[Generation], None],
    ) -> None:
        self.handed = 0
        self._cluster = cluster
        self._host = host
        self._elsewhere = elsewhere
        self._moved = moved
        self._since: dict[Generation, float] = {}

    def __repr__(self) -> str:
        return f"<Handing: {self.handed} handed over, {len(self._since)} wait in vain>"

    async def run(self) -> None:
        """Look each second; runs until cancelled."""
        while True:
            await trio.sleep(LOOK)
            if self._cluster.standing() is Standing.MEMBER:
                try:
                    await self.look()
                except Exception:  # a bug here must not end the server
                    log.exception("handing_over_failed")

    async def look(self) -> None:
        """Hand over what has waited in vain for long enough."""
        now = trio.current_time()
        waiting = {
            generation: name
            for generation, name in self._host.without_upstream()
            if generation.accepted and generation.entry is not None and generation.entry.mirrored
        }
        self._since = {one: self._since.get(one, now) for one in waiting}
        due = [one for one, since in self._since.items() if now - since >= PATIENCE]
        for generation in due[:_AT_ONCE]:
            server = self._elsewhere(waiting[generation])
            if server is not None and not generation.ended and not generation.scope.cancel_called:
                await self._hand_over(generation, server)

    async def _hand_over(self, generation: Generation, server: int) -> None:
        number = self._cluster.number
        try:
            await self._host.committed()  # so that its row is there
        except RequestError as error:
            log.warning("not_handed_over", generation=generation.id, reason=error.message)
            return
        generation.suspend()
        # Both are polled, since they are rare.
        while self._host.registry.find(generation.id, None) is generation:  # noqa: ASYNC110
            await trio.sleep(_SETTLING)
        if not generation.suspended or generation.ended:
            return  # it came to its end just now
        found = self._host.left_aside(generation)
        if not found:
            return  # the server is no member any more, and does with it what is right then
        (left,) = found
        move = partial(hand_over, me=number, to=server, ids=[generation.id], data=_records(left))
        # Until it is known whose it is nobody may go on with it here.
        while (moved := await self._try(number, move)) is None:  # noqa: ASYNC110
            await trio.sleep(LOOK)
        if moved:
            self.handed += 1
            log.info("generation_handed_over", generation=generation.id, server=server)
            self._host.forget(left)
        else:
            await self._host.resume([left.aside()], whole=True)
        self._moved(generation)

    async def _try(self, number: int, move: Callable[[Connection], bool]) -> bool | None:
        """Whether it is another server's now; None: that is not known."""
        if self._cluster.number != number:
            return True  # this server was fenced: whoever has what it had, it is not this life
        if self._cluster.standing() is not Standing.MEMBER:
            return None
        try:
            return await self._cluster.change("a generation cannot be handed over", move)
        except RequestError as error:
            log.warning("not_handed_over", reason=error.message)
            return None


def _records(left: Left) -> bytes:
    """All that there is of it, as a batch of a journal."""
    one = left.aside()
    entry = one.entry
    generation = OpenGeneration(
        entry.opened, one.packed, entry.splices, entry.switches, one.dispatched, one.concluded
    )
    return joined([*restated(generation, 1)])

"""Hands generations over that wait here, while another server has what they wait for.

A generation waits at the server that accepted or adopted it. Where that has no upstream of its
model any more, or all slots of these are in use, and another server has one that is free, it goes
there: it is suspended here, and the other one adopts it, as it would from a server that died. It
has all of its log, so nothing changes for its readers: here it is followed from then on, with the
readers that it has. Other servers that follow it look for it anew.

What waits for a free slot goes in the order in which it would be served here, as much as there are
slots for (see `Routing.room`), and what came in this way stays for a while: so that nothing wanders
from server to server by what each of them knew of the others a second ago.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from llcuda_net.cluster.owners.handing import epoch_of, hand_over
from llcuda_net.cluster.standing import Standing
from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Left
from llcuda_net.scheduler.ticket import Phase, Ticket
from llcuda_net.server.cluster.host import OwnersHost
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Former

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds between two looks, and for which one waits here in vain before it goes.
LOOK, PATIENCE = 1.0, 3.0
#: Seconds after which one that waits for a slot is to go: it goes a second later, or two, when all
#: servers have heard that.
DUE = 2.0
#: Seconds for which what came from another server that had no free slot is not handed on.
SETTLED = 30.0
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
        room: the server that has a slot free for one of those that wait here for a model, of this
            name; None: none has.
        moved: has a generation followed that was this server's.

    Attributes:
        handed: how many went since the start.
        due: how many wait that are to go where a slot is free, by the key of their model.
    """

    def __init__(
        self,
        cluster: Database,
        host: OwnersHost,
        elsewhere: Callable[[str | None], int | None],
        room: Callable[[str], int | None],
        moved: Callable[[Generation], None],
    ) -> None:
        self.handed = 0
        self.due: Counter[str] = Counter()
        self._cluster = cluster
        self._host = host
        self._elsewhere = elsewhere
        self._room = room
        self._moved = moved
        self._since: dict[Generation, float] = {}
        #: When those came that were handed over to this server, by id.
        self._came: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Handing: {self.handed} handed over, {len(self._since)} wait in vain>"

    def came(self, former: Former) -> None:
        """This was adopted just now: it may have been handed over to this server."""
        if former.whole:
            ids = [one.id for one in former.generations]
            self._came.update(dict.fromkeys(ids, trio.current_time()))

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
        """Hand over what has waited for long enough."""
        now = trio.current_time()
        await self._in_vain(now)
        await self._for_slots(now)

    async def _in_vain(self, now: float) -> None:
        """What has no upstream here goes to a server that has one."""
        waiting = {
            generation: name
            for generation, name in self._host.without_upstream()
            if _can_go(generation)
        }
        self._since = {one: self._since.get(one, now) for one in waiting}
        due = [one for one, since in self._since.items() if now - since >= PATIENCE]
        for generation in due[:_AT_ONCE]:
            server = self._elsewhere(waiting[generation])
            if server is not None and not generation.ended and not generation.scope.cancel_called:
                await self._hand_over(generation, server)

    async def _for_slots(self, now: float) -> None:
        """What waits for a slot goes to a server where one is free."""
        self._came = {id_: at for id_, at in self._came.items() if now - at < SETTLED}
        due = [
            (generation, ticket)
            for generation, ticket in self._host.short_of_slots(now - DUE)
            if generation.id not in self._came and _can_go(generation)
        ]
        self.due = Counter(ticket.slot_request.model for _, ticket in due)
        full: set[str] = set()
        handed = self.handed
        for generation, ticket in due:
            key = ticket.slot_request.model
            if key in full or self.handed - handed >= _AT_ONCE:
                continue
            name = self._host.pool.meanings().get(key)
            server = None if name is None else self._room(name)
            if server is None:
                full.add(key)
            else:
                await self._hand_over(generation, server, ticket)

    async def _hand_over(
        self, generation: Generation, server: int, ticket: Ticket | None = None
    ) -> None:
        """Hand one over.

        Args:
            ticket: where it has got a slot here meanwhile, it stays; None: it has none.
        """
        number = self._cluster.number
        try:
            await self._host.committed()  # so that its row is there
            epoch = await self._cluster.change(
                "a generation cannot be handed over",
                partial(epoch_of, me=number, id_=generation.id),
            )
        except RequestError as error:
            log.warning("not_handed_over", generation=generation.id, reason=error.message)
            return
        if epoch is None:
            return  # it is not this server's any more
        if ticket is not None and ticket.phase is not Phase.WAITING:
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
        ids = {generation.id: epoch}
        move = partial(hand_over, me=number, to=server, ids=ids, data=_records(left))
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


def _can_go(generation: Generation) -> bool:
    """Whether another server can have all that there is of it."""
    entry = generation.entry
    return generation.accepted and entry is not None and entry.mirrored


def _records(left: Left) -> bytes:
    """All that there is of it, as a batch of a journal."""
    one = left.aside()
    entry = one.entry
    generation = OpenGeneration(
        entry.opened, one.packed, entry.splices, entry.switches, one.dispatched, one.concluded
    )
    return joined([*restated(generation, 1)])

"""Requests of a simulated server: the product's Placing, and around it what it asks of a server.

Here is in short how a request begins, and how one is sent to another server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from llcuda_net.cluster import leases
from llcuda_net.errors import LeaseLost, RequestError, ShuttingDown
from llcuda_net.generation.request import hash_of_request
from llcuda_net.server.cluster.placing import Asked, Placing, check_sent
from llcuda_net.storage.records import Level, Opened
from llcuda_protocol import Generate
from tools.simulated_cluster.clock.scheduler import Flag, Scheduler
from tools.simulated_cluster.clock.waiting import drive
from tools.simulated_cluster.running import Registry, Running

if TYPE_CHECKING:
    from tools.simulated_cluster.server import Server

_T = TypeVar("_T")
#: Shares of the requests that are sent to another server, and of those whose connection breaks.
_SENT, _BROKEN = 0.3, 0.05
#: Seconds that a request is on its way to another server, at most, and between two looks at it.
_WAY, _LOOK = 0.01, 0.05
_USER: Any = SimpleNamespace(name="ann")
#: Called with the id of what a request has become.
Answer = Callable[[str], None]


@dataclass(eq=False)
class Elsewhere:
    """As peers.followed.Followed, until it is accepted.

    Attributes:
        settled: it is accepted, or over.
    """

    id: str
    settled: Flag
    accepted: bool = False
    ended: bool = False
    error: RequestError | None = None
    scope: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(cancel_called=False))


class Requests:
    """Takes requests: the gateway and the cluster, as Placing sees them.

    Args:
        new_id: an id that no other generation has.
        servers: all that run.
    """

    def __init__(
        self,
        server: Server,
        scheduler: Scheduler,
        rng: random.Random,
        new_id: Callable[[], str],
        servers: Callable[[], list[Server]],
    ) -> None:
        self._server = server
        self._scheduler = scheduler
        self._rng = rng
        self._new_id = new_id
        self._servers = servers
        host: Any = self
        self.placing = Placing(host, host, self.route, self._send, self._settle)

    def __repr__(self) -> str:
        return f"<Requests of {self._server!r}>"

    def take(self, request: Generate, answer: Answer) -> None:
        """A client asks; nobody is told what came of it where it is refused."""
        asked = Asked(request, _USER, None, None, None, here=False)
        self._server.do(partial(self._begin, asked, answer, lambda error: None))

    def _begin(
        self, asked: Asked, answer: Answer, refuse: Callable[[RequestError], object]
    ) -> None:
        try:
            found: Any = drive(self.placing.begin(asked))
        except RequestError as error:
            refuse(error)
            return
        while isinstance(found, Running) and not found.accepted:
            self._scheduler.sleep(_LOOK)
            if found.entry.taken is not None or found.suspended or found.ended:
                refuse(LeaseLost("it was not accepted", retry=True))
                return
        answer(found.id)

    # -- the cluster --------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """See Cluster."""
        return self._server.number

    def check_open(self) -> None:
        """See Cluster."""
        if not self._server.is_member:
            raise self._server.life.error()

    async def find(self, id_: str, owner: str | None) -> Elsewhere | None:
        """As Cluster.find: whose row it is, or in whose memory it is."""
        self.check_open()
        place = await self.ask("", partial(leases.place, id_=id_))
        if place is None:
            others = [one for one in self._servers() if one is not self._server]
            having = [one for one in others if one.registry.find(id_, owner) is not None]
            if not any(not one.machine.stopped for one in having):
                if any(one.machine.stopped for one in others):
                    raise LeaseLost("a server does not answer", retry=True)
                return None
        return Elsewhere(id_, self._settled(), accepted=True)

    def _settled(self) -> Flag:
        flag = Flag(self._scheduler)
        flag.set()
        return flag

    async def ask(self, what: str, question: Callable[[Any], _T]) -> _T:
        """See Cluster."""
        return await self._server.ask(what, question)

    async def change(self, what: str, change: Callable[[Any], _T]) -> _T:
        """See Cluster."""
        return await self._server.change(what, change)

    # -- the gateway --------------------------------------------------------------------------

    @property
    def registry(self) -> Registry:
        """See Hosting."""
        return self._server.registry

    def submit(
        self,
        request: Generate,
        user: Any,
        api: dict[str, Any] | None = None,
        previous: Any = None,
        id_: str | None = None,
    ) -> Running:
        """As Intake.submit."""
        server = self._server
        if server.draining:
            raise ShuttingDown("the server is shutting down", retry=True)
        self.check_open()
        if server.mirror.failed is not None:
            raise LeaseLost("the copy of the journal takes nothing", retry=True)
        if (same := self.registry.with_key(request.key or "", user.name)) is not None:
            return same
        opened = Opened(
            generation=id_ or self._new_id(),
            request={"tokens": request.params["n_predict"]},
            level=Level(request.level or ""),
            key=request.key,
            request_hash=hash_of_request(request, api),
            owner=user.name,
        )
        return server.begin(opened)

    def level(self, wanted: str | None) -> Level:
        """See Hosting."""
        return Level(wanted or "")

    async def find_by_key(self, key: str, owner: str) -> Elsewhere | None:
        """As Finder.find_by_key, of what is over."""
        held = await self._server.held(owner, key)
        if held is None or not held.over:
            return None
        return Elsewhere(held.generation, self._settled(), accepted=True)

    def asked_elsewhere(self, model: str | None) -> bool:
        """See Hosting: a request waits here, too."""
        return False

    def only_elsewhere(self, model: str | None) -> bool:
        """See Hosting: as `asked_elsewhere`."""
        return False

    def keeps_alone(self, id_: str) -> bool:
        """See Hosting."""
        return self._server.keeps_alone(id_)

    # -- other servers ------------------------------------------------------------------------

    def route(self, model: str | None) -> int | None:
        """As Owners.route, but by chance."""
        if self._rng.random() >= _SENT:
            return None
        return self._rng.choice(found) if (found := self._server.owners.having()) else None

    def _send(self, asked: Asked, server: int) -> Any:
        """As Peers.submit."""
        sent = Elsewhere(self._new_id(), Flag(self._scheduler))
        self._server.do(partial(self._have_run, asked.send(), sent, server))
        return sent

    def _have_run(self, request: Generate, sent: Elsewhere, server: int) -> None:
        """As peers.following: once; what is lost on the way may still be accepted there."""
        self._scheduler.sleep(self._rng.random() * _WAY)
        there = next((one for one in self._servers() if one.number == server), None)
        if there is not None:
            asked = Asked(request, _USER, None, None, sent.id, here=True)
            there.do(
                partial(
                    there.requests._begin,
                    asked,
                    lambda id_: self._answered(sent, id_),
                    lambda error: self._answered(sent, sent.id, error),
                )
            )
        while not sent.settled.wait(_LOOK):
            if there is None or not there.machine.alive or self._rng.random() < _BROKEN * _LOOK:
                error = LeaseLost("the server that was to run this request is gone", retry=True)
                self._answered(sent, sent.id, error)

    def _answered(self, sent: Elsewhere, id_: str, error: RequestError | None = None) -> None:
        if not sent.settled.is_set():
            sent.id, sent.error = id_, error
            sent.accepted, sent.ended = error is None, error is not None
            sent.settled.set()

    async def _settle(self, generation: Any) -> None:
        """As Cluster._settle."""
        if isinstance(generation, Elsewhere):
            generation.settled.wait()
            check_sent(generation)  # type: ignore[arg-type]

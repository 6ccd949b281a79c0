"""The server as its cluster sees it; see cluster/host.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Left, Persistence
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.registry import Registry
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.server.generations.finder import Finder
from llcuda_net.server.generations.intake import Intake
from llcuda_net.server.generations.resumption import Resumption
from llcuda_net.server.generations.waiting import Waiting
from llcuda_net.server.tcp.listener import Listener
from llcuda_net.storage.records import Level, Result
from llcuda_net.storage.replica.interface import Former
from llcuda_net.storage.starting import Recovered
from llcuda_net.telemetry.observers import ServerState
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import Generate

if TYPE_CHECKING:
    from llcuda_net.server.cluster.cluster import Cluster


@dataclass
class Hosting:
    """The parts of a server of which the others of its cluster have something."""

    settings: Settings
    users: Users
    pool: Pool
    scheduler: Scheduler
    registry: Registry
    listener: Listener
    standing: ServerState
    persistence: Persistence
    publisher: Publisher
    intake: Intake
    finder: Finder
    waiting: Waiting
    resumption: Resumption
    cluster: Cluster | None

    @property
    def draining(self) -> bool:
        """Whether the server stops."""
        return self.standing.draining

    def known_user(self, name: str) -> User | None:
        """The user of a name; None: there is none, or none any more."""
        return self.users.known(name)

    def flush(self) -> None:
        """Send what waits in write buffers."""
        self.publisher.flush()

    # -- requests ----------------------------------------------------------------------------

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        """Start a generation here; see Intake.submit."""
        return self.intake.submit(request, user, api, previous, id_)

    def outline(self, request: Generate, user: User, api: dict[str, Any] | None) -> Generation:
        """The generation that a request asks for, which does not run. Raises RequestError."""
        return self.intake.outline(request, user, api)

    def level(self, wanted: str | None) -> Level:
        """The level in force for a request that wants this one.

        Raises:
            RequestError: there is no such level, or this server does not have it.
        """
        return self.persistence.level(wanted)

    def asked_elsewhere(self, model: str | None) -> bool:
        """Whether another server of the cluster asks upstreams of a model, or will soon."""
        return self.pool.asked_elsewhere(model)

    def only_elsewhere(self, model: str | None) -> bool:
        """Whether other servers of the cluster alone ask the upstreams of a model."""
        return self.pool.only_elsewhere(model)

    # -- what there is -----------------------------------------------------------------------

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's idempotency key means, running or over. Raises RequestError."""
        return await self.finder.find_by_key(key, owner)

    async def stored(self, id_: str) -> Result | None:
        """The result of anybody's generation; None: there is none. Raises RequestError."""
        return await self.finder.stored(id_)

    def keeps_alone(self, id_: str) -> bool:
        """Whether one that is over or set aside is here, and where nobody else finds it."""
        return self.persistence.keeps_alone(id_)

    def without_upstream(self) -> list[tuple[Generation, str | None]]:
        """Generations that wait, and whose model no upstream has now, each with its model's name.

        None in place of the name: the default model.
        """
        stranded = [
            (one, one.model.get("name") or one.wanted) for one in self.registry if one.stranded
        ]
        return stranded + self.waiting.without_upstream()

    def short_of_slots(self, since: float) -> list[tuple[Generation, Ticket]]:
        """Generations that have waited since a time for slots alone, in their order."""
        return self.waiting.short_of_slots(since)

    # -- what goes from one server to another ------------------------------------------------

    async def adopt(self, former: Former) -> None:
        """Take over what a fenced life of a server had; see Resumption.adopt."""
        await self.resumption.adopt(former)

    async def resume(self, entries: Sequence[Recovered], *, whole: bool = False) -> None:
        """Go on with generations of an earlier life, or of another server."""
        await self.resumption.resume(entries, whole=whole)

    def left_aside(self, only: Generation | None = None) -> list[Left]:
        """What was suspended since the last call, or of that just this one: nobody runs it."""
        return self.persistence.left(only)

    def begin_again(self, entries: Sequence[Recovered]) -> None:
        """Have these, which nobody has, be this server's in its new life."""
        self.persistence.begin_again(entries)

    async def committed(self) -> None:
        """Return when other servers could know all that is here.

        Raises:
            RequestError: it cannot be written.
        """
        await self.persistence.sync_all()

    def forget(self, left: Left) -> None:
        """Another server has it: this one's journal need not keep it."""
        self.persistence.forget(left.entry)
        if left.generation.cancelled and self.cluster is not None:
            self.cluster.peers.cancel(left.generation.id)

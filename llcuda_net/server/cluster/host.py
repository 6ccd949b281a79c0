"""What the cluster needs of the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llcuda_net.config.settings import Settings
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Left
from llcuda_net.generation.registry import Registry
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.server.tcp.listener import Listener
from llcuda_net.storage.records import Level, Result
from llcuda_net.storage.replica.interface import Former
from llcuda_net.storage.starting import Recovered
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import Generate


class ClusterHost(Protocol):
    """The gateway, as the cluster sees it."""

    listener: Listener

    @property
    def registry(self) -> Registry:
        """The generations that run here."""

    @property
    def draining(self) -> bool:
        """Whether the server stops."""

    async def adopt(self, former: Former) -> None:
        """Take over what a fenced life of a server had; raises StorageError."""

    async def resume(self, entries: Sequence[Recovered], *, whole: bool = False) -> None:
        """Go on with generations of an earlier life, or of another server.

        Args:
            whole: their readers have nothing that is not in these entries.
        """

    def left_aside(self) -> list[Left]:
        """What was suspended since the last call."""

    def begin_again(self, entries: Sequence[Recovered]) -> None:
        """Have these, which nobody has, be this server's in its new life."""

    def forget(self, left: Left) -> None:
        """Another server has it: this one's journal need not keep it."""

    def known_user(self, name: str) -> User | None:
        """The user of a name; None: there is none."""

    async def stored(self, id_: str) -> Result | None:
        """The result of anybody's generation; None: there is none. Raises RequestError."""

    def flush(self) -> None:
        """Send what waits in write buffers."""

    def outline(self, request: Generate, user: User, api: dict[str, Any] | None) -> Generation:
        """The generation that a request asks for, which does not run. Raises RequestError."""


class OwnersHost(ClusterHost, Protocol):
    """The gateway, for who owns upstreams and takes requests."""

    settings: Settings

    @property
    def pool(self) -> Pool:
        """The upstreams."""

    @property
    def scheduler(self) -> Scheduler:
        """The queue for their slots."""

    def level(self, wanted: str | None) -> Level:
        """The level in force for a request; raises RequestError."""

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        """Start a generation here; raises RequestError."""

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's key means, running or over; raises RequestError."""

    def asked_elsewhere(self, model: str | None) -> bool:
        """Whether another server asks upstreams of a model, or will soon."""

    def only_elsewhere(self, model: str | None) -> bool:
        """Whether other servers alone do."""

    def keeps_alone(self, id_: str) -> bool:
        """Whether one that is over or set aside is here, and where nobody else finds it."""

    def left_aside(self, only: Generation | None = None) -> list[Left]:
        """What was suspended since the last call; or of that just this one."""

    def without_upstream(self) -> list[tuple[Generation, str | None]]:
        """Generations that wait, and whose model no upstream of this server has now, each with
        the name of that model; None: the default one.
        """

    def short_of_slots(self, since: float) -> list[tuple[Generation, Ticket]]:
        """Generations that have waited since a time for slots alone, in their order."""

    async def committed(self) -> None:
        """Return when other servers could know all that is here; raises RequestError."""

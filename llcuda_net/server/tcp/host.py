"""What a session needs of the server that it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.publisher import Flushable
from llcuda_net.server.generations.intake import Intake
from llcuda_net.server.tcp.queries import QueryHost
from llcuda_net.server.tcp.room import Incoming, Unsent
from llcuda_protocol import Hello


class GreetedPeer(NamedTuple):
    """Another server of the cluster, which asks for a user.

    Attributes:
        proof: that this server is of the cluster, too.
        again: the user as they are later; None: there is none any more.
    """

    user: User
    proof: bytes
    again: Callable[[], User | None]


class SessionHost(QueryHost, Protocol):
    """What a session needs of the gateway; every request comes with the user whose it is."""

    settings: Settings
    users: Users
    agent: str
    unflushed: set[Flushable]
    unsent: Unsent
    incoming: Incoming
    #: Begins generations.
    intake: Intake

    @property
    def shared(self) -> bool:
        """Whether this server is one of a cluster, where `begin` takes the place of `submit`."""

    @property
    def draining(self) -> bool:
        """Whether the server stops; one of a cluster still lets the other servers in."""

    @property
    def starting(self) -> bool:
        """Whether requests must wait for `started`."""

    async def started(self, user: User, size: int) -> None:
        """Return when the server has started, for a request that takes so much memory meanwhile,
        or raise RequestError.
        """

    def greet_peer(self, hello: Hello, *, under_tls: bool) -> GreetedPeer | None:
        """Whom another server of the cluster asks for; None: it is none, or there is no such user.

        Args:
            under_tls: whether this server's certificate was shown.
        """

    def left(self, generation: Generation) -> None:
        """A stream reads a generation no longer."""

    def recall(self, generation: Generation) -> None:
        """A stream needs the log of a generation that was dropped from memory."""

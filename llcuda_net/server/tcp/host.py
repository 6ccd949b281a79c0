"""What a session needs of the server that it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.publisher import Flushable
from llcuda_net.server.tcp.queries import QueryHost
from llcuda_net.server.tcp.room import Incoming, Unsent
from llcuda_net.storage.records import Result
from llcuda_protocol import Attach, Generate, Hello


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

    async def find_previous(self, request: Generate, user: User) -> Result | Generation:
        """What a request names as the previous generation, for `submit`; or the generation that
        its key means already; or raise RequestError.
        """

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
    ) -> Generation:
        """Start a generation, or join the one with the same key; or raise RequestError."""

    async def begin(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        *,
        id_: str | None = None,
        here: bool = False,
    ) -> Generation:
        """The same on any server of a cluster, or only `here`; or raise RequestError.

        Args:
            id_: of a new generation; None: any.
        """

    async def find(self, request: Attach, user: User, *, only_here: bool = False) -> Generation:
        """The generation to read, running or stored, or raise RequestError.

        Args:
            only_here: only in the memory of this server.
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

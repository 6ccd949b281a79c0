"""What a session needs of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from llcuda_net.analysis.vector_index import Found
from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.server.tcp.write_buffer import Outbox
from llcuda_protocol import Attach, Generate, ListGenerations

if TYPE_CHECKING:
    from llcuda_net.server.tcp.session import Session


class Host(Protocol):
    """What a session needs of its server; every request comes with the user whose it is."""

    settings: Settings
    users: Users
    agent: str
    unflushed: set[Outbox]

    @property
    def full(self) -> bool:
        """Whether one more client would be too many."""

    def session_greeted(self, session: Session) -> None:
        """A session's client has been let in."""

    def submit(self, request: Generate, user: User) -> Generation:
        """Start a generation, or join the one with the same key; or raise RequestError."""

    async def find(self, request: Attach, user: User) -> Generation:
        """The generation to read, running or stored, or raise RequestError."""

    def left(self, generation: Generation) -> None:
        """A stream reads a generation no longer."""

    async def embed(self, texts: list[str], user: User, model: str | None) -> list[bytes]:
        """A vector a text, float32, little-endian, or raise RequestError."""

    async def search(self, text: str, k: int, user: User) -> Found:
        """The k results nearest to a text, or raise RequestError."""

    async def list_generations(self, request: ListGenerations, user: User) -> list[dict[str, Any]]:
        """Generations, newest first, as the protocol's entries, or raise RequestError."""

    async def report(self, user: User) -> dict[str, Any]:
        """What a status request is answered with."""

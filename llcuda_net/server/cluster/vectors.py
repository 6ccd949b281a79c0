"""The vectors of the other servers: which they hold, and what they find in them.

What each holds it says with its load, each second. That is a hint: what it has searched, its answer
says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import structlog
import trio

from llcuda_net.analysis.shards import Question, Shards
from llcuda_net.analysis.vector_index import Answer, Found
from llcuda_net.client.connection import ServerConnection
from llcuda_net.cluster.leases import Member
from llcuda_net.cluster.owners.buckets import assigned
from llcuda_net.cluster.owners.loads import OtherLoad
from llcuda_net.config.users import User, view_of
from llcuda_net.errors import ConnectError, LlcudaError, RequestError, UpstreamUnavailable
from llcuda_net.server.cluster.peers.asking import nearest_at, search_at
from llcuda_net.server.cluster.peers.connections import Place
from llcuda_net.storage.results.buckets import packed, unpacked

log = structlog.get_logger(__name__)

#: Seconds that a server has to search its part: what it does not cover is read from the database.
ANSWER = 2.0


class Embedders(Protocol):
    """What is needed of where requests go."""

    def embedder(self, model: str | None, asked: Collection[int] = ()) -> int | None:
        """The server that embeds texts with a model, none of these; None: this one, or none."""


class Loads(Protocol):
    """What is needed of the loads of all servers."""

    others: list[OtherLoad]

    @property
    def routing(self) -> Embedders:
        """Where requests go."""


class Connecting(Protocol):
    """What is needed of the other servers."""

    async def connect(self, place: Place, user: str | None) -> ServerConnection:
        """A connection for a user; raises ConnectError."""


class VectorsCluster(Protocol):
    """What is needed of the cluster."""

    @property
    def number(self) -> int:
        """Of this server's life."""

    @property
    def members(self) -> Sequence[Member]:
        """The servers whose leases hold."""

    @property
    def owners(self) -> Loads:
        """What the other servers say of themselves."""

    @property
    def peers(self) -> Connecting:
        """Connects to them."""


class ClusterVectors:
    """The other servers, as a search by meaning sees them; see OtherShards.

    Attributes:
        shards: what this server holds; None: it analyses nothing.
    """

    def __init__(self, cluster: VectorsCluster) -> None:
        self.shards: Shards | None = None
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<ClusterVectors of {self.shards!r}>"

    def report(self) -> dict[int, bytes] | None:
        """What this server holds, for its load; None: it takes no part."""
        if self.shards is None:
            return None
        return {space: packed(buckets) for space, buckets in self.shards.holds().items()}

    # -- see OtherShards --------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """See OtherShards."""
        return self._cluster.number

    def parts(self) -> Mapping[int, int]:
        """See OtherShards."""
        living = {one.number for one in self._cluster.members}
        others = {one.server for one in self._cluster.owners.others}
        if self.number not in living or not living - {self.number} <= others:
            return {}  # it has no say now, or has not heard yet what the others do
        return assigned([self.number, *self._said()])

    def held(self, space: int) -> Mapping[int, int]:
        """See OtherShards."""
        return {
            server: unpacked(held[space]) for server, held in self._said().items() if space in held
        }

    def newest_space(self) -> int | None:
        """See OtherShards."""
        return max((space for held in self._said().values() for space in held), default=None)

    def _said(self) -> dict[int, dict[int, bytes]]:
        """What each other live server says that it holds, of those that take part."""
        living = {one.number for one in self._cluster.members}
        return {
            one.server: one.load.vectors
            for one in self._cluster.owners.others
            if one.load.vectors is not None and one.server in living
        }

    async def ask(
        self, server: int, question: Question, buckets: int, gone: Collection[int]
    ) -> Answer | None:
        """See OtherShards."""
        place = self._place(server)
        if place is None:
            return None
        try:
            with trio.fail_after(ANSWER):
                connection = await self._cluster.peers.connect(place, question.owner)
                return await nearest_at(connection, question, buckets, gone)
        except (LlcudaError, trio.TooSlowError) as error:
            log.debug("peer_did_not_search", number=server, reason=str(error))
            return None

    # -- whole searches ---------------------------------------------------------------------------

    async def search(self, text: str, k: int, user: User) -> Found | None:
        """What a server finds that embeds texts; None: none of the others does.

        Raises:
            RequestError: it refuses, or cannot be reached.
        """
        asked: list[int] = []
        failure: RequestError | None = None
        embedder = self._cluster.owners.routing.embedder
        while self.shards is not None and (server := embedder(None, asked)) is not None:
            asked.append(server)
            place = self._place(server)
            if place is None:
                continue
            try:
                connection = await self._cluster.peers.connect(place, user.name)
                found, usage = await search_at(connection, text, k)
            except ConnectError as error:
                failure = UpstreamUnavailable(
                    f"the server that embeds texts cannot be reached: {error}", retry=True
                )
            except UpstreamUnavailable as error:
                failure = error
            else:
                hits = await self.shards.results(found, view_of(user))
                return Found(hits, usage.get("searched", 0), usage.get("backlog", 0), user.admin)
        if failure is not None:
            raise failure
        return None

    def _place(self, server: int) -> Place | None:
        for member in self._cluster.members:
            if member.number == server:
                return Place(member.number, member.address)
        return None

"""The other servers of the cluster, as those see them who ask this one.

What of a user is not here is looked for in the database, and then, since a generation that is kept
in memory only is in no database, in the memory of each other server. Whoever asks sees what they
would see there, and no more: each question goes out in the name of its user.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import structlog
import trio

from llcuda_net.client.connection import ServerConnection
from llcuda_net.cluster import keys, leases
from llcuda_net.cluster.greeting import Greeting
from llcuda_net.cluster.leases import Member
from llcuda_net.config.users import User
from llcuda_net.errors import (
    ConnectError,
    InvalidRequest,
    LeaseLost,
    LlcudaError,
    UpstreamUnavailable,
)
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.listing import from_elsewhere
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.peers.asking import delete_at, embed_at_any, has, list_at
from llcuda_net.server.cluster.peers.connections import Connections, Place
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.cluster.peers.following import Awaited, feed
from llcuda_net.server.tcp.host import GreetedPeer
from llcuda_net.server.tcp.peers.stream import PeerStream
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.records import Result
from llcuda_protocol import Generate, Hello

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds that somebody waits for a generation whose server does not answer, and that a server has
#: to say what it has.
PATIENCE, ANSWER = 20.0, 2.0
#: Seconds for which an answer about what runs elsewhere is good.
FRESH = 1.0


class PeersHost(Protocol):
    """What is needed of the gateway."""

    def known_user(self, name: str) -> User | None:
        """The user of a name; None: there is none."""

    async def stored(self, id_: str) -> Result | None:
        """The result of anybody's generation; None: there is none. Raises RequestError."""

    def flush(self) -> None:
        """Send what waits in write buffers."""

    def outline(self, request: Generate, user: User, api: dict[str, Any] | None) -> Generation:
        """The generation that a request asks for, which does not run. Raises RequestError."""


class PeersCluster(Protocol):
    """What is needed of the cluster."""

    @property
    def number(self) -> int:
        """Of this server's life."""

    @property
    def members(self) -> Sequence[Member]:
        """The servers whose leases hold."""

    async def ask(self, what: str, question: Callable[[Connection], _T]) -> _T:
        """Ask the database something. Raises RequestError."""


class Peers:
    """The other servers of the cluster.

    Args:
        secret: of the cluster.
        certificate: the hash of the one that this server shows; empty: none.
    """

    def __init__(
        self, cluster: PeersCluster, host: PeersHost, secret: bytes, certificate: bytes
    ) -> None:
        self._cluster = cluster
        self._host = host
        self._certificate = certificate
        self._secret = secret
        self._connections: Connections
        self._nursery: trio.Nursery | None = None
        self._known: WeakValueDictionary[str, Followed] = WeakValueDictionary()
        self._lists: dict[str | None, tuple[float, list[dict[str, Any]]]] = {}

    def __repr__(self) -> str:
        return f"<Peers, {len(self._known)} generations followed>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow what is to be followed, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._connections = Connections(
                lambda: self._cluster.number,
                self._secret,
                self._nursery,
                tls=bool(self._certificate),
            )
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._connections.close()

    @property
    def followed(self) -> list[Followed]:
        """What is followed, or was, and is still held by somebody."""
        return list(self._known.values())

    def greet(self, hello: Hello, *, under_tls: bool) -> GreetedPeer | None:
        """Whom another server asks for; None: it is none, or there is no such user."""
        if hello.peer is None:
            return None
        greeting = Greeting.of(hello.peer, self._certificate if under_tls else b"")
        if not greeting.is_right(self._secret, hello.token, self._cluster.number):
            return None
        again = partial(self._user, greeting.user)
        user = again()
        return None if user is None else GreetedPeer(user, greeting.answer(self._secret), again)

    def _user(self, name: str | None) -> User | None:
        return User(admin=True) if name is None else self._host.known_user(name)

    # -- what users look for ------------------------------------------------------------------

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        """One that another server has and this owner (None: an admin) may see.

        Raises:
            RequestError: its server does not answer in time, or the database does not.
        """
        followed = self._known.get(id_)
        if followed is None or followed.ended:
            found = await self._server_of(id_, owner)
            if found is None:
                return None
            followed = self._known.get(id_)  # somebody else may have looked, too
            if followed is None or followed.ended:
                followed = self._known[id_] = Followed(self, id_, owner, found)
        with trio.move_on_after(PATIENCE):
            await followed.wait()
        if not followed.link.ready.is_set():
            raise _ask_again(
                "the server that has this generation does not answer, and no other one has it yet"
            )
        if owner not in (None, followed.owner) or not followed.accepted:
            return None
        return followed

    def cancel(self, id_: str) -> None:
        """Have one stopped that other servers have, or will have, also if that takes a while."""
        followed = self._known.get(id_)
        if followed is None or followed.ended:
            followed = self._known[id_] = Followed(self, id_, None)
        followed.cancel()

    async def _server_of(self, id_: str, owner: str | None) -> int | None:
        """The life of the server that has one, also of one that is gone; None: none has it."""
        place = await self._cluster.ask("it cannot be found", partial(leases.place, id_=id_))
        if place is not None:
            return place.server if owner in (None, place.owner) else None
        found, silent = await self._of_all(owner, partial(has, id_=id_))
        number = next((number for number, has_it in found.items() if has_it), None)
        if number is None:
            _check_all_answered(silent)
        return number

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """One that another server has under an owner's key; None: none has.

        Raises:
            RequestError: as `find`.
        """
        held = await self._cluster.ask(
            "the key cannot be found", partial(keys.find, owner=owner, key=key)
        )
        return None if held is None or held.over else await self.find(held.generation, owner)

    async def states(self, ids: Collection[str], owner: str | None) -> dict[str, State]:
        """The states of those of an owner's (None: anybody's) generations that others have."""
        return {
            one["id"]: State(one["state"]) for one in await self.running(owner) if one["id"] in ids
        }

    async def running(self, owner: str | None) -> list[dict[str, Any]]:
        """What of an owner (None: of everybody) is in the memory of other servers, as entries of
        `listing.listed`. A server that does not answer is left out.
        """
        now = trio.current_time()
        known = self._lists.get(owner)
        if known is not None and now - known[0] < FRESH:
            return known[1]
        for old in [name for name, (at, _) in self._lists.items() if now - at >= FRESH]:
            del self._lists[old]
        answers, _ = await self._of_all(owner, list_at)
        found = [from_elsewhere(one, owner) for entries in answers.values() for one in entries]
        self._lists[owner] = now, found
        return found

    async def delete(self, id_: str, owner: str | None) -> bool:
        """Delete one that is over, and kept in the memory or on the disk of another server alone.

        Raises:
            InvalidRequest: it still runs there.
            RequestError: as `find`.
        """
        place = await self._cluster.ask("it cannot be found", partial(leases.place, id_=id_))
        if place is not None:
            if owner not in (None, place.owner):
                return False
            raise InvalidRequest("it still runs: cancel it first")
        self._lists.clear()
        self._known.pop(id_, None)
        found, silent = await self._of_all(owner, partial(delete_at, id_=id_))
        if not any(found.values()):
            _check_all_answered(silent)
            return False
        return True

    async def _of_all(
        self, owner: str | None, question: Callable[[ServerConnection], Awaitable[_T]]
    ) -> tuple[dict[int, _T], list[str]]:
        """What each other server answers, by its number; and the names of those that do not.

        Raises:
            InvalidRequest: one has refused.
        """
        found: dict[int, _T] = {}
        refusals: list[InvalidRequest] = []
        silent: list[str] = []

        async def ask(place: Place, name: str) -> None:
            try:
                with trio.fail_after(ANSWER):
                    found[place.number] = await question(await self.connect(place, owner))
            except InvalidRequest as error:
                refusals.append(error)
            except (LlcudaError, trio.TooSlowError) as error:
                silent.append(name)
                log.debug("peer_did_not_answer", number=place.number, reason=str(error))

        async with trio.open_nursery() as nursery:
            for member in self._cluster.members:
                if member.number != self._cluster.number:
                    nursery.start_soon(ask, Place(member.number, member.address), member.name)
        for error in refusals:
            raise error
        return found, silent

    # -- what others are to run ---------------------------------------------------------------

    async def embed(
        self,
        texts: Sequence[str],
        user: User,
        model: str | None,
        choose: Callable[[Collection[int]], int | None],
    ) -> list[bytes] | None:
        """A vector a text, float32, little-endian; None: no other server is to make them.

        Args:
            choose: see embed_at_any.

        Raises:
            RequestError: likewise.
        """

        async def connect(server: int) -> ServerConnection | None:
            place = self._living(server)
            return None if place is None else await self.connect(place, user.name)

        return await embed_at_any(texts, model, choose, connect)

    def submit(
        self, request: Generate, user: User, server: int, api: dict[str, Any] | None = None
    ) -> Followed:
        """Have another server run a request.

        Args:
            request: as it came, with a key; what it names as the previous one the other server
                looks for.
            server: the number of its life.
            api: see Generation.

        Returns:
            The generation, not accepted yet. Where the other server refuses it, or is gone, it ends
            with the error.

        Raises:
            RequestError: the request is wrong.
        """
        like = self._host.outline(request, user, api)
        followed = Followed.asked(self, request, user, server, like=like)
        self._known[followed.id] = followed
        self.wake(followed)
        return followed

    def moved(self, generation: Generation) -> None:
        """One that ran here, and was suspended, is another server's now, or this one's again: its
        readers go on with it. Those of other servers are to look for it.
        """
        for reader in tuple(generation.readers):
            if isinstance(reader, PeerStream):
                reader.hand_back(LeaseLost("another server goes on with it", retry=True))
        self._known[generation.id] = followed = Followed.moved(self, generation)
        self.wake(followed)

    # -- see followed.Feeder and following.Sources ---------------------------------------------

    def wake(self, followed: Followed) -> None:
        """See Feeder."""
        if not followed.link.fed and followed.needed and self._nursery is not None:
            followed.link.fed = True
            with contextlib.suppress(RuntimeError):  # the server stops
                self._nursery.start_soon(self._feed, followed)

    def flush(self) -> None:
        """See Feeder."""
        self._host.flush()

    async def _feed(self, followed: Followed) -> None:
        try:
            await feed(followed, self)
        except Exception:  # a bug here must not end the server
            log.exception("following_failed", generation=followed.id)
            if not followed.ended:
                followed.give_up(UpstreamUnavailable("it cannot be followed: see the server's log"))
        finally:
            followed.link.fed = False
        self.wake(followed)

    async def place(self, followed: Followed) -> Place | Result | Awaited | None:
        """See Sources."""
        if followed.link.request is not None:
            return self._living(followed.link.server)
        found = await self._cluster.ask(
            "the generation cannot be found", partial(leases.place, id_=followed.id)
        )
        if found is not None:
            return Awaited() if found.fenced else Place(found.server, found.address)
        # It left `generations` in the transaction in which its result came, if there is one.
        result = await self._host.stored(followed.id)
        return self._living(followed.link.server) if result is None else result

    def _living(self, server: int) -> Place | None:
        for member in self._cluster.members:
            if member.number == server:
                return Place(member.number, member.address)
        return None

    def is_gone(self, server: int) -> bool:
        """See Sources."""
        return bool(self._cluster.members) and self._living(server) is None

    async def connect(self, place: Place, user: str | None) -> ServerConnection:
        """See Sources."""
        if self._nursery is None:
            raise ConnectError("this server has not started yet")
        return await self._connections.get(place, user)


def _check_all_answered(silent: Sequence[str]) -> None:
    """Return if what no server has said that it has is nowhere.

    Raises:
        LeaseLost: these have not answered.
    """
    if silent:
        names = ", ".join(sorted(silent))
        raise _ask_again(f"no server says that it has this generation, and {names} does not answer")


def _ask_again(why: str) -> LeaseLost:
    return LeaseLost(f"{why}: ask again", retry=True, retry_after=1.0)

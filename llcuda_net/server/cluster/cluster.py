"""What the gateway has of the cluster: one object, made where the store is a PostgreSQL.

cluster = Cluster(settings.store, name, address, folder, mirror)
await cluster.join()                      # a life, before anything is read or written
await nursery.start(cluster.hold)         # renews its lease until `leave`
Gateway(…, cluster=cluster)               # which attaches itself, and runs `cluster.run`
await cluster.leave()                     # the others need not wait for the lease's end
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio

from llcuda_net.cluster import keys, leases
from llcuda_net.cluster.leases import Member
from llcuda_net.cluster.membership import Membership
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.cluster.owners.loads import ModelLoad
from llcuda_net.cluster.standing import Standing
from llcuda_net.cluster.takeover import Takeover
from llcuda_net.config.users import User
from llcuda_net.errors import StorageError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import refused
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.handing import Handing
from llcuda_net.server.cluster.host import OwnersHost
from llcuda_net.server.cluster.life import Hooks, Life
from llcuda_net.server.cluster.owners import Owners
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.cluster.peers.peers import Peers
from llcuda_net.server.cluster.placing import Asked, NowhereError, Placing, check_sent
from llcuda_net.server.cluster.vectors import ClusterVectors
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.records import Result
from llcuda_net.storage.replica.interface import Former
from llcuda_protocol import Generate

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class Cluster:
    """A server among others on one database.

    Args:
        url: of the database.
        name: what people call this server.
        address: HOST:PORT at which the others reach it.
        folder: its data directory.
        mirror: copies the journal to the database, as long as a life lasts.
        certificate: the hash of the one that this server shows; empty: it has no TLS.

    Attributes:
        membership: its lives, and who else there is.
        peers: the other servers, as who asks this one sees them.
        hooks: what follows its standing.
        owners: the loads of all servers, and who has which upstream.
        vectors: what the others find by meaning.
    """

    def __init__(
        self,
        url: str,
        name: str,
        address: str,
        folder: Path,
        mirror: Mirror,
        certificate: bytes = b"",
    ) -> None:
        self._certificate = certificate
        self.membership = Membership(url, name, address, folder)
        self._mirror = mirror
        mirror.on_fenced = self.membership.refused
        mirror.claim_keys = keys.claim_accepted
        self.hooks = Hooks()
        self._life = Life(self.membership, self.hooks, self.join, self._orphaned)
        self._sessions = {write: Session(url, write=write) for write in (False, True)}
        self._limiters = {write: trio.CapacityLimiter(1) for write in (False, True)}
        self._host: OwnersHost
        self.owners: Owners
        self._placing: Placing
        self._handing: Handing
        self._takeover = Takeover(url, self.membership, self._adopt)
        self.peers: Peers
        self.vectors = ClusterVectors(self)
        self._over = trio.Event()
        self._looks = trio.Event()
        self._resumed = trio.Event()

    def __repr__(self) -> str:
        return f"<Cluster {self.membership!r}, {len(self.membership.members)} members>"

    @property
    def name(self) -> str:
        """What people call this server."""
        return self.membership.name

    @property
    def number(self) -> int:
        """Of this server's life; another one after a fence."""
        return self.membership.number

    @property
    def is_member(self) -> bool:
        """Whether requests may begin here."""
        return self._life.member and self.membership.may_begin()

    @property
    def trouble(self) -> str | None:
        """Why its lease could not be renewed just now."""
        return self.membership.trouble

    @property
    def members(self) -> Sequence[Member]:
        """The servers that are not fenced, this one among them."""
        return self.membership.members

    @property
    def taken_over(self) -> tuple[int, int]:
        """From how many servers this one has taken over, and how many generations."""
        return self._takeover.servers, self._takeover.generations

    def standing(self) -> Standing:
        """What this server is for the others, as far as it knows."""
        return self.membership.standing()

    # -- life ---------------------------------------------------------------------------------

    async def join(self) -> int:
        """Begin a life; its number.

        Raises:
            StorageError: the database cannot be used.
        """
        membership = self.membership
        number = await trio.to_thread.run_sync(membership.join)
        self._mirror.begin(number, membership.former, membership.settled)
        return number

    async def hold(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Renew the lease until `leave`, or until cancelled."""
        token = trio.lowlevel.current_trio_token()

        def news() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._news, idempotent=True)

        self.membership.on_news = news
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold)
            task_status.started()
            try:
                await self._over.wait()
            finally:
                self.membership.stop()

    def _news(self) -> None:
        self.membership.alive()
        self._life.news()
        if self.membership.due:
            self._looks.set()

    async def _hold(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.membership.run, limiter=trio.CapacityLimiter(1))
        self._over.set()

    def attach(self, host: OwnersHost) -> None:
        """This is the gateway; before `run`."""
        self._host = host
        self.peers = Peers(self, host, self.membership.secret, self._certificate)
        self.owners = Owners(
            self,
            host.pool,
            host.scheduler,
            claims=bool(host.settings.upstream),
            leaving=lambda: host.draining,
            due=lambda model_key: self._handing.due[model_key],
        )
        self.owners.vectors = self.vectors.report
        routing = self.owners.routing
        self._placing = Placing(self, host, routing.route, self._send, self._settle)
        self._handing = Handing(self, host, routing.route, routing.room, self.peers.moved)
        self.hooks.stopped.append(self.owners.stopped)
        self.hooks.life.append(self.owners.life)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the standing, and the others; runs until cancelled.

        Until `resumed` nothing is done about the standing, nor for others.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            await nursery.start(self.peers.run)
            await nursery.start(self.owners.run)
            nursery.start_soon(self._placing.sweep)
            nursery.start_soon(self._handing.run)
            for life in self.hooks.life:
                life(self.number)
            task_status.started()

    def resumed(self) -> None:
        """What an earlier life of this server left goes on: it can be stopped now."""
        self._resumed.set()

    async def _follow(self) -> None:
        await self._resumed.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._life.follow, self._host)
            nursery.start_soon(self._take_over)

    async def _take_over(self) -> None:
        """Take over from servers whose leases are over; runs until cancelled."""
        while True:
            await self._looks.wait()
            self._looks = trio.Event()
            async with self._life.changing:
                if self._life.member and not self._host.draining:
                    try:
                        await self._takeover.look()
                    except Exception:  # or what ends this server would end its heirs, too
                        log.exception("takeover_crashed")

    async def _adopt(self, former: Former) -> None:
        await self._host.adopt(former)
        self._handing.came(former)

    async def leave(self) -> None:
        """End this life, after all that writes has ended; what is left others adopt at once."""
        self.membership.stop()
        await self._over.wait()
        try:
            await trio.to_thread.run_sync(self.membership.leave)
        except StorageError as error:
            log.warning("cluster_not_left", reason=error.message)
        await trio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self.membership.close()
        self._takeover.close()
        for session in self._sessions.values():
            session.close()

    # -- the database -------------------------------------------------------------------------

    async def ask(self, what: str, question: Callable[[Connection], _T]) -> _T:
        """Ask something, in a thread.

        Args:
            what: how the message of an error begins.

        Raises:
            RequestError: the database does not answer.
        """
        return await self._in_thread(False, partial(self._sessions[False].ask, what, question))

    async def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        """Do something in one transaction, in a thread; it may be called more than once.

        Raises:
            RequestError: it was not done, or that is not known.
        """
        return await self._in_thread(True, partial(self._sessions[True].change, what, change))

    async def _in_thread(self, write: bool, work: Callable[[], _T]) -> _T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiters[write])
        except StorageError as error:
            raise refused(error) from None

    async def _orphaned(self, ids: Collection[str]) -> Collection[str]:
        if not ids:
            return ()
        return await self.ask("generations cannot be found", partial(leases.orphaned, ids=[*ids]))

    # -- what the gateway asks ----------------------------------------------------------------

    def check_open(self) -> None:
        """Return if requests may begin here.

        Raises:
            LeaseLost: not now.
        """
        if not self.is_member:
            raise self._life.error()

    async def begin(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None,
        previous: Result | None,
        id_: str | None,
        *,
        here: bool,
    ) -> Generation:
        """Start a generation on any server, or join the one that has its key; see Gateway.begin.

        Raises:
            RequestError: it cannot be begun now.
        """
        return await self._placing.begin(Asked(request, user, api, previous, id_, here=here))

    def _send(self, asked: Asked, server: int) -> Generation:
        """Have another server run a request. Raises RequestError where the request is wrong."""
        return self.peers.submit(asked.send(), asked.user, server, asked.api)

    async def _settle(self, generation: Generation) -> None:
        """Return when what was sent to another server is accepted, or over.

        Raises:
            NowhereError: it was refused there, and may be accepted elsewhere.
        """
        if isinstance(generation, Followed):
            await generation.wait()
            try:
                check_sent(generation)
            except NowhereError:
                self.owners.routing.refused(generation.link.server, generation.wanted)
                raise

    async def embed(
        self, texts: Sequence[str], user: User, model: str | None
    ) -> list[bytes] | None:
        """A vector a text, by a server that embeds texts with a model; None: that is this one.

        Raises:
            RequestError: as `Peers.embed`.
        """
        return await self.peers.embed(
            texts, user, model, partial(self.owners.routing.embedder, model)
        )

    @property
    def models(self) -> Mapping[str, ModelLoad]:
        """The models that other servers have, by each of their names."""
        return self.owners.routing.models

    def may_show(self) -> bool:
        """Whether readers may see what the database does not have."""
        if self.membership.may_begin():
            return True
        self._life.news()
        return False

    def check_shown(self) -> None:
        """Return if readers may be shown what runs here.

        Raises:
            LeaseLost: not now, since another server may have it: by the clock, which is asked.
        """
        if not self.may_show():
            raise self._life.error()

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        """A generation of this owner (None: of any) that another server has; None: none has it.

        Raises:
            RequestError: that cannot be said now.
        """
        self.check_open()
        return await self.peers.find(id_, owner)

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's idempotency key means on another server; None: nothing.

        Raises:
            RequestError: that cannot be said now.
        """
        return await self.peers.find_by_key(key, owner)

    async def cancel_keys(self, owner: str, prefix: str) -> None:
        """End what other servers run, or will, under an owner's keys of this beginning.

        Raises:
            RequestError: the database does not answer.
        """
        begun = partial(keys.begun, owner=owner, prefix=prefix)
        for id_ in await self.ask("what has these keys cannot be found", begun):
            if self._host.registry.find(id_, None) is None:
                self.peers.cancel(id_)

    async def states(self, ids: Collection[str], owner: str | None) -> dict[str, State]:
        """The states of those of an owner's (None: anybody's) generations that others have."""
        return await self.peers.states(ids, owner)

    async def delete(self, id_: str, owner: str | None) -> bool:
        """Delete one that another server alone has; see Peers.delete."""
        return await self.peers.delete(id_, owner)

    def report(self) -> dict[str, Any]:
        """How the cluster stands, as the status document has it."""
        standing = self.standing()
        if standing is Standing.MEMBER and not self._life.member:
            standing = Standing.STOPPED  # until all that it has goes on
        return {
            **self.membership.report(),
            "standing": str(standing),
            "upstreams": self.owners.report(),
            "taken_over": dict(zip(("servers", "generations"), self.taken_over, strict=True)),
            "handed_over": self._handing.handed,
        }

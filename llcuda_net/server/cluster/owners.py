"""Which upstreams this server may ask, and what it exchanges with the others each second.

Each look: say what there is to do here, hear what the others have; count what they have served;
decide about upstreams (see `plan`). An upstream is used no more before the database hears that it
is given, and used only when the claim is committed. Whatever the database says, none is used while
this server is no member.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from llcuda_net.cluster.owners import claims, loads
from llcuda_net.cluster.owners.claims import Claim
from llcuda_net.cluster.owners.loads import Load, ModelLoad, OtherLoad, Served
from llcuda_net.cluster.owners.plan import Mine, Planner, Steps
from llcuda_net.cluster.owners.sharing import LATELY, Sharing, renamed, running_elsewhere
from llcuda_net.cluster.standing import Standing
from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.server.cluster.routing import Routing, names_of
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.pool import Pool

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds between two looks.
LOOK = 1.0
#: Seconds that a model takes to load, where that is not known.
_LOADING = 15.0


class Shared(Protocol):
    """What is asked of the cluster: its database, and this server's place there."""

    @property
    def number(self) -> int:
        """This server's."""

    def standing(self) -> Standing:
        """Whether it is a member."""

    async def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        """Do something in one transaction; raises RequestError."""


class Owners:
    """The upstreams that a server may ask, and the loads of all servers.

    Args:
        cluster: where they agree.
        pool: of this server.
        scheduler: counts what users are served.
        claims: the upstreams are llama-servers that others may ask, too; else they are engines of
            this server.
        leaving: whether it stops: it offers nothing any more.
        due: how many wait here for a model, by its key, that are to go where a slot is free.

    Attributes:
        others: what the other live servers have to do, as was last heard.
        routing: where requests go by that.
        vectors: see Load.
    """

    def __init__(
        self,
        cluster: Shared,
        pool: Pool,
        scheduler: Scheduler,
        *,
        claims: bool,
        leaving: Callable[[], bool] = lambda: False,
        due: Callable[[str], int] = lambda key: 0,
    ) -> None:
        self.others: list[OtherLoad] = []
        self.routing = Routing(lambda: cluster.number, pool, scheduler)
        self.vectors: Callable[[], dict[int, bytes] | None] = lambda: None
        self._cluster = cluster
        self._pool = pool
        self._scheduler = scheduler
        self._claims = claims
        self._leaving = leaving
        self._due = due
        self._planner = Planner()
        self._sharing = Sharing()
        self._known: list[Claim] = []
        self._wake = trio.Event()
        if claims:
            pool.own(())

    def __repr__(self) -> str:
        owned = sum(one.owned for one in self._pool.backends)
        return f"<Owners: {owned} of {len(self._pool.backends)} upstreams, {self.others!r}>"

    # -- from look to look ------------------------------------------------------------------------

    def stopped(self) -> None:
        """This server is no member now: it asks no upstream."""
        self._use(())
        self.others = []
        self.routing.forget()

    def life(self, number: int) -> None:
        """It is a member, again or for the first time."""
        self._wake.set()

    def wake(self) -> None:
        """Look now: a server has come or gone."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look each second, until cancelled; it has looked once when it has started."""
        with trio.move_on_after(LOOK):  # the database may be away
            await self._try()
        task_status.started()
        while True:
            with trio.move_on_after(LOOK):
                await self._wake.wait()
            self._wake = trio.Event()
            await self._try()

    async def _try(self) -> None:
        if self._cluster.standing() is not Standing.MEMBER:
            return
        try:
            await self.look()
        except RequestError as error:
            log.warning("loads_not_exchanged", reason=error.message)
        except Exception:  # a bug here must not end the server
            log.exception("owners_failed")

    async def look(self) -> None:
        """Exchange loads, and take and give upstreams.

        Raises:
            RequestError: the database does not answer.
        """
        number, load = self._cluster.number, self.load()
        self.routing.say(load)

        def exchange(db: Connection) -> tuple[list[OtherLoad], list[Claim]]:
            return loads.exchange(db, number, load), claims.claims(db)

        others, known = await self._change(exchange)
        if not self._is(number):
            return
        self.others, self._known = others, known
        self.routing.hear(others)
        self._pool.hear({k: v for one in others for k, v in one.load.signatures.items()})
        self._count()
        if not self._claims:
            return
        # No turn is given to others between the look at what is in use and its effect.
        steps = self._planner.plan(number, self._mine(), known, others, leaving=self._leaving())
        self._use(steps.use)
        if steps.claim or steps.give or steps.ask or steps.withdraw:
            known = await self._change(partial(_do, me=number, steps=steps))
            if self._is(number):
                mine = {one.url for one in known if one.live and one.server == number}
                self._known = known
                self._use(steps.use | (mine & {*steps.claim}))

    async def _change(self, change: Callable[[Connection], _T]) -> _T:
        return await self._cluster.change("loads cannot be exchanged", change)

    def _is(self, number: int) -> bool:
        """Whether this is still the life that asked."""
        cluster = self._cluster
        return cluster.number == number and cluster.standing() is Standing.MEMBER

    def _use(self, urls: frozenset[str] | tuple[str, ...]) -> None:
        if self._claims:
            self._pool.own(frozenset(urls))

    def _mine(self) -> dict[str, Mine]:
        """The upstreams of the settings, by URL: of a router all models together."""
        found: dict[str, list[Backend]] = {}
        for backend in self._pool.backends:  # those that drain are not reached, and still used
            found.setdefault(backend.spec.place, []).append(backend)
        return {
            url: Mine(
                model=backends[0].model if len(backends) == 1 else "",
                reached=any(one.answers or one.loadable for one in backends),
                used=any(one.in_use for one in self._pool.backends if one.spec.place == url),
                needed=any(self._needed(one) for one in backends),
            )
            for url, backends in found.items()
        }

    def _needed(self, backend: Backend) -> bool:
        """Whether something waits here that no other upstream of this server can serve."""
        if not (backend.owned and backend.model_key):
            return False
        queued, _ = self._scheduler.outlook(backend.model_key)
        return queued > 0 and not any(
            one.up and one is not backend and one.model_key == backend.model_key
            for one in self._pool.backends
        )

    # -- loads ------------------------------------------------------------------------------------

    def load(self) -> Load:
        """What this server has to do now."""
        pool, names = self._pool, self._pool.meanings()
        offers = not self._leaving()
        models: dict[str, ModelLoad] = {}
        for key, name in names.items():
            backends = [one for one in pool.of(key) if one.model_key == key]
            if not backends:
                continue
            queued, wait = self._scheduler.outlook(key)
            up = [one for one in backends if one.up]
            slots = sum(len(one.table) for one in up)
            if not up and any(one.loadable for one in backends):
                slots, wait = 1, _LOADING + (wait or 0.0)
            models[name] = ModelLoad(
                tuple({n for one in backends for n in names_of(one)} - {*names.values()}),
                slots,
                sum(one.free for one in up if not one.resting and not one.leaving),
                queued,
                wait,
                self._due(key),
            )
        lately = self._scheduler.served(trio.current_time() - LATELY)
        served = [
            Served(names.get(key, ""), priority, user, tokens)
            for (key, priority, user), tokens in lately.items()
        ]
        held = 0 if self._claims else len(pool.backends)
        reaches = {url: one.model for url, one in self._mine().items() if one.reached}
        return Load(
            models if offers else {},
            reaches if self._claims and offers else {},
            tuple(served),
            self._scheduler.running_of_users(),
            held,
            tuple(
                dict.fromkeys(
                    name
                    for one in pool.of("", EMBEDDINGS)
                    if offers and one.up and one.model_key and one.model
                    for name in (one.model, *one.spec.aliases)
                )
            ),
            self.vectors(),
            {
                one.spec.place: one.signature
                for one in (pool.of("") if self._claims and offers else ())
                if one.owned and one.signature and one.spec.model is None
            },
        )

    def _count(self) -> None:
        """Take account of what others have served."""
        keys = {name: key for key, name in self._pool.meanings().items()}
        heard = renamed(self._sharing.heard(self.others), keys)
        self._scheduler.served_elsewhere(
            [(one.model, one.priority, one.user, one.tokens) for one in heard],
            running_elsewhere(self.others),
        )

    def report(self) -> list[dict[str, object]]:
        """Who has which upstream, as the status document has it."""
        return [
            {"url": one.url, "server": one.server if one.live else None, "epoch": one.epoch}
            for one in self._known
        ]


def _do(db: Connection, me: int, steps: Steps) -> list[Claim]:
    if steps.claim:
        claims.claim(db, me, steps.claim)
    if steps.give:
        claims.give(db, me, steps.give)
    if steps.ask:
        claims.ask(db, me, steps.ask)
    if steps.withdraw:
        claims.withdraw(db, me, steps.withdraw)
    return claims.claims(db)

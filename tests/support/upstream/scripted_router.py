"""A router whose models are loaded in virtual time, and what watches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from trio.testing import MockClock

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import RequestError, UpstreamBusy, UpstreamError
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Properties, Requirement
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.properties import IsRouter
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.router.client import RouterClient
from llcuda_net.upstream.router.connector import ClosableUpstream, Connector
from llcuda_net.upstream.router.discovery import Discovery
from llcuda_net.upstream.router.listing import ListedModel, Status
from llcuda_net.upstream.slots.lease import Lease
from tests.support.upstream.scripted_upstream import Talker, gone

URL = "http://router:1"


class Model(Talker):
    """A model of a router.

    Attributes:
        fails: its process ends with this code when it is loaded; 0: it does not.
        foreign: somebody else works there, so that it is never evicted.
        exit_code: of its process, where that has failed.
    """

    def __init__(self, router: ScriptedRouter, name: str, aliases: tuple[str, ...]) -> None:
        super().__init__(model=name)
        self.name, self.aliases = name, aliases
        self.code = 0
        self.foreign = False
        self.exit_code: int | None = None
        self.used = 0.0
        self.sleeps = False
        self.on_trouble: Callable[[], None] = lambda: None
        self._router = router
        self._loaded_at: float | None = None

    @property
    def status(self) -> Status:
        if self._loaded_at is None:
            return Status.UNLOADED
        if trio.current_time() < self._loaded_at:
            return Status.LOADING
        if self.code:
            self._loaded_at, self.exit_code = None, self.code
            return Status.UNLOADED
        return Status.SLEEPING if self.sleeps else Status.LOADED

    def begin(self, seconds: float) -> None:
        self._loaded_at = trio.current_time() + seconds
        self.exit_code = None

    def evict(self) -> None:
        """The router ends its process, whatever it works at."""
        self._loaded_at = None
        self.lose()

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._router.away is not None:
            raise self._router.away
        if self.status in (Status.UNLOADED, Status.LOADING):
            self.on_trouble()
            raise UpstreamBusy("the router does not run the model now", retry_after=0.1)
        self.used = trio.current_time()

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._router.away is not None:
            raise self._router.away

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class ScriptedRouter:
    """A server that is a router, or one llama-server.

    Attributes:
        models: by name.
        limit: how many it loads at once.
        seconds: for which a model loads.
        away: it cannot be reached.
        plain: it is one llama-server instead.
        loads: the models that it was asked to load, in order.
        lists: how often its models were listed.
    """

    def __init__(self, *names: str, limit: int | None = None, seconds: float = 1.5) -> None:
        self.models: dict[str, Model] = {}
        self.limit, self.seconds = limit, seconds
        self.away: RequestError | None = None
        self.plain: Talker | None = None
        self.loads: list[str] = []
        self.lists = 0
        for name in names:
            self.add(name)

    def __getitem__(self, name: str) -> Model:
        return self.models[name]

    def add(self, name: str, *aliases: str) -> Model:
        self.models[name] = Model(self, name, aliases)
        return self.models[name]

    def list(self) -> list[ListedModel] | None:
        if self.away is not None:
            raise self.away
        if self.plain is not None:
            return None
        self.lists += 1
        return [
            ListedModel(one.name, one.status, one.aliases, one.exit_code)
            for one in self.models.values()
        ]

    def load(self, name: str) -> None:
        self.loads.append(name)
        if self.away is not None:
            raise self.away
        running = [one for one in self.models.values() if one.status is not Status.UNLOADED]
        if self.limit is not None and len(running) >= self.limit:
            idle = [one for one in running if not one.active and not one.foreign]
            if not idle:
                raise UpstreamBusy("no room", retry=True)
            min(idle, key=lambda one: one.used).evict()
        if name not in self.models:
            raise UpstreamError("the upstream answered 404: File Not Found")
        self.models[name].begin(self.seconds)


class _Client:
    def __init__(self, router: ScriptedRouter) -> None:
        self._router = router

    async def models(self) -> list[ListedModel] | None:
        await trio.lowlevel.checkpoint()
        return self._router.list()

    async def limit(self) -> int | None:
        await trio.lowlevel.checkpoint()
        return self._router.limit

    async def load(self, model: str) -> None:
        await trio.lowlevel.checkpoint()
        self._router.load(model)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _Entrance(Talker):
    """What answers at the URL, before it is known what it is."""

    def __init__(self, router: ScriptedRouter, on_router: Callable[[], Awaitable[None]]) -> None:
        super().__init__(model="plain")
        self._router = router
        self._on_router = on_router

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._router.away is not None:
            raise self._router.away

    async def ask(self) -> Properties:
        await self._answer()
        if self._router.plain is None:
            await self._on_router()
            await trio.lowlevel.checkpoint()
            raise IsRouter("it is a router")
        return await super().ask()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class ScriptedConnector(Connector):
    """Asks a scripted router."""

    def __init__(self, router: ScriptedRouter) -> None:
        super().__init__(Poller(), StreamTimeouts(), None)
        self._router = router

    def router(self, url: str, key: str | None) -> RouterClient:
        return cast(RouterClient, _Client(self._router))

    def entrance(
        self, url: str, key: str | None, on_router: Callable[[], Awaitable[None]]
    ) -> ClosableUpstream:
        found = _Entrance(self._router, on_router)
        found.base_url = url
        return found

    def model(
        self, url: str, key: str | None, model: str, on_trouble: Callable[[], None]
    ) -> ClosableUpstream:
        found = self._router.models[model]
        found.base_url = f"{url}?model={model}"
        found.on_trouble = on_trouble
        return found


class Watched:
    """A pool with a router in it, as the scheduler uses it."""

    def __init__(self, router: ScriptedRouter, pool: Pool, discovery: Discovery) -> None:
        self.router, self.pool, self.discovery = router, pool, discovery

    def of(self, model: str) -> Backend:
        return next(one for one in self.pool.backends if one.model == model and not one.draining)

    def states(self) -> dict[str, str]:
        return {one.model or one.name: one.state for one in self.pool.backends}

    def need(self, model: str | None) -> Requirement:
        return Requirement(self.pool.key_of(model))

    async def placed(self, model: str, seconds: float = 60.0) -> Lease:
        """A slot of a model, asked for as often as the scheduler does."""
        need = self.need(model)
        with trio.fail_after(seconds):
            while (lease := self.pool.place(need, "ann")) is None:
                with trio.move_on_after(1):
                    await self.pool.wait_change()
        return lease

    async def reason(self, model: str, after: float = 0.1) -> str:
        """Why a request for a model has no slot, some seconds after it came."""
        need = self.need(model)
        assert self.pool.place(need) is None
        await trio.sleep(after)
        return self.pool.why(need)


@asynccontextmanager
async def watched(router: ScriptedRouter, **spec: Any) -> AsyncIterator[Watched]:
    """A server with one upstream, some seconds after its start."""
    assert isinstance(trio.lowlevel.current_clock(), MockClock)  # real sleeps are no test
    pool = Pool(may_grow=True)
    async with trio.open_nursery() as nursery:
        found = Discovery(
            UpstreamSpec(URL, "r", **spec), None, ScriptedConnector(router), pool, nursery
        )
        found.open()
        await nursery.start(pool.run)
        await pool.prepare()
        await trio.sleep(5)
        yield Watched(router, pool, found)
        nursery.cancel_scope.cancel()


def away(router: ScriptedRouter) -> None:
    """Its process ends, and those of its models."""
    for one in router.models.values():
        one.evict()
    router.away = gone("the upstream cannot be reached: connection refused")

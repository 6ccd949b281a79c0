"""Finds out whether an upstream is a router, and keeps its models in the pool as backends.

    one llama-server --/props says that it is a router--> a backend per model
    a backend per model --/models lists none, or no states--> one llama-server

While it is a router, its models are listed every other second, and often while one of them is on
its way. A backend is added for each that is new, and drained for each that has gone. Those that are
not loaded are loaded on demand (see residence.py). Nothing else asks a router for a model that is
not loaded, since it would load it, perhaps in the place of another.
"""

from __future__ import annotations

from dataclasses import replace

import structlog
import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import RequestError, UpstreamNotReady, UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Wishes
from llcuda_net.upstream.router.connector import ClosableUpstream, Connector
from llcuda_net.upstream.router.listing import ListedModel
from llcuda_net.upstream.router.model import PAUSE, RoutedModel
from llcuda_net.upstream.router.plan import plan

log = structlog.get_logger(__name__)

#: Seconds between two lists of the models; while one is loaded, leaves, or is waited for.
INTERVAL, SOON = 2.0, 0.2
#: Models that a log line names.
_NAMED = 20


class Discovery:
    """What is behind one upstream of the settings.

    Args:
        spec: as the operator describes it; where it has a model, only that one of a router is used.
        key: its API key.
        connector: asks it.
        pool: gets its backends.
        nursery: runs what watches it while it is a router.

    Attributes:
        backends: those of it that are in use now; others may still drain.

    Raises:
        ConfigError: the URL is none, or there are two kinds of credentials.
    """

    def __init__(
        self,
        spec: UpstreamSpec,
        key: str | None,
        connector: Connector,
        pool: Pool,
        nursery: trio.Nursery,
    ) -> None:
        self.spec = spec
        self.key = key
        self._connector = connector
        self._pool = pool
        self._nursery = nursery
        self._client = connector.router(spec.url, key)
        self._models: dict[str, RoutedModel] = {}
        self._servers: dict[Backend, ClosableUpstream] = {}
        self._wishes = Wishes()
        self._limit: int | None = None
        self._away = False
        self._entering = trio.Lock()
        self._scope: trio.CancelScope | None = None
        self._entrance: Backend | None = self._make_entrance()

    def __repr__(self) -> str:
        what = f"router with {len(self._models)} models" if self._models else "one llama-server"
        return f"<Discovery of {self.spec.name}: {what}>"

    @property
    def backends(self) -> list[Backend]:
        """Those of it that are in use now."""
        if self._entrance is not None:
            return [self._entrance]
        return [one.backend for one in self._models.values()]

    # -- for whoever has the settings -----------------------------------------------------------

    def open(self) -> None:
        """Add it to the pool, as one llama-server: what it is, it says when it is asked."""
        for backend in self.backends:
            self._pool.add(backend)

    def apply(self, spec: UpstreamSpec) -> None:
        """Apply a changed spec, in which weight or slots are different."""
        self.spec = spec
        for backend in self.backends:
            backend.apply(replace(backend.spec, weight=spec.weight, slots=spec.slots))

    def close(self) -> None:
        """Drain all of it."""
        if self._scope is not None:
            self._scope.cancel()
        for backend in self.backends:
            self._pool.drain(backend)

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._client.aclose()
        for server in self._servers.values():
            await server.aclose()

    # -- what it is -----------------------------------------------------------------------------

    def _make_entrance(self) -> Backend:
        server = self._connector.entrance(self.spec.url, self.key, self._enter)
        backend = Backend(self.spec, server, folder=self._connector.folder)
        self._servers[backend] = server
        return backend

    async def _enter(self) -> None:
        """It has said that it is a router: put its models in its place, and watch them.

        Raises:
            RequestError: it does not list any that is to be used.
        """
        async with self._entering:
            entrance = self._entrance
            if entrance is None or entrance.draining:
                return
            listed = await self._client.models()
            self._limit = await self._client.limit()
            if entrance.draining:  # it was closed meanwhile
                return
            mine = self._mine(listed or [])
            if not mine:
                raise UpstreamNotReady(self._nothing(listed or []), retry=True)
            for model in mine:
                self._models[model.name] = self._make_model(model)
            self._entrance = None
            log.info(
                "router_found",
                upstream=self.spec.name,
                models=[one.name for one in mine][:_NAMED],
                at_once=self._limit,
            )
            self._pool.replace(entrance, self.backends)
            self._scope = trio.CancelScope()
            self._nursery.start_soon(self._run, self._scope)

    def _leave(self) -> None:
        """It is no router any more: put one llama-server in the place of its models."""
        log.info("router_gone", upstream=self.spec.name)
        gone = self.backends
        self._models = {}
        self._entrance = self._make_entrance()
        self._pool.replace(gone[0], self.backends)
        for backend in gone[1:]:
            self._pool.drain(backend)

    def _mine(self, listed: list[ListedModel]) -> list[ListedModel]:
        """Those that are to be used."""
        wanted = self.spec.model
        return [one for one in listed if wanted is None or wanted in (one.name, *one.aliases)]

    def _nothing(self, listed: list[ListedModel]) -> str:
        if self.spec.model is None:
            return "the router has no models; see its --models-dir and --models-preset"
        names = ", ".join(one.name for one in listed[:_NAMED]) or "none"
        return f"the router has no model {self.spec.model!r}; it has: {names}"[:500]

    def _make_model(self, listed: ListedModel) -> RoutedModel:
        connector, spec = self._connector, self.spec
        server = connector.model(spec.url, self.key, listed.name, self._wishes.notify)
        name = "_".join(f"{spec.name}/{listed.name}".split())[:128]
        names = (listed.name, *listed.aliases)
        own = replace(
            spec,
            name=name,
            model=spec.model or listed.name,
            aliases=tuple(dict.fromkeys((*spec.aliases, *(n for n in names if n != spec.model)))),
        )
        model = RoutedModel(listed, own, server, self._wishes, connector.folder)
        self._servers[model.backend] = server
        return model

    # -- while it is a router ---------------------------------------------------------------------

    async def _run(self, scope: trio.CancelScope) -> None:
        """Follow what the router lists until it is none any more, or `scope` is cancelled."""
        with scope:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        if not await self._look(nursery):
                            break
                    except RequestError as error:
                        self._lost(error)
                    except Exception:  # a bug here must not end the server
                        log.exception("router_not_watched", upstream=self.spec.name)
                    await self._rest()
                nursery.cancel_scope.cancel()

    async def _look(self, nursery: trio.Nursery) -> bool:
        """Ask the router once, and do what is to be done; whether it is still one.

        Args:
            nursery: for what has models loaded.

        Raises:
            RequestError: it does not answer.
        """
        listed = await self._client.models()
        if self._away:
            self._limit = await self._client.limit()
        mine = self._mine(listed or [])
        if not mine:
            self._leave()
            return False
        self._away = False
        self._sync(mine)
        news = [await one.follow(self._pool) for one in self._models.values()]
        if self._act(nursery) or any(news):
            self._pool.update()
        return True

    async def _rest(self) -> None:
        moving = any(one.moving for one in self._models.values())
        with trio.move_on_after(SOON if moving else INTERVAL):
            await self._wishes.wait()
            await trio.sleep(SOON / 4)  # they come in bursts

    def _lost(self, error: RequestError) -> None:
        """The router does not answer: its models are down, loaded or not."""
        self._away = True
        for model in self._models.values():
            model.unreachable(error)
        self._pool.update()

    def _sync(self, listed: list[ListedModel]) -> None:
        """Take in models that are new, and drain those that have gone."""
        names = {one.name for one in listed}
        for name in [one for one in self._models if one not in names]:
            self._pool.drain(self._models.pop(name).backend)
        for one in listed:
            known = self._models.get(one.name)
            if known is not None and known.listed.aliases == one.aliases:
                known.listed = one
                continue
            fresh = self._models[one.name] = self._make_model(one)
            self._pool.add(fresh.backend)
            if known is not None:
                self._pool.drain(known.backend)
        for backend in [one for one in self._servers if one not in self._pool.backends]:
            self._nursery.start_soon(self._servers.pop(backend).aclose)

    def _act(self, nursery: trio.Nursery) -> bool:
        """Have loaded what is waited for, and let go what makes room; whether that is news."""
        models = self._models
        now = trio.current_time()
        load, leave = plan([one.planned(now) for one in models.values()], self._limit, now)
        news = [model.leave_for(leave.get(name)) for name, model in models.items()]
        for name, other in leave.items():
            if models[name].busy:
                models[other].wait_for(name)
        for name in load:
            nursery.start_soon(self._load, models[name])
        return any(news)

    async def _load(self, model: RoutedModel) -> None:
        if not model.begin_load():
            return
        try:
            await self._client.load(model.listed.name)
        except UpstreamUnavailable as error:  # or there is no room for it now
            model.not_loaded(error)
        except RequestError as error:
            model.failed(error, PAUSE)
            self._pool.update()
        else:
            model.loads()
        finally:
            self._wishes.notify()

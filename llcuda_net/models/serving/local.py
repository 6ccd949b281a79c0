"""The models that a server runs itself, from settings to a pool; SIGHUP reads them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import structlog
import trio

from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError, EngineError, RequestError
from llcuda_net.models.need import Budget
from llcuda_net.models.serving.catalog import changed, describe_all
from llcuda_net.models.serving.instance import Described, Instance
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.upstream.engine.supervisor import Engine, EngineOptions
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Wishes
from llcuda_net.util import logs

log = structlog.get_logger(__name__)


class LocalModels:
    """The pool of a server that runs its models itself.

    Args:
        demo: the model to run where the settings name none.

    Attributes:
        poller: reads the token streams of all of them.
        pool: has a backend for each.
        manager: loads and unloads them; None until `open`.
    """

    def __init__(self, settings: Settings, demo: Path | None = None) -> None:
        self.poller = Poller()
        self.pool = Pool(long_prompts=settings.max_long_prompts)
        self.manager: Manager | None = None
        self._settings = settings
        self._demo = demo
        self._folder: Path | None = None
        self._wishes = Wishes()
        self._servers: list[LlamaServer] = []

    def __repr__(self) -> str:
        return f"<LocalModels: {self.manager!r}, {self.pool!r}>"

    async def open(
        self,
        nursery: trio.Nursery,
        folder: Path | None,
        waiting: Callable[[], Iterable[Ticket]] = tuple,
    ) -> Pool:
        """The pool. A lone model is loaded when this returns; of several, those that are to be at
        the start are loaded meanwhile.

        Args:
            folder: where hashes of model files are kept; None: none are computed.
            waiting: returns the tickets that wait, in the order in which they are served.

        Raises:
            ConfigError: a name means no file.
            EngineError: a file cannot be used, or the lone model cannot be loaded.
        """
        self._folder = folder
        described = await trio.to_thread.run_sync(describe_all, self._settings, self._demo)
        self.manager = Manager(self.pool, self._budget(described), self._wishes)
        for one in described:
            self.manager.add(self._instance(one))
        await nursery.start(self.manager.run, waiting)
        if len(described) == 1:
            await self._first(self.manager, described[0])
        return self.pool

    async def _first(self, manager: Manager, described: Described) -> None:
        try:
            await manager.settled(described.name)
        except RequestError as error:
            raise EngineError(error.message) from None
        finally:
            logs.progress("")

    async def reload(self, settings: Settings) -> None:
        """Apply changed settings: new models come in, those that are gone leave.

        Raises:
            ConfigError: they cannot be applied; nothing was changed.
        """
        if settings.upstream:
            raise ConfigError("models and upstreams cannot take each other's place: restart")
        if self.manager is None:
            return
        try:
            described = await trio.to_thread.run_sync(describe_all, settings, self._demo)
        except EngineError as error:
            raise ConfigError(str(error)) from None
        gone, fresh = changed((one.described for one in self.manager.instances), described)
        for name in gone:
            self.manager.remove(name)
        for one in fresh:
            self.manager.add(self._instance(one))
        self.manager.budget = self._budget(described)
        self._settings = settings

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        for server in self._servers:
            await server.aclose()

    def _budget(self, described: list[Described]) -> Budget:
        """What all models may take together; a lone one may take what it takes."""
        settings = self._settings
        if len(described) == 1:
            return Budget(settings.memory, settings.gpu_memory)
        return Budget(settings.memory, settings.gpu_memory)

    def _instance(self, described: Described) -> Instance:
        first = self.manager is not None and not self.manager.instances

        def make_engine(on_change: Callable[[], None]) -> Engine:
            on_progress = logs.progress if first else None
            return Engine(_options(described), on_progress=on_progress, on_change=on_change)

        return Instance(
            described,
            make_engine,
            self._server,
            self.poller,
            self._wishes,
            folder=self._folder,
            unified=True,  # see engine/child.py
        )

    def _server(self, url: str, key: str) -> LlamaServer:
        timeouts = StreamTimeouts(self._settings.stall_timeout, self._settings.first_token_timeout)
        server = LlamaServer(url, self.poller, api_key=key, timeouts=timeouts)
        self._servers.append(server)
        return server


def _options(described: Described) -> EngineOptions:
    spec = described.spec
    return EngineOptions(
        model=described.file,
        ctx=spec.ctx,
        slots=spec.slots or 4,
        threads=spec.threads,
        gpu_layers=spec.gpu_layers,
    )

"""A server that runs its models itself, in memory: real but for the processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import trio

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import EngineError
from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.instance import Described, Instance
from llcuda_net.models.serving.manager import Manager
from llcuda_net.server.gateway import Gateway
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.engine.programs.program import Program
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.model.gguf import ModelFile
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Residence, Wishes
from tests.support.models.instances import here
from tests.support.server.constraint_checks import checks_here
from tests.support.server.memory_server import FakeUpstream, MemoryListener

#: Where its files are said to be: what clients must never see.
FOLDER = Path("/secret/folder")
#: Seconds that a load takes.
LOAD = 3.0


class FakeInstance:
    """A model whose process is a FakeUpstream.

    Attributes:
        failure: why it cannot be loaded; None: it can.
    """

    def __init__(self, spec: ModelSpec, need: Need, wishes: Wishes) -> None:
        file = FOLDER / f"{spec.name}.gguf"
        model = ModelFile((file,), need.host, "llama", spec.name, None, None)
        self.described = Described(spec, file, model)
        self.need = need
        self.name = spec.name
        self.program = Program(Path("/secret/bin/llama-server"), "b1", 1)
        self.loads = 0
        self.failure: str | None = None
        self.residence = Residence(wishes)
        self.upstream = FakeUpstream(slots=2)
        self._properties, self.upstream.properties = self.upstream.properties, None
        self.backend = Backend(
            UpstreamSpec(f"fake://{spec.name}", spec.name, model=spec.name, aliases=spec.aliases),
            self.upstream,
            residence=self.residence,
        )

    def public_facts(self) -> dict[str, Any]:
        return self.program.public_facts()

    def measured(self) -> None:
        """Nothing is known of a process that is none."""

    async def load(self, nursery: trio.Nursery) -> None:
        await trio.sleep(LOAD)
        if self.failure is not None:
            raise EngineError(self.failure)
        self.loads += 1
        self.upstream.properties = self._properties
        self.backend.learn(await self.upstream.ask())

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def unload(self) -> None:
        await trio.lowlevel.checkpoint()
        self.upstream.properties = None
        self.backend.process_lost()


@dataclass
class LocalServer:
    """A server, and what is behind it."""

    server: Gateway
    listener: MemoryListener
    manager: Manager
    models: dict[str, FakeInstance]
    wishes: Wishes


@asynccontextmanager
async def serving_models(
    *specs: ModelSpec | str,
    need: int = 10,
    budget: Budget | None = None,
    users: Users | None = None,
    **settings: Any,
) -> AsyncIterator[LocalServer]:
    """A server of these models, each of which needs so many bytes; by default all fit."""
    settings.setdefault("analysis", False)
    wishes, poller, pool = Wishes(), Poller(), Pool()
    manager = Manager(pool, budget or Budget(), wishes, in_thread=here)
    models = {}
    for one in specs:
        spec = ModelSpec(one) if isinstance(one, str) else one
        instance = FakeInstance(spec, Need(need), wishes)
        instance.upstream.poller = poller
        models[spec.name] = instance
    server = Gateway(
        Settings(**settings), pool, poller, users, models=manager, checks=checks_here()
    )
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        for instance in models.values():
            manager.add(cast(Instance, instance))
        await nursery.start(manager.run, server.waiting_tickets)
        await nursery.start(server.run, [listener])
        yield LocalServer(server, listener, manager, models, wishes)
        nursery.cancel_scope.cancel()

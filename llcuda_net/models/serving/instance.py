"""One local model: its engine, which runs while the model is loaded, and its place in the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import EngineError
from llcuda_net.models.files.machine import gpu_by_process, measured
from llcuda_net.models.files.memory import Estimate
from llcuda_net.models.need import Need
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.engine.options import DEFAULT_ROLES
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.interface import EmbedTexts
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.model.gguf import ModelFile, show_path
from llcuda_net.upstream.residence import Residence, Wishes

#: Where a model that is not loaded would be: nothing is asked there.
_NOWHERE = "http://127.0.0.1:9"
#: A load is given up after so many seconds, and more by its size: a program that hangs must not
#: keep others from being loaded. Bytes per second of a slow disk.
_LONGEST_LOAD, _SLOW_DISK = 600.0, 10e6


@dataclass(frozen=True, slots=True)
class Described:
    """A model as it is to be run.

    Attributes:
        spec: with all that the settings say filled in.
        file: its GGUF file, the first one if it was split.
        model: what the file's header says.
    """

    spec: ModelSpec
    file: Path
    model: ModelFile

    @property
    def name(self) -> str:
        """By which requests ask for it."""
        return self.spec.name

    def without_folders(self, text: str) -> str:
        """A message for those who may not know where its files are: only their names are left."""
        spec = self.spec
        named = [spec.mmproj, spec.draft, spec.chat_template, *(file for file, _ in spec.lora)]
        folders = {str(path.parent) for path in (self.file, *(Path(one) for one in named if one))}
        for folder in sorted(folders - {"."}, key=len, reverse=True):  # one may be in another
            text = text.replace(f"{folder}/", "")
        return text

    def same(self, other: Described) -> bool:
        """Whether the other is the same model, run in the same way."""
        return self == other


class Instance:
    """A local model, loaded or not.

    Args:
        described: what it is.
        estimate: of the memory that it takes.
        make_engine: makes its engine, given what to call when the engine's address has changed.
        make_server: makes the client of an engine.
        wishes: of whoever loads and unloads it.
        folder: where hashes of model files are kept; None: nothing is kept, so none are computed.

    Attributes:
        described: what it is.
        backend: its place in the pool.
        residence: where it is on its way into memory and out of it.
        loads: how often it was loaded.
    """

    def __init__(
        self,
        described: Described,
        estimate: Estimate,
        make_engine: Callable[[Callable[[], None]], Engine],
        make_server: Callable[[str, str], LlamaServer],
        poller: Poller,
        wishes: Wishes,
        *,
        folder: Path | None = None,
    ) -> None:
        self.described = described
        self.loads = 0
        self._estimate = estimate
        self.residence = Residence(wishes)
        self._engine = make_engine(self._follow)
        self._poller = poller
        self._server = make_server(_NOWHERE, self._engine.api_key)
        self._scope = trio.CancelScope()
        self._gone = trio.Event()
        self._gone.set()
        spec = described.spec
        self.backend = Backend(
            UpstreamSpec(
                _NOWHERE, spec.name, model=spec.name, roles=spec.roles, aliases=spec.aliases
            ),
            self._server,
            folder=folder,
            # Without a folder its hash is of no use.
            model=described.file if folder is not None else None,
            restarts=lambda: self._engine.restarts,
            unified=self._engine.unified,
            spare=self._spare,
            residence=self.residence,
        )
        if not DEFAULT_ROLES & spec.roles:
            self.backend.learn_reranks(True)  # else nobody could ask it to, and so load it

    def __repr__(self) -> str:
        return f"<Instance of {self.name}: {self.residence.presence}, {self._engine!r}>"

    @property
    def name(self) -> str:
        """By which requests ask for it."""
        return self.described.name

    @property
    def need(self) -> Need:
        """The memory that it takes: what its table says, else an estimate."""
        return self._as_said(self._estimate.need)

    def public_facts(self) -> dict[str, Any]:
        """What runs it, and what that can do, without where anything is."""
        return self._engine.public_facts()

    def measured(self) -> Need | None:
        """What its process takes now; None: that is not known. Blocks, for up to seconds."""
        pid = self._engine.pid
        host = None if pid is None else measured(pid, self._estimate)
        if pid is None or host is None:
            return None
        estimate = self._estimate.gpu
        return self._as_said(Need(host, gpu_by_process().get(pid, estimate) if estimate else 0))

    def _as_said(self, need: Need) -> Need:
        spec = self.described.spec
        return Need(
            need.host if spec.memory is None else spec.memory,
            need.gpu if spec.gpu_memory is None else spec.gpu_memory,
        )

    async def load(self, nursery: trio.Nursery) -> None:
        """Start its process; returns when that has answered what it is.

        Args:
            nursery: in which it runs until `unload`.

        Where this raises, its process is gone.

        Raises:
            EngineError: it cannot be loaded, or takes too long.
            RequestError: it does not say what it is.
        """
        self._scope = trio.CancelScope()
        limit = _LONGEST_LOAD + (self.need.host + self.need.gpu) / _SLOW_DISK
        try:
            with trio.fail_after(limit):
                await nursery.start(self._run)
                backend = self.backend
                backend.learn(await self._server.ask())
                backend.learn_reranks(await self._server.reranks())
        except BaseException as error:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._gone.wait()
            if not isinstance(error, trio.TooSlowError):
                raise
            name = show_path(self.described.file)
            raise EngineError(f"cannot load {name}: it took more than {limit:.0f} s") from None
        self.loads += 1

    async def unload(self) -> None:
        """End its process; returns when that is gone."""
        self._scope.cancel()
        await self._gone.wait()
        self.backend.process_lost()

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._server.aclose()

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._gone = trio.Event()
        try:
            with self._scope:
                await self._engine.run(task_status=task_status)
        finally:
            self._gone.set()

    def _follow(self) -> None:
        """The engine's address has appeared, or gone."""
        server, url = self._server, self._engine.base_url
        server.starting = url is None
        server.forget()
        if url is not None:
            server.base_url = url
            self.backend.expect_back()

    @asynccontextmanager
    async def _spare(self) -> AsyncIterator[EmbedTexts | None]:
        async with self._engine.spare() as found:
            if found is None:
                yield None
                return
            second = LlamaServer(found[0], self._poller, api_key=found[1])
            try:
                yield second.embed
            finally:
                await second.aclose()

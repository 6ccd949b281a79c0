"""From settings to a pool: of the built-in engine, or of llama-servers that SIGHUP may change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import structlog
import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import BaseUrl, UpstreamSpec
from llcuda_net.errors import ConfigError
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.engine.supervisor import Engine, EngineOptions
from llcuda_net.upstream.interface import EmbedTexts
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.pool import Pool
from llcuda_net.util import logs
from llcuda_net.util.text_files import read_text

log = structlog.get_logger(__name__)

#: The name of the built-in engine.
ENGINE = "engine"


class Upstreams:
    """Makes the pool of a server, and what is behind it.

    Args:
        model: the file for the built-in engine; None where the settings name upstreams.

    Attributes:
        poller: reads the token streams of all of them.

    Raises:
        ConfigError: a key file cannot be read, or holds no key.
    """

    def __init__(self, settings: Settings, model: Path | None) -> None:
        self.poller = Poller()
        self._settings = settings
        self._model = model
        self._folder: Path | None = None
        self._keys = _keys(settings)
        self._pool = Pool(long_prompts=settings.max_long_prompts, may_grow=bool(settings.upstream))
        self._servers: list[LlamaServer] = []

    def __repr__(self) -> str:
        what = "upstreams" if self._model is None else f"engine with {self._model.name}"
        return f"<Upstreams: {what}, {self._pool!r}>"

    @property
    def pool(self) -> Pool:
        """The pool; empty until `open` has returned."""
        return self._pool

    async def open(self, nursery: trio.Nursery, folder: Path | None) -> Pool:
        """The pool, with the built-in engine started in the nursery where there is a model.

        Args:
            folder: where hashes of model files are kept; None: none are computed.

        Raises:
            ConfigError: an upstream's URL is not one.
            EngineError: the engine does not start.
        """
        self._folder = folder
        if self._model is not None:
            await self._start_engine(nursery, self._model)
        for spec in self._settings.upstream:
            self._pool.add(self._backend(spec, self._keys[spec]))
        return self._pool

    def reload(self, settings: Settings) -> None:
        """Apply changed settings: new upstreams come in, those no longer there are drained.

        Raises:
            ConfigError: they cannot be applied; nothing was changed.
        """
        if self._model is not None or not settings.upstream:
            if bool(settings.upstream) == (self._model is not None):
                raise ConfigError(
                    "the engine and upstreams cannot take each other's place: restart"
                )
            return
        keys = _keys(settings)
        now = {
            (_place(one.spec), self._keys[one.spec]): one
            for one in self._pool.backends
            if not one.draining
        }
        stay = {spec: now.pop((_place(spec), keys[spec]), None) for spec in settings.upstream}
        fresh = [self._backend(spec, keys[spec]) for spec, before in stay.items() if before is None]
        for spec, before in stay.items():
            if before is not None:
                before.apply(spec)  # at most its share of the work has changed
        for backend in fresh:
            self._pool.add(backend)
        for backend in now.values():
            self._pool.drain(backend)
        self._settings, self._keys = settings, keys
        self._pool.update()

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        for server in self._servers:
            await server.aclose()

    def _backend(self, spec: UpstreamSpec, key: str | None) -> Backend:
        return Backend(spec, self._server(spec.url, key), folder=self._folder)

    def _server(self, url: str, key: str | None) -> LlamaServer:
        timeouts = StreamTimeouts(self._settings.stall_timeout, self._settings.first_token_timeout)
        server = LlamaServer(url, self.poller, api_key=key, timeouts=timeouts)
        self._servers.append(server)
        return server

    async def _start_engine(self, nursery: trio.Nursery, model: Path) -> None:
        settings = self._settings
        options = EngineOptions(
            model=model,
            ctx=settings.ctx,
            slots=settings.slots,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
        )
        backend: Backend | None = None

        def follow() -> None:
            if backend is None:
                return  # it starts for the first time
            server.starting = engine.base_url is None
            server.forget()
            if engine.base_url is not None:
                server.base_url = engine.base_url
                backend.expect_back()

        @asynccontextmanager
        async def spare() -> AsyncIterator[EmbedTexts | None]:
            async with engine.spare() as found:
                if found is None:
                    yield None
                    return
                second = LlamaServer(found[0], self.poller, api_key=found[1])
                try:
                    yield second.embed
                finally:
                    await second.aclose()

        engine = Engine(options, on_progress=logs.progress, on_change=follow)
        try:
            await nursery.start(engine.run)
        finally:
            logs.progress("")
        assert engine.base_url is not None
        server = self._server(engine.base_url, engine.api_key)
        spec = UpstreamSpec(engine.base_url, ENGINE)
        file = model if self._folder is not None else None  # else its hash is of no use
        backend = Backend(
            spec,
            server,
            folder=self._folder,
            model=file,
            restarts=lambda: engine.restarts,
            unified=True,  # see engine/child.py
            spare=spare,
        )
        self._pool.add(backend)


def _place(spec: UpstreamSpec) -> UpstreamSpec:
    """What stays the same where only weight and slots have changed."""
    return replace(spec, weight=1.0, slots=None)


def _keys(settings: Settings) -> dict[UpstreamSpec, str | None]:
    """The key of each upstream. Raises ConfigError.

    The one for all upstreams is not for those whose URL has a user and password.
    """
    return {
        spec: _key(path)
        if (path := spec.api_key_file or settings.upstream_api_key_file)
        and (spec.api_key_file or BaseUrl.parse(spec.url).authorization is None)
        else None
        for spec in settings.upstream
    }


def _key(path: str) -> str:
    key = read_text(path, "API key file").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"API key file {path} must hold one line of printable ASCII, the key")
    return key

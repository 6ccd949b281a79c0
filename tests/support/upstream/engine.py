"""The built-in engine as an upstream: llama.cpp's own server, in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller


@contextlib.asynccontextmanager
async def running_engine(options: EngineOptions) -> AsyncIterator[LlamaServer]:
    """One that runs until the block ends; nothing is remembered of an earlier one."""
    running = Engine(options)
    poller = Poller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await nursery.start(running.run)
        assert running.base_url is not None
        server = LlamaServer(running.base_url, poller, api_key=running.api_key)
        try:
            yield server
        finally:
            await server.aclose()
            nursery.cancel_scope.cancel()

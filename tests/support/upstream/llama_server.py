"""A LlamaServer under test, and what listens for it."""

from __future__ import annotations

import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller

PATIENCE = 300.0


class Client:
    """A LlamaServer with its poller, and what came of the last completion."""

    def __init__(self, server: LlamaServer) -> None:
        self.server = server
        self.events: list[CompletionEvent] = []
        self.sent = 0
        self.some = trio.Event()

    @property
    def text(self) -> str:
        return "".join(event.content for event in self.events)

    def _on_events(self, events: list[CompletionEvent]) -> None:
        self.events += events
        self.some.set()

    def _on_sent(self) -> None:
        self.sent += 1

    async def complete(self, prompt: str | list[int] = "hello", **params: Any) -> str | None:
        self.events = []
        params.setdefault("n_predict", 12)
        with trio.fail_after(PATIENCE):
            return await self.server.complete(prompt, params, self._on_events, self._on_sent)

    async def failure(self, prompt: str = "hello", **params: Any) -> RequestError:
        with pytest.raises(RequestError) as caught:
            await self.complete(prompt, **params)
        assert "\n" not in caught.value.message
        # The traceback would keep alive what a leak leaves behind, and so hide it.
        return caught.value.with_traceback(None)


@contextlib.asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[Client]:
    poller = Poller()
    server = LlamaServer(url, poller, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        yield Client(server)
        await server.aclose()
        nursery.cancel_scope.cancel()
    if url.startswith("https"):
        # An async generator of httpx's that was left unclosed warns here and so fails this test.
        gc.collect()


async def listen(
    serve: Any,
    context: ssl.SSLContext | None = None,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener: Any = plain
    if context is not None:
        listener = trio.SSLListener(plain, context, https_compatible=True)
    task_status.started(plain.socket.getsockname()[1])
    await trio.serve_listeners(serve, [listener])

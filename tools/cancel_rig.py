"""The setup of bench_cancel: the real engine, a proxy with a clock, a server, and a client.

    client ──▶ llcuda-server ──▶ proxy ──▶ engine ◀── /slots

The proxy forwards bytes and notes when llcuda-server closed each of its connections. The engine is
run here, and not by the server, because its API key is private to whoever started it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import trio

from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_protocol import (
    Cancel,
    Connection,
    Event,
    Generate,
    Hello,
    Role,
    Tokens,
    Welcome,
)

#: So many that reading a prompt in each takes seconds, even with the small demonstration model.
SLOTS = 16
_CREDIT = 1 << 24
_POLL = 0.002
_SEEN = 5.0


class MissedError(Exception):
    """A moment that was to be measured had passed before it was seen."""


class Proxy:
    """Forwards to the engine, and notes when the server closed its end.

    Attributes:
        closed: for each connection of a completion that has ended, when the server ended it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.closed: list[float] = []
        self.port = 0
        self._target = (host, port)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, server: trio.SocketStream) -> None:
        completes = False
        async with server, await trio.open_tcp_stream(*self._target) as engine:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._backward, engine, server)
                    with contextlib.suppress(trio.BrokenResourceError):
                        while data := await server.receive_some(65_536):
                            # It may have carried short requests before.
                            completes |= data.startswith(b"POST /completion ")
                            await engine.send_all(data)
                    if completes:
                        self.closed.append(trio.current_time())
                    nursery.cancel_scope.cancel()

    async def _backward(self, engine: trio.SocketStream, server: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await engine.receive_some(65_536):
                await server.send_all(data)
            await server.send_eof()


class Client:
    """One connection to llcuda-server, greeted."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._connection = Connection(Role.CLIENT)
        self._numbers: list[int] = []

    async def greet(self) -> None:
        """Say hello and wait for the welcome."""
        await self._send(Hello([1], 4 << 20, 256))
        event = await self._next()
        if not isinstance(event, Welcome):
            raise RuntimeError(f"the server did not welcome us: {event}")

    async def ask(self, prompts: list[str], n_predict: int) -> None:
        """Open one stream per prompt."""
        params = {"n_predict": n_predict, "ignore_eos": True, "cache_prompt": False}
        for number, prompt in enumerate(prompts, 1):
            request = Generate(number, _CREDIT, prompt=prompt, params=params, on_disconnect=0.0)
            await self._send(request)
            self._numbers.append(number)

    async def first_tokens(self) -> None:
        """Wait until every stream has a token."""
        waiting = set(self._numbers)
        while waiting:
            event = await self._next()
            if isinstance(event, Tokens):
                waiting.discard(event.stream)

    async def read_on(self) -> None:
        """Read until the connection is closed, as a client does."""
        with contextlib.suppress(trio.ClosedResourceError):
            while await self.stream.receive_some(65_536):
                pass

    async def cancel(self) -> None:
        """Cancel every stream."""
        await self.stream.send_all(
            b"".join(self._connection.send(Cancel(number)) for number in self._numbers)
        )

    async def _send(self, frame: Any) -> None:
        await self.stream.send_all(self._connection.send(frame))

    async def _next(self) -> Event:
        while (event := self._connection.next_event()) is None:
            self._connection.receive_data(await self.stream.receive_some(65_536))
        return event


class Rig:
    """Everything under measurement."""

    def __init__(self, proxy: Proxy, port: int, engine: httpx.AsyncClient) -> None:
        self.proxy = proxy
        self._port = port
        self._engine = engine

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the server."""
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            client = Client(stream)
            await client.greet()
            yield client

    async def busy(self) -> set[int]:
        """The engine's slots that say that they are at work."""
        slots = (await self._engine.get("/slots")).json()
        return {slot["id"] for slot in slots if slot["is_processing"]}

    async def until_busy(self, count: int) -> set[int]:
        """Wait until so many slots are busy, and say which.

        Raises:
            MissedError: that was not to be seen.
        """
        with trio.move_on_after(_SEEN):
            while True:
                found = await self.busy()
                if len(found) >= count:
                    return found
                await trio.sleep(_POLL)
        raise MissedError

    async def until_free(self, slots: set[int]) -> float:
        """Wait until none of the slots is busy; when that was seen."""
        while slots & await self.busy():  # noqa: ASYNC110  (another process)
            await trio.sleep(_POLL)
        return trio.current_time()

    async def until_closed(self, count: int) -> None:
        """Wait until so many completions' connections have been closed since the start."""
        while len(self.proxy.closed) < count:  # noqa: ASYNC110  (set by many tasks)
            await trio.sleep(_POLL)


@contextlib.asynccontextmanager
async def rig(threads: int | None) -> AsyncIterator[Rig]:
    """Start all of it, and stop it at the end."""
    with (
        resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as model,
        tempfile.TemporaryDirectory() as folder,
    ):
        engine = Engine(EngineOptions(model, slots=SLOTS, threads=threads))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            assert engine.base_url is not None
            url = httpx.URL(engine.base_url)
            proxy = Proxy(url.host, url.port or 80)
            await nursery.start(proxy.run)
            key_file = Path(folder) / "key"
            key_file.touch(0o600)
            key_file.write_text(engine.api_key)
            headers = {"Authorization": f"Bearer {engine.api_key}"}
            async with (
                httpx.AsyncClient(
                    base_url=engine.base_url, headers=headers, timeout=60, trust_env=False
                ) as http,
                _server(proxy.port, key_file) as port,
            ):
                yield Rig(proxy, port, http)
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _server(upstream: int, key_file: Path) -> AsyncIterator[int]:
    """llcuda-server as a process; its port."""
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-m", "llcuda_net.cli.server", "--port", "0", "--store", "none"),
            *("--upstream", f"http://127.0.0.1:{upstream}"),
            *("--upstream-api-key-file", str(key_file), "--log-level", "error"),
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = b""
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some(4096)
            if not data:
                raise RuntimeError("llcuda-server did not start")
            line += data
        yield int(line.rpartition(b":")[2])
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdout.aclose()

"""Connections that are open before they are needed: used, counted, and never trusted too far."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.transport import connections as module
from llcuda_net.upstream.llama.transport import origin
from llcuda_net.upstream.llama.transport.connections import Connections
from tests.support.upstream.llama_server import PATIENCE, Client

PROPS = (
    b'{"default_generation_settings":{"n_ctx":4096},"total_slots":3,"model_alias":"m",'
    b'"chat_template":"x"}'
)
ANSWER = (
    b'data: {"content":"a","tokens":[1],"stop":false,"tokens_predicted":1}\n\n'
    b'data: {"content":"","stop":true,"stop_type":"eos","tokens_predicted":1}\n\n'
)


class Upstream:
    """A server whose every connection is known.

    Attributes:
        requests: the path of each, with the number of its connection.
        open: connections that are.
        on_request: what becomes of one, after it was read; None: it is answered.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[int, str]] = []
        self.streams: list[trio.SocketStream] = []
        self.open = 0
        self.on_request: dict[int, str] = {}  # by number of the request: how it fails
        self.release = trio.Event()
        self.release.set()

    async def serve(self, stream: trio.SocketStream) -> None:
        number = len(self.streams)
        self.streams.append(stream)
        self.open += 1
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._serve(stream, number)
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.SocketStream, number: int) -> None:
        while True:
            data = b""
            while b"\r\n\r\n" not in data:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                data += chunk
            path = data.split(b" ", 2)[1].decode()
            self.requests.append((number, path))
            how = self.on_request.pop(len(self.requests) - 1, "")
            if how == "close":
                return
            if path == "/completion":
                await self.release.wait()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                await stream.send_all(head + ANSWER)
                return
            body = PROPS if path == "/props" else b'{"prompt":"p"}'
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )


@contextlib.asynccontextmanager
async def against() -> AsyncIterator[tuple[Upstream, Client]]:
    upstream, poller = Upstream(), Poller()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        nursery.start_soon(poller.run)
        server = LlamaServer(f"http://127.0.0.1:{port}", poller)
        yield upstream, Client(server)
        await server.aclose()
        nursery.cancel_scope.cancel()


async def _until_open(upstream: Upstream, count: int) -> None:
    with trio.fail_after(PATIENCE):
        while upstream.open != count:  # noqa: ASYNC110 -- a count of another task's
            await trio.sleep(0.001)


async def test_a_short_request_gives_its_connection_to_the_token_stream() -> None:
    async with against() as (upstream, client):
        await client.server.ask()
        await client.server.render([{"role": "user", "content": "hi"}])
        await client.complete()
        assert upstream.requests == [(0, "/props"), (0, "/apply-template"), (0, "/completion")]
        # It was closed, and the next one opened in its place, before anything needs it.
        await _until_open(upstream, 1)
        assert len(upstream.streams) == 2
        await client.complete()
        assert upstream.requests[-1] == (1, "/completion")


async def test_the_same_messages_are_rendered_once() -> None:
    messages = [{"role": "user", "content": "hi"}]
    async with against() as (upstream, client):
        await client.server.ask()
        for _ in range(3):
            assert await client.server.render(messages) == "p"
        assert [path for _, path in upstream.requests] == ["/props", "/apply-template"]
        await client.server.render([*messages, {"role": "assistant", "content": "ho"}])
        assert len(upstream.requests) == 3
        client.server.forget()  # another template may be there
        await client.server.ask()
        await client.server.render(messages)
        assert len(upstream.requests) == 5


async def test_no_more_connections_than_slots() -> None:
    async with against() as (upstream, client):
        await client.server.ask()
        upstream.release = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client.complete)
            await _until_open(upstream, 3)
            await client.server.check()  # has one of its own, for as long as it takes
            upstream.release.set()
        await _until_open(upstream, 3)
        for _ in range(3):
            await client.complete()
        await _until_open(upstream, 3)


async def test_a_connection_that_was_closed_is_not_used() -> None:
    async with against() as (upstream, client):
        await client.server.ask()
        await upstream.streams[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        await client.complete()
        assert upstream.requests[-1] == (1, "/completion")
        assert client.sent == 1


@pytest.mark.parametrize("what", ["stream", "short"])
async def test_one_that_is_closed_on_receipt_is_tried_once_more(what: str) -> None:
    async def ask() -> None:
        if what == "stream":
            await client.complete()
        else:
            await client.server.render([{"role": "user", "content": f"{len(upstream.requests)}"}])

    async with against() as (upstream, client):
        await client.server.ask()
        upstream.on_request = {1: "close"}
        await ask()
        assert [number for number, _ in upstream.requests] == [0, 0, 1]
        if what == "stream":
            assert len(client.events) == 2  # each token once
        await _until_open(upstream, 1)
        upstream.on_request = {3: "close", 4: "close"}
        with pytest.raises(RequestError):
            await ask()
        assert len(upstream.requests) == 5  # not a third time


async def test_what_is_lost_later_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the upstream may have worked at it: who asked decides."""
    monkeypatch.setattr(origin, "STALE", -1.0)
    monkeypatch.setattr(streams, "STALE", -1.0)
    async with against() as (upstream, client):
        await client.server.ask()
        upstream.on_request = {1: "close", 3: "close"}
        await client.failure()
        await client.server.ask()
        with pytest.raises(RequestError):
            await client.server.check()
        assert len(upstream.requests) == 4


async def test_connections_that_nobody_needs_are_closed(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        upstream = Upstream()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        connections = Connections(BaseUrl.parse(f"http://127.0.0.1:{port}"), None)
        connections.slots = 2
        for _ in range(4):
            connections.keep(await connections.open())
        await _until_open(upstream, 2)
        await trio.sleep(module.IDLE)
        connections.prune()
        await _until_open(upstream, 0)
        with connections.streaming():
            pass
        await _until_open(upstream, 1)
        connections.move(BaseUrl.parse("http://127.0.0.1:1"))
        await _until_open(upstream, 0)
        with connections.streaming():
            pass
        await trio.testing.wait_all_tasks_blocked()
        assert await connections.idle() is None  # nobody listens there
        with pytest.raises(OSError, match="refused"):
            await connections.open()
        connections.move(BaseUrl.parse(f"http://127.0.0.1:{port}"))
        with connections.streaming():
            pass
        connections.close()
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.open == 0  # none is opened for a server that is not asked any more
        nursery.cancel_scope.cancel()


async def test_a_name_is_resolved_again_after_a_while(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = trio.open_tcp_stream

    async def open_tcp_stream(host: str, port: int) -> trio.SocketStream:
        opened.append(host)
        return await real("127.0.0.1", port)

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    async with trio.open_nursery() as nursery:
        upstream = Upstream()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        connections = Connections(BaseUrl.parse(f"http://upstream.test:{port}"), None)
        for _ in range(3):
            await trio.aclose_forcefully(await connections.open())
        assert opened == ["upstream.test"]
        await trio.sleep(module.RESOLVED + 1)
        await trio.aclose_forcefully(await connections.open())
        assert len(opened) == 2
        nursery.cancel_scope.cancel()
    await listener.aclose()
    with pytest.raises(OSError, match="connect"):
        await connections.open()
    assert len(opened) == 3  # where nobody listens any more, it may mean another address

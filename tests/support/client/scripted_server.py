"""The server's end of a connection, for tests of the client: driven by hand, or by the prompt."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client import Client
from llcuda_net.client.stream import Stream

E = TypeVar("E")
#: The id of every generation here.
ID = "0190-test"


class Peer:
    """One connection as the server sees it, moved on by the test step by step."""

    def __init__(
        self, stream: trio.abc.Stream, max_streams: int = 256, features: Sequence[str] = ()
    ) -> None:
        self.stream = stream
        self.features = features
        self.connection = wire.Connection(wire.Role.SERVER, wire.Limits(max_streams=max_streams))
        self.hello: wire.Hello | None = None
        self.lock = trio.Lock()

    async def greet(self) -> wire.Hello:
        """Take the client's hello and welcome it."""
        self.hello = await self.expect(wire.Hello)
        limits = self.connection.limits
        welcome = wire.Welcome(1, limits.max_frame, limits.max_streams, agent="scripted")
        await self.send(replace(welcome, features=[*self.features]))
        return self.hello

    async def receive(self) -> wire.Event:
        """The next event."""
        while (event := self.connection.next_event()) is None:
            self.connection.receive_data(await self.stream.receive_some(4096))
        return event

    async def expect(self, kind: type[E]) -> E:
        """The next event, which must be of this kind."""
        event = await self.receive()
        assert isinstance(event, kind), event
        return event

    async def send(self, *events: wire.Frame) -> None:
        """Say these, in one go."""
        async with self.lock:
            await self.stream.send_all(b"".join(map(self.connection.send, events)))

    async def answer(self, number: int, *pieces: str, first: int = 0, **done: Any) -> None:
        """Tokens (if any) and done."""
        tokens = [wire.Tokens(number, first, list(pieces))] if pieces else []
        await self.send(*tokens, wire.Done(number, done.pop("reason", "stop"), **done))


@asynccontextmanager
async def linked(**options: Any) -> AsyncIterator[tuple[Client, Peer]]:
    """A client and its peer, greeted, over memory streams."""
    near, far = trio.testing.memory_stream_pair()
    peer = Peer(far, options.pop("max_streams", 256), options.pop("features", ()))
    # Not in a nursery around the test's body, which would wrap what the body raises.
    trio.lowlevel.spawn_system_task(peer.greet)
    async with Client.over(near, **options) as client:
        yield client, peer
        # The client would wait a while for an answer to its cancels.
        far.send_stream.close()


@asynccontextmanager
async def accepted(
    client: Client, peer: Peer, *arguments: Any, **options: Any
) -> AsyncIterator[tuple[Stream, wire.Generate]]:
    """A stream that the peer has accepted, and the request that it saw."""
    requests: list[wire.Generate] = []

    async def accept() -> None:
        request = await peer.expect(wire.Generate)
        requests.append(request)
        await peer.send(wire.Accepted(request.stream, ID))

    trio.lowlevel.spawn_system_task(accept)
    if not options.keys() & {"raw", "messages"}:
        arguments = arguments or ("hello",)
    async with client.generate(*arguments, **options) as stream:
        yield stream, requests[0]


class Scripted:
    """A small server whose answer depends on the prompt; it remembers what it was sent.

    `word word` is given back word by word; a prompt that begins with one of the names in `_acts`
    does what that says.

    Attributes:
        features: what it says it serves; by default it is an old one.
        queue: the positions that a request is told, with `wait` and `reason` where it waits.
        report: what status is answered with.
        entries: what a list is answered with, newest first.
        context: of its model; a larger n_predict is refused.
        answers: what the next requests are answered with, each a list of pieces of channels: a
            channel's kind, index, id and name, and a text.
        deleted: the ids that it was told to delete; of others than ID there is nothing.
    """

    def __init__(self) -> None:
        self.seen: list[wire.Event] = []
        self.cancelled = threading.Event()
        self.token: str | None = None
        self.features: list[str] = []
        self.queue: tuple[int, ...] = (0,)
        self.wait: float | None = None
        self.reason: str | None = None
        self.report: dict[str, Any] = {"connections": 1}
        self.entries: list[dict[str, Any]] = []
        self.context = 1 << 20
        self.answers: list[list[tuple[tuple[str, int, str, str], str]]] = []
        self.deleted: list[str] = []

    def requests(self) -> list[wire.Generate]:
        """The generations that were asked for."""
        return [event for event in self.seen if isinstance(event, wire.Generate)]

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        peer = Peer(stream)
        async with stream, trio.open_nursery() as nursery:
            with suppress(
                trio.BrokenResourceError, trio.ClosedResourceError, wire.RemoteProtocolError
            ):
                hello = await peer.expect(wire.Hello)
                if self.token is not None and hello.token != self.token:
                    await peer.send(wire.Error(0, "unauthorized", "the token is wrong"))
                    return
                peer.hello = hello
                await peer.send(wire.Welcome(1, 1 << 22, 256, features=self.features))
                while not isinstance(event := await peer.receive(), wire.ConnectionClosed):
                    self.seen.append(event)
                    nursery.start_soon(self._answer, peer, event)
            nursery.cancel_scope.cancel()

    async def _answer(self, peer: Peer, event: wire.Event) -> None:
        # A client may cancel or go away at any point of an answer.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, wire.LocalProtocolError):
            if isinstance(event, wire.Generate):
                await self._generate(peer, event)
            elif isinstance(event, wire.Embed):
                vectors = [b"\0\0\x80?" * 2 for _ in event.input]
                await peer.send(
                    wire.Vectors(event.stream, 0, vectors), wire.Done(event.stream, "complete")
                )
            elif isinstance(event, wire.Status):
                await peer.send(wire.Report(event.stream, self.report))
            elif isinstance(event, wire.ListGenerations):
                for first, entry in enumerate(self.entries[: event.limit]):
                    await peer.send(wire.Listing(event.stream, [entry], first))
                await peer.send(wire.Done(event.stream, "complete"))
            elif isinstance(event, wire.Delete):
                self.deleted.append(event.id)
                gone = wire.Error(event.stream, "unknown_generation", "no such generation")
                await peer.send(wire.Deleted(event.stream, ID) if event.id == ID else gone)
            elif isinstance(event, wire.Upload):
                if not event.more:
                    await peer.send(wire.Done(event.stream, "complete"))
            elif isinstance(event, wire.Ping):
                await peer.send(wire.Pong(event.payload))
            elif isinstance(event, wire.Cancel):
                if peer.connection.is_open(event.stream):
                    await peer.send(wire.Done(event.stream, "cancelled"))
                self.cancelled.set()

    async def _generate(self, peer: Peer, event: wire.Generate) -> None:
        n = event.stream
        if self.answers:
            await self._answer_in_channels(peer, n, self.answers.pop(0))
            return
        text = event.prompt if event.prompt is not None else (event.messages or [])[-1]["content"]
        if isinstance(text, list) and text and isinstance(text[-1], dict):
            text = text[-1]["text"]  # behind the images
        words = text.split(" ") if isinstance(text, str) else [str(i) for i in text]
        act = words[0]
        if act == "refuse":
            await peer.send(
                wire.Error(n, "overloaded", "the queue is full", retry=True, retry_after=2.0)
            )
            return
        if (event.params or {}).get("n_predict", 0) > self.context:
            message = f"n_predict must be 1 to {self.context}, the context of this model"
            await peer.send(wire.Error(n, "invalid_request", message))
            return
        if act == "unknown":
            await peer.send(wire.Error(n, "unknown_parameter", "there is no parameter 'frob'"))
            return
        told = [(at, self.wait, self.reason) if at else (0, None, None) for at in self.queue]
        position, wait, reason = told[0]
        await peer.send(wire.Accepted(n, ID, position, wait=wait, reason=reason))
        for position, wait, reason in told[1:]:
            await peer.send(wire.Queue(n, position, wait, reason))
        if act == "endless":
            await peer.send(wire.Tokens(n, 0, ["begun "]))
            return
        if act == "flood":
            await self._flood(peer, n)
            return
        if act in ("drop", "truncate"):
            frame = peer.connection.send(wire.Tokens(n, 0, ["half an"]))
            await peer.stream.send_all(frame + (frame[:7] if act == "truncate" else b""))
            await peer.stream.aclose()
            return
        if act == "moved":
            await self._move(peer, event, words)
            return
        if act == "loop":
            pieces = [f" {word}" for word in words[1:]] * 600
            await peer.send(wire.Tokens(n, 0, pieces), wire.Done(n, "stop", id=ID))
            return
        if act == "cut":
            usage = {"prompt_tokens": 3, "completion_tokens": int(words[1])}
            done = wire.Done(n, "length", id=ID, usage=usage)
            await peer.send(wire.Tokens(n, 0, ["as far"]), done)
            return
        if act == "fail":
            await peer.send(
                wire.Tokens(n, 0, ["half "]), wire.Error(n, "upstream_error", "it broke")
            )
            return
        pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        ids = list(range(len(pieces))) if event.tokens else None
        await peer.send(
            wire.Tokens(n, 0, pieces, ids),  # type: ignore[arg-type]
            wire.Done(
                n,
                "stop",
                id=ID,
                model="scripted",
                usage={"prompt_tokens": 3, "completion_tokens": len(pieces)},
                timings={"queue": 0.5, "prompt": 20.0, "generation": 100.0, "total": 121.0},
            ),
        )

    async def _answer_in_channels(
        self, peer: Peer, number: int, answer: list[tuple[tuple[str, int, str, str], str]]
    ) -> None:
        await peer.send(wire.Accepted(number, ID, 0))
        known = ("text", 0, "", "")
        for place, (channel, text) in enumerate(answer):
            if channel != known:
                known = channel
                await peer.send(wire.Channel(number, place, *channel))
            await peer.send(wire.Tokens(number, place, [text]))
        reason = "tool_calls" if known[0] == "tool_call" else "stop"
        await peer.send(wire.Done(number, reason, id=ID))

    async def _move(self, peer: Peer, event: wire.Generate, words: list[str]) -> None:
        """Its upstream fails after the first word; it waits, and another goes on with it."""
        n = event.stream
        moved: list[wire.Frame] = [
            wire.Tokens(n, 0, [words[0]]),
            wire.Queue(n, 2, self.wait, "no upstream answers"),
            wire.Queue(n, 1, self.wait, "no upstream answers"),
            wire.Queue(n, 0),
        ]
        if event.splices:
            moved.append(wire.Splice(n, 1, "upstream a failed"))
        moved.append(wire.Tokens(n, 1, [f" {word}" for word in words[1:]]))
        await peer.send(*moved, wire.Done(n, "stop", id=ID, splices=[1]))

    async def _flood(self, peer: Peer, number: int) -> None:
        """Tokens without end, as fast as credit allows; no two are the same."""
        first = 0
        while True:
            async with peer.lock:
                if not peer.connection.is_open(number):
                    return
                pieces = [f"word{first + index} " for index in range(100)]
                tokens = wire.Tokens(number, first, pieces)
                data, count = peer.connection.send_tokens(tokens)
                first += count
                await peer.stream.send_all(data)
            await trio.sleep(0 if data else 0.001)


@contextmanager
def listening(
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> Iterator[int]:
    """Serve on a free port in a background thread; gives the port."""
    ready = threading.Event()
    found: list[Any] = []

    async def main() -> None:
        listeners: Any = await trio.open_tcp_listeners(0, host=host)
        port = listeners[0].socket.getsockname()[1]
        if context is not None:
            listeners = [trio.SSLListener(each, context) for each in listeners]
        with trio.CancelScope() as scope:
            found.extend([port, trio.lowlevel.current_trio_token(), scope])
            ready.set()
            await trio.serve_listeners(partial(_quietly, serve), listeners)

    thread = threading.Thread(target=trio.run, args=(main,), name="scripted-server")
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        found[1].run_sync_soon(found[2].cancel)
        thread.join()


async def _quietly(
    serve: Callable[[trio.SocketStream], Awaitable[None]], stream: trio.SocketStream
) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await serve(stream)

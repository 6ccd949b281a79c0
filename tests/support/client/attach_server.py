"""A small server that knows the feature attach, in memory, and connections that break when told to.

A generation's pieces are the words of its prompt. One whose prompt begins with "hold" gets no
further than these until the test says `go_on`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client import Client
from llcuda_net.errors import ConnectError
from tests.support.client.scripted_server import Peer

FEATURES = ("generate", "attach", "embed", "status", "search", "list")
HITS = [{"id": f"r{n}", "score": 1 - n / 10, "created": 5.0, "text": f"{n}"} for n in range(3)]
ENTRIES = [{"id": f"g{n}", "state": "done", "created": 9.0 - n} for n in range(3)]
_OPENING = (
    wire.Generate
    | wire.Attach
    | wire.Embed
    | wire.Search
    | wire.ListGenerations
    | wire.Delete
    | wire.Status
)
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Log:
    """What a generation has so far."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self.pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        self.reason = "" if words[0] == "hold" else "stop"
        self.error: tuple[str, str] | None = None
        self.switches: list[tuple[int, str, int, str, str]] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Lasting:
    """The server: `dial` opens a connection to it.

    Attributes:
        seen: every event of every connection.
        dials: how often somebody tried to connect.
        logs: the generations by id.
        epoch: what accepted says of each generation.
        down: whether nobody listens.
        fragile: whether each request breaks the connection.
        drops: the sequence numbers before which a connection breaks, once each.
        forgetful: whether it loses all generations with a connection that it drops.
        leaving: whether it says goodbye right behind its greeting.
        cached: whether answers are said to come from the store.
        refusals: errors with which the next requests are answered, the first first.
        report: what status is answered with.
        entries: what a list is answered with, newest first.
        accepted: what else accepted says.
        answer: what is answered, in place of the words, as pieces of channels: each a channel's
            kind, index, id and name, and a text.
        uploads: what was uploaded whole, by its stream's number.
        max_upload: as welcome says it.
        mute: whether it does not say that it has deleted something, or has an upload.
        cuts: for each connection in turn, after how many bytes it breaks: of those that the client
            receives, and of those that it sends. None: it does not.
    """

    def __init__(self, *, level: str = "disk", max_streams: int = 256, step: int = 2) -> None:
        self.seen: list[wire.Event] = []
        self.dials = 0
        self.logs: dict[str, Log] = {}
        self.keys: dict[str, str] = {}
        self.epoch = 0
        self.down = False
        self.fragile = False
        self.drops: set[int] = set()
        self.cached = False
        self.leaving = False
        self.forgetful = False
        self.features: tuple[str, ...] = FEATURES
        self.refusals: list[tuple[str, bool]] = []
        self.greeting: Callable[[Peer], wire.Frame | None] = lambda _: None
        self.cuts: list[tuple[int | None, int | None]] = []
        self.report: dict[str, Any] = {"connections": 1}
        self.entries: list[dict[str, Any]] = ENTRIES
        self.accepted: dict[str, Any] = {}
        self.splices: list[int] = []
        self.answer: list[tuple[tuple[str, int, str, str], str]] = []
        self.uploads: list[bytes] = []
        self.max_upload: int | None = None
        self.mute = False
        self.transports: list[Breaking] = []
        self.peers: list[Peer] = []
        self._level = level
        self._max_streams = max_streams
        self._step = step
        self._moved = trio.lowlevel.ParkingLot()

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of a kind that were seen."""
        return [event for event in self.seen if isinstance(event, kind)]

    async def lose(self) -> None:
        """Break all connections."""
        for peer in self.peers:
            await peer.stream.aclose()
        self.peers.clear()

    def go_on(self, *pieces: str, reason: str = "", error: tuple[str, str] | None = None) -> None:
        """All generations that are held get these pieces, and perhaps their end."""
        for log in self.logs.values():
            if not log.reason:
                log.pieces += pieces
                log.reason, log.error = reason, error
        self._moved.unpark_all()

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """A client with a connection, that can dial another."""
        options.setdefault("name", "box:9000")
        options.setdefault("redial", self.dial)
        async with Client.over(await self.dial(), **options) as client:
            yield client

    async def dial(self) -> trio.abc.Stream:
        """A connection to the server."""
        self.dials += 1
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ConnectError("cannot connect to box:9000: connection refused")
        near, far = trio.testing.memory_stream_pair()
        trio.lowlevel.spawn_system_task(self.serve, far)
        receive_at, send_at = self.cuts.pop(0) if self.cuts else (None, None)
        return Breaking(self, near, receive_at, send_at)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        peer = Peer(stream, self._max_streams)
        cancels: dict[int, wire.Cancel] = {}
        self.peers.append(peer)
        async with stream, trio.open_nursery() as nursery:
            with suppress(*_GONE, wire.RemoteProtocolError):
                if not isinstance(await peer.receive(), wire.Hello):
                    return
                if (refusal := self.greeting(peer)) is not None:
                    await peer.send(refusal)
                    return
                limits = peer.connection.limits
                welcome = wire.Welcome(
                    1,
                    limits.max_frame,
                    limits.max_streams,
                    features=list(self.features),
                    max_upload=self.max_upload,
                )
                await peer.send(welcome, *([wire.GoAway(0.0)] if self.leaving else []))
                parts: dict[int, bytearray] = {}
                while not isinstance(event := await peer.receive(), wire.ConnectionClosed):
                    self.seen.append(event)
                    if isinstance(event, wire.Upload):
                        parts.setdefault(event.stream, bytearray()).extend(event.data)
                        if not event.more:
                            self.uploads.append(bytes(parts.pop(event.stream)))
                            if not self.mute:
                                await peer.send(wire.Done(event.stream, "complete"))
                        continue
                    if isinstance(event, wire.Cancel):
                        cancels[event.stream] = event
                    self._moved.unpark_all()
                    nursery.start_soon(self._answer, peer, event, cancels)
            nursery.cancel_scope.cancel()

    async def _answer(self, peer: Peer, event: wire.Event, cancels: dict[int, wire.Cancel]) -> None:
        # The client may go away at any point of an answer.
        with suppress(*_GONE, wire.LocalProtocolError):
            number = getattr(event, "stream", 0)
            opens = isinstance(event, _OPENING)
            if opens and self.fragile:
                await peer.stream.aclose()
            elif opens and self.refusals:
                code, retry = self.refusals.pop(0)
                durable = 1 if code == "ahead" else None
                await peer.send(wire.Error(number, code, "told so", retry, durable=durable))
            elif isinstance(event, wire.Generate):
                await self._read(peer, event, self._find(event), 0, cancels)
            elif isinstance(event, wire.Attach):
                log = self.logs.get(event.id)
                if log is None:
                    await peer.send(wire.Error(number, "unknown_generation", "no such thing"))
                elif log.reason and event.epoch is None and event.first > len(log.pieces):
                    has = f"the answer is over, and has {len(log.pieces)} pieces"
                    await peer.send(wire.Error(number, "ahead", has, durable=len(log.pieces)))
                else:
                    await self._read(peer, event, log, event.first, cancels)
            elif isinstance(event, wire.Embed):
                for first in range(len(event.input)):
                    await peer.send(wire.Vectors(number, first, [b"\0\0\x80?"]))
                await peer.send(wire.Done(number, "complete"))
            elif isinstance(event, wire.Search):
                for first, hit in enumerate(HITS[: event.k]):
                    await peer.send(wire.Hits(number, [hit], first))
                await peer.send(wire.Done(number, "complete"))
            elif isinstance(event, wire.ListGenerations):
                for first, entry in enumerate(self.entries[: event.limit]):
                    await peer.send(wire.Listing(number, [entry], first))
                await peer.send(wire.Done(number, "complete"))
            elif isinstance(event, wire.Delete):
                if self.logs.pop(event.id, None) is None:
                    await peer.send(wire.Error(number, "unknown_generation", "no such thing"))
                elif not self.mute:
                    await peer.send(wire.Deleted(number, event.id))
            elif isinstance(event, wire.Status):
                await peer.send(wire.Report(number, self.report))
            elif isinstance(event, wire.Ping):
                await peer.send(wire.Pong(event.payload))

    def _find(self, event: wire.Generate) -> Log:
        """The generation of the request's key, or a new one."""
        assert event.key is not None
        if event.key not in self.keys:
            text = (
                event.prompt if event.prompt is not None else (event.messages or [])[-1]["content"]
            )
            name = f"generation-{len(self.logs)}"
            self.keys[event.key] = name
            self.logs[name] = log = Log(name, text.split(" ") if isinstance(text, str) else ["a"])
            if self.answer:
                log.pieces = [piece for _, piece in self.answer]
                known = ("text", 0, "", "")
                for place, (channel, _) in enumerate(self.answer):
                    if channel != known:
                        log.switches.append((place, *channel))
                        known = channel
        return self.logs[self.keys[event.key]]

    async def _read(
        self,
        peer: Peer,
        event: wire.Generate | wire.Attach,
        log: Log,
        first: int,
        cancels: dict[int, wire.Cancel],
    ) -> None:
        number, told = event.stream, 0
        switches = [switch for switch in log.switches if switch[0] > first]
        if before := log.switches[: len(log.switches) - len(switches)]:
            switches.insert(0, before[-1])  # in force
        accepted = wire.Accepted(number, log.name, 0, self._level, self.epoch, self.cached)
        await peer.send(replace(accepted, **self.accepted))
        while peer.connection.is_open(number):
            if (cancel := cancels.get(number)) is not None:
                if not cancel.detach:
                    log.reason = log.reason or "cancelled"
                    self._moved.unpark_all()
                reason = "detached" if cancel.detach else log.reason
                if log.error is not None and not cancel.detach:
                    await peer.send(wire.Error(number, *log.error))
                else:
                    await peer.send(wire.Done(number, reason, id=log.name))
                return
            if event.durable and len(log.pieces) > told:
                told = len(log.pieces)
                await peer.send(wire.Durable(number, told))
            if first in self.drops:
                self.drops.remove(first)
                if self.forgetful:
                    self.logs.clear()
                await peer.stream.aclose()
                return
            while event.channels and switches and switches[0][0] < first + self._step:
                await peer.send(wire.Channel(number, *switches.pop(0)))
            if first < len(log.pieces):
                async with peer.lock:
                    data, count = peer.connection.send_tokens(
                        wire.Tokens(number, first, log.pieces[first : first + self._step])
                    )
                    await peer.stream.send_all(data)
                first += count
                if count:
                    continue
            elif log.error is not None:
                await peer.send(wire.Error(number, *log.error))
                return
            elif log.reason:
                await peer.send(wire.Done(number, log.reason, id=log.name, splices=self.splices))
                return
            await self._moved.park()


class Breaking(trio.abc.Stream):
    """A stream that breaks after so many bytes in one direction, even ones with an end of file."""

    def __init__(
        self,
        server: Lasting,
        inner: trio.abc.Stream,
        receive_at: int | None,
        send_at: int | None,
    ) -> None:
        self.server = server
        self._inner = inner
        self._receive_at = receive_at
        self._send_at = send_at
        self.received = 0
        self.sent = 0
        server.transports.append(self)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        at = self._receive_at
        if at is not None and self.received >= at:
            await self._inner.aclose()
            if at % 2:
                raise trio.BrokenResourceError from ConnectionResetError(104, "reset")
            return b""
        room = max_bytes if at is None else at - self.received
        data = bytes(await self._inner.receive_some(room))
        self.received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        at = self._send_at
        if at is None or self.sent + len(data) < at:
            await self._inner.send_all(data)
            self.sent += len(data)
            return
        await self._inner.send_all(bytes(data)[: at - self.sent])
        self.sent = at
        await self._inner.aclose()
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()

"""HTTP connections in memory: a server's end with handlers of a test's own, and its client."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import h11
import trio
from trio.testing import memory_stream_pair

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.server.http.access import Access
from llcuda_net.server.http.connection import HttpConnection
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.page.sessions import Sessions
from llcuda_net.server.http.route import Route, Routes
from llcuda_net.server.objects import KeptObjects
from llcuda_net.server.tcp.room import Incoming, Unsent
from llcuda_net.telemetry.observers import Watches

LOCAL = b"Host: localhost:9000\r\n"


@dataclass
class Answer:
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """Of an answer that is an error, what it says."""
        found = json.loads(self.body)["error"]
        assert found.keys() == {"message", "type", "param", "code"}
        return cast(dict[str, Any], found)


class HttpPeer:
    """The client's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._parser = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(
        self, method: str, target: str, *lines: str, body: bytes = b"", host: bytes = LOCAL
    ) -> Answer:
        """Send a request with a body that has a length, and read its answer."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = "".join(f"{line}\r\n" for line in lines)
        await self.send(f"{method} {target} HTTP/1.1\r\n".encode() + host)
        await self.send(f"{head}{length}\r\n".encode("latin-1") + body)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer; those that are only told to go on are left out."""
        return (await self.answers(method))[-1]

    async def answers(self, method: str = "GET") -> list[Answer]:
        """The next answer, and the informational ones before it."""
        trailing = self._parser.trailing_data[0]
        self._parser = parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        if trailing:
            parser.receive_data(trailing)
        found: list[Answer] = []
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(bytes(await self.stream.receive_some(65_536)))
            elif isinstance(event, h11.InformationalResponse | h11.Response):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                found.append(Answer(event.status_code, headers, b""))
            elif isinstance(event, h11.Data):
                found[-1].body += bytes(event.data)
            else:
                assert isinstance(event, h11.EndOfMessage)
                return found

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        read = bytearray(self._parser.trailing_data[0])
        while data := await self.stream.receive_some(65_536):
            read += data
        return bytes(read)


class Places:
    """As many connections as there are `free` places may have a request."""

    def __init__(self) -> None:
        self.free: float = math.inf

    def rest(self, connection: HttpConnection) -> None:
        pass

    def take(self, connection: HttpConnection) -> bool:
        return self.free > 0


class HttpRig:
    """Connections to handlers of a test's own."""

    def __init__(
        self, nursery: trio.Nursery, routes: Sequence[Route], users: Users, settings: Settings
    ) -> None:
        objects = KeptObjects(None)
        self.sessions = Sessions(objects, users)
        self.access = Access(settings, users, self.sessions)
        self.host = SimpleNamespace(
            settings=settings,
            users=users,
            unflushed=set(),
            unsent=Unsent(1 << 20),
            incoming=Incoming(1 << 20),
            watch=Watches(),
            monitor=None,
            draining=False,
            starting=False,
            startup_reason=None,
            objects=objects,
            sessions=self.sessions,
            access=self.access,
            models=None,
            check_users=self.check_users,
        )
        self.places = Places()
        self.connections: list[HttpConnection] = []
        self._nursery = nursery
        self._routes = Routes(routes)

    def check_users(self) -> None:
        """The users, or the sessions, have changed."""
        self.sessions.check()
        for connection in self.connections:
            connection.check_user()

    def connect(self, first: bytes = b"") -> HttpPeer:
        """A new connection."""
        ours, theirs = memory_stream_pair()
        connection = HttpConnection(
            cast(HttpHost, self.host),
            theirs,
            len(self.connections) + 1,
            first=first,
            head_by=trio.current_time() + self.host.settings.handshake_timeout,
            routes=self._routes,
            access=self.access,
            places=self.places,
            scope=trio.CancelScope(),
        )
        self.connections.append(connection)
        self._nursery.start_soon(connection.run)
        return HttpPeer(ours)


async def echo(exchange: Exchange) -> None:
    """Answers with what was asked."""
    request = exchange.request
    said = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "body": request.body.decode("latin-1"),
        "user": request.user.name,
        "parameters": request.parameters,
    }
    exchange.respond(200, json.dumps(said).encode())


@asynccontextmanager
async def http_rig(
    *routes: Route, users: Users | None = None, **settings: Any
) -> AsyncIterator[HttpRig]:
    """Connections to these routes; by default /echo and /echo/{id} answer."""
    found = routes or [
        Route(method, pattern, echo)
        for method in ("GET", "POST")
        for pattern in ("/echo", "/echo/{id}")
    ]
    async with trio.open_nursery() as nursery:
        rig = HttpRig(nursery, found, users or Users(), Settings(**settings))
        await rig.sessions.load()
        yield rig
        nursery.cancel_scope.cancel()

"""A client over HTTP in memory that sees every event, its id, and every comment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

from tests.support.server.memory_server import MemoryListener

CHAT = "/v1/chat/completions"


@dataclass
class SseEvent:
    """One event; `id` is that of the last event with one, as browsers have it."""

    id: str
    data: str
    own_id: bool = True

    @property
    def done(self) -> bool:
        return self.data == "[DONE]"

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def text(self) -> str:
        """The text of all choices in it."""
        choices = [] if self.done else self.json.get("choices", [])
        return "".join(choice["delta"].get("content") or "" for choice in choices)


@dataclass
class Reply:
    """The answer to one request, read as it comes."""

    status: int
    headers: dict[str, str]
    stream: trio.abc.Stream
    connection: h11.Connection
    comments: list[str] = field(default_factory=list)
    last_id: str = ""
    _events: list[SseEvent] = field(default_factory=list)
    _rest: str = ""
    _data: str = ""
    _own: bool = False

    @property
    def generations(self) -> list[str]:
        return self.headers["x-llcuda-generation"].split(", ")

    async def part(self) -> bytes:
        """The next bytes of the body as they came; empty at its end."""
        event = await _next(self.connection, self.stream)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise ConnectionError(f"the answer was cut: {event!r}")

    async def body(self) -> bytes:
        found = b""
        while part := await self.part():
            found += part
        return found

    async def json(self) -> Any:
        return json.loads(await self.body())

    async def event(self) -> SseEvent | None:
        """The next event, as the HTML standard parses them; None at the end of the answer."""
        while not self._events:
            part = await self.part()
            if not part:
                assert not self._rest, f"the last event is not whole: {self._rest!r}"
                return None
            *lines, self._rest = (self._rest + part.decode()).split("\n")
            for line in lines:
                self._take(line)
        return self._events.pop(0)

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith(":"):
            self.comments.append(value)
        elif name == "id":
            self.last_id, self._own = value, True
        elif name == "data":
            self._data = value
        elif not line and self._data:
            self._events.append(SseEvent(self.last_id, self._data, self._own))
            self._data, self._own = "", False

    async def some(self, count: int) -> list[SseEvent]:
        """The next events, and then the connection is cut."""
        found: list[SseEvent] = []
        while len(found) < count and (event := await self.event()) is not None:
            found.append(event)
        await self.stream.aclose()
        return found

    async def all(self) -> list[SseEvent]:
        """All that are still to come."""
        found: list[SseEvent] = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found


async def _next(connection: h11.Connection, stream: trio.abc.Stream) -> Any:
    with trio.fail_after(3600):  # of virtual time: a hang becomes a failure
        while (event := connection.next_event()) is h11.NEED_DATA:
            try:
                connection.receive_data(bytes(await stream.receive_some(65_536)))
            except trio.BrokenResourceError:
                connection.receive_data(b"")
    return event


async def send(
    listener: MemoryListener,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    unread: bool = False,
) -> Reply:
    """Send a request on a connection of its own, and wait for the head of the answer.

    Args:
        body: JSON values, or bytes as they are.
        unread: the server's bytes are taken only as they are read.
    """
    connection, stream = await ask(listener, method, path, body, headers, unread=unread)
    return await reply(connection, stream)


async def ask(
    listener: MemoryListener,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    unread: bool = False,
) -> tuple[h11.Connection, trio.abc.Stream]:
    """Send a request, and wait for nothing."""
    peer = listener.connect_unread() if unread else listener.connect()
    connection = h11.Connection(h11.CLIENT)
    raw = body if isinstance(body, bytes) else None
    data = b"" if body is None else json.dumps(body).encode() if raw is None else raw
    fields = {"Host": "127.0.0.1", "Content-Length": str(len(data)), **(headers or {})}
    if data and raw is None:
        fields["Content-Type"] = "application/json"
    request = h11.Request(method=method, target=path, headers=list(fields.items()))
    parts = [connection.send(request), connection.send(h11.Data(data=data))]
    parts.append(connection.send(h11.EndOfMessage()))
    await peer.stream.send_all(b"".join(part for part in parts if part))
    return connection, peer.stream


async def reply(connection: h11.Connection, stream: trio.abc.Stream) -> Reply:
    """The head of the answer to a request that was sent."""
    head = await _next(connection, stream)
    assert isinstance(head, h11.Response), head
    fields = {name.decode(): value.decode() for name, value in head.headers}
    return Reply(head.status_code, fields, stream, connection)


def chat(text: str = "one two three", **fields: Any) -> dict[str, Any]:
    """The body of a streamed chat."""
    messages = [{"role": "user", "content": text}]
    return {"model": "fake", "messages": messages, "stream": True, **fields}


async def post(
    listener: MemoryListener, body: Any, headers: Mapping[str, str] | None = None
) -> Reply:
    return await send(listener, "POST", CHAT, body, headers)


async def resume(listener: MemoryListener, id_: str, last: str = "") -> Reply:
    """The events of a generation, behind the last one."""
    headers = {"Last-Event-ID": last} if last else None
    return await send(listener, "GET", f"/v1/generations/{id_}/events", None, headers)

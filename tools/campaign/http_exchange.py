"""One HTTP request on a connection of its own, read line by line: a client as plain as can be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio

#: Seconds for a connection, and of silence after which it is given up: comments come more often.
CONNECT, SILENCE = 5.0, 14.0


class LostError(Exception):
    """The connection could not be made, ended before its time, or was silent for too long."""


class HttpExchange:
    """A request that was sent, and its answer.

    Attributes:
        status, headers: of the answer; names are in lower case.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._stream = stream
        self._connection = h11.Connection(h11.CLIENT)
        self._rest = b""

    def __repr__(self) -> str:
        return f"<HttpExchange {self.status or 'waiting'}>"

    async def begin(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], host: str
    ) -> None:
        """Send the request, its body as it is or as JSON, and wait for the head of the answer."""
        if isinstance(body, bytes):
            data = body
        else:
            data = b"" if body is None else json.dumps(body).encode()
        fields = {"Host": host, "Content-Length": str(len(data)), **headers}
        if data:
            fields.setdefault("Content-Type", "application/json")
        request = h11.Request(method=method, target=path, headers=list(fields.items()))
        send = self._connection.send
        head, end = send(request) or b"", send(h11.EndOfMessage()) if not data else None
        if data:
            head += send(h11.Data(data=data)) or b""
            end = send(h11.EndOfMessage())
        with trio.fail_after(SILENCE):
            await self._stream.send_all(head + (end or b""))
        event = await self._next()
        if not isinstance(event, h11.Response):
            raise LostError("there is no answer")
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}

    async def line(self) -> str | None:
        """The next line of the body; None at its end."""
        while b"\n" not in self._rest:
            part = await self._part()
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def read(self) -> bytes:
        """The rest of the body."""
        parts = [self._rest]
        while part := await self._part():
            parts.append(part)
        return b"".join(parts)

    async def _part(self) -> bytes:
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _next(self) -> object:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            with trio.fail_after(SILENCE):
                data = await self._stream.receive_some(65_536)
            self._connection.receive_data(bytes(data))
        return event


@asynccontextmanager
async def exchange(
    address: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[HttpExchange]:
    """Around the reading of the answer to a request to HOST:PORT; the connection ends with it.

    Raises:
        LostError: at any time.
    """
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(CONNECT):
            stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            found = HttpExchange(stream)
            await found.begin(method, path, body, headers or {}, address)
            yield found
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
        raise LostError(str(error)) from error

"""One HTTP connection of the synthetic upstream: bytes in and out, and whole requests off them."""

from __future__ import annotations

import json
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .answer import Answer, RequestError

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: Largest request head in bytes.
_MAX_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """A whole HTTP request."""

    method: str
    path: str
    body: bytes
    close: bool
    query: str = ""

    def json(self) -> dict[str, Any]:
        """The body; {} where the method has none.

        Raises:
            RequestError: it is not a JSON object.
        """
        if self.method != "POST":
            return {}
        try:
            value = json.loads(self.body)
        except ValueError:
            message = "[json.exception.parse_error.101] parse error: the body is not JSON"
            raise RequestError(400, message) from None
        if not isinstance(value, dict):
            raise RequestError(400, "the body must be a JSON object")
        return value


class Peer:
    """A connection.

    Args:
        on_request: called for each whole request, one at a time.
        on_room: called while `pulling` and nothing waits to be sent.
        on_gone: called once, when the connection has ended, whoever ended it.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_request: Callable[[Peer, Request], None],
        on_room: Callable[[Peer], None],
        on_gone: Callable[[Peer], None],
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._selector = selector
        self._on_request, self._on_room, self._on_gone = on_request, on_room, on_gone
        self._incoming = bytearray()
        self._out = bytearray()
        self._interest = _READ
        self._closing = False
        self.open = True
        self.answer: Answer | None = None
        self.requests = 0
        self.idle_since_ns = time.monotonic_ns()
        self.close_after = False  # the answer, because the client asked for it or it is the last
        self.held = False  # nothing further is to be said, ever
        self.pulling = False
        self.dribble = False
        self.endless: bytes | None = None
        selector.register(sock, _READ, self._ready)

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self.answer is None and not (self.held or self.endless or self._out)

    def send(self, data: bytes) -> None:
        """Send, or keep what does not fit for later."""
        if not self.open or not data:
            return
        if not self._out and not self.dribble:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        self.update()

    def finish(self) -> None:
        """The answer is complete: take the next request, or close."""
        self.answer = None
        self.pulling = False
        self.idle_since_ns = time.monotonic_ns()
        if self.close_after:
            self.hang_up()
        else:
            self.update()
            self._requests()

    def hang_up(self) -> None:
        """Close once everything has been sent."""
        self._closing = True
        if not self._out:
            self.close()

    def reset(self) -> None:
        """Close now, with a TCP reset."""
        if self.open:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        """Close now."""
        if self.open:
            self.open = False
            self._selector.unregister(self._sock)
            self._sock.close()
            self._on_gone(self)

    def update(self) -> None:
        """Wait for room to send where there is something to send."""
        wanted = self._out or self.pulling or self.endless is not None
        interest = _READ | _WRITE if wanted else _READ
        if self.open and interest != self._interest:
            self._interest = interest
            self._selector.modify(self._sock, interest, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & _READ and self.open:
            self._receive()
        if mask & _WRITE and self.open:
            self._flush()

    def _flush(self) -> None:
        if not self._out and self.endless is not None:
            self._out += self.endless
        if self._out:
            try:
                sent = self._sock.send(self._out[:1] if self.dribble else self._out)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            del self._out[:sent]
        if not self._out:
            if self._closing:
                self.close()
            elif self.pulling:
                self._on_room(self)
            else:
                self.update()
                self._requests()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._incoming += data
        self._requests()

    def _requests(self) -> None:
        while self.open and not self._closing and self.idle:
            try:
                request = self._take()
                if request is None:
                    return
                self.requests += 1
                self.close_after |= request.close
                self._on_request(self, request)
            except RequestError as error:
                self.refuse(error)

    def refuse(self, error: RequestError) -> None:
        """Send the error and close, as llama-server does."""
        self.send(error.reply)
        self.hang_up()

    def _take(self) -> Request | None:
        end = self._incoming.find(b"\r\n\r\n")
        if end < 0:
            if len(self._incoming) > _MAX_HEAD:
                raise RequestError(400, "the head of the request is too large")
            return None
        line, *rest = bytes(self._incoming[:end]).decode("latin-1").split("\r\n")
        pairs = (entry.partition(":") for entry in rest)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        words = line.split(" ")
        length = headers.get("content-length", "0")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not length.isdigit():
            raise RequestError(400, "this is not an HTTP/1 request with a length")
        start = end + 4
        end = start + int(length)
        if len(self._incoming) < end:
            return None
        body = bytes(self._incoming[start:end])
        del self._incoming[:end]
        path, _, query = words[1].partition("?")
        close = headers.get("connection", "").lower() == "close"
        return Request(words[0], path, body, close, query)

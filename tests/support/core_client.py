"""A small client of the core profile, written from SPEC.md alone: sockets and msgpack, no more.

It knows the seven kinds of the profile, and credit, cancel, ping and pong beside them. Of other
kinds it skips those that the profile says to skip.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgpack

PREFACE = b"\x89LLCUDA\n"
HELLO, GENERATE, CANCEL, PING, CREDIT = 1, 2, 4, 8, 9
WELCOME, ACCEPTED, TOKENS, DONE, ERROR, PONG = 16, 17, 19, 20, 21, 25
SKIPPED = {18, 22, PONG, 26, 28}  # queue, go_away, pong, durable, splice
WINDOW = 64
MAX_FRAME = 16_384


class RefusedError(Exception):
    """An error frame: of a stream, or of the connection."""

    def __init__(self, stream: int, fields: dict[str, Any]) -> None:
        super().__init__(f"{fields['code']}: {fields['message']}")
        self.stream = stream
        self.code: str = fields["code"]
        self.retry: bool = fields.get("retry", False)


class CoreClient:
    """One connection, greeted; use it as a context manager."""

    def __init__(self, port: int, patience: float, token: str | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limit = 8192
        self._next = 1
        hello = {"versions": [1], "max_frame": MAX_FRAME, "max_streams": 1}
        self._socket.sendall(PREFACE)
        self.send(HELLO, 0, hello | ({} if token is None else {"token": token}))
        if self._exactly(len(PREFACE)) != PREFACE:
            raise ConnectionError("no llcuda-server")
        kind, stream, fields = self.read()
        if kind == ERROR:
            raise RefusedError(stream, fields)
        if kind != WELCOME or fields["version"] != 1:
            raise ConnectionError("no welcome")
        self._limit = MAX_FRAME
        self.features: list[str] = fields.get("features", [])

    def __enter__(self) -> CoreClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def send(self, *frame: Any) -> None:
        """Write a frame."""
        body: bytes = msgpack.packb(frame)
        self._socket.sendall(struct.pack(">I", len(body)) + body)

    def read(self) -> list[Any]:
        """The next frame: [kind, stream, ...]."""
        (size,) = struct.unpack(">I", self._exactly(4))
        if not 1 <= size <= self._limit:
            raise ConnectionError(f"a frame of {size} bytes")
        frame: list[Any] = msgpack.unpackb(self._exactly(size))
        self._size = 4 + size
        return frame

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the server has closed")
            data += part
        return data

    def generate(self, **request: Any) -> int:
        """Send a request; returns its stream."""
        stream, self._next = self._next, self._next + 1
        self.send(GENERATE, stream, {"credit": WINDOW, **request})
        return stream

    def cancel(self, stream: int, *, detach: bool = False) -> None:
        """Stop a request, or only the reading."""
        self.send(CANCEL, stream, {"detach": True} if detach else {})

    def ping(self, payload: bytes) -> bytes:
        """What comes back; no stream may be open."""
        self.send(PING, 0, payload)
        while True:
            kind, _, *rest = self.read()
            if kind == PONG:
                return bytes(rest[0])

    def frames(self, stream: int) -> Iterator[list[Any]]:
        """The frames of a stream up to its last one, with credit returned for what was read.

        Raises:
            RefusedError: it ends with an error.
        """
        expected = used = 0
        while True:
            kind, number, *rest = frame = self.read()
            if kind == PING:
                self.send(PONG, 0, rest[0])
            elif kind == ERROR and number in (0, stream):
                raise RefusedError(number, rest[0])
            elif kind in SKIPPED or number != stream:
                continue
            elif kind == TOKENS:
                if rest[0] != expected:
                    raise ConnectionError("tokens out of order")
                expected += len(rest[1])
                used += self._size
                yield frame
                if used >= WINDOW // 2:
                    self.send(CREDIT, stream, used)
                    used = 0
            else:
                yield frame
                if kind == DONE:
                    return

    def complete(self, **request: Any) -> tuple[str, dict[str, Any]]:
        """The whole text of a request, and the fields of its done."""
        text = ""
        for kind, _, *rest in self.frames(self.generate(**request)):
            if kind == TOKENS:
                text += "".join(rest[1])
        return text, rest[0]

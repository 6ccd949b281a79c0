"""A client that speaks the protocol over a plain blocking socket, and sees every frame."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from types import UnionType
from typing import Any

from llcuda_protocol import (
    Accepted,
    Connection,
    ConnectionClosed,
    Error,
    Event,
    Frame,
    Generate,
    Hello,
    Role,
    Tokens,
    Welcome,
)
from tests.support.processes import PATIENCE

CREDIT = 1 << 20


class RawClient:
    """Over one connection; every wait is bounded."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connection = Connection(Role.CLIENT)

    def send(self, *frames: Frame) -> None:
        self.sock.sendall(b"".join(self.connection.send(frame) for frame in frames))

    def next(self) -> Event:
        while (event := self.connection.next_event()) is None:
            self.connection.receive_data(self.sock.recv(65_536))
        return event

    def greet(self, token: str | None = None, *features: str) -> Event:
        self.send(Hello([1], 4 << 20, 256, token, features=[*features]))
        return self.next()

    def until(self, kind: type[Event] | UnionType) -> tuple[list[str], Any]:
        """The pieces up to a frame of one kind, and that frame."""
        pieces: list[str] = []
        while True:
            event = self.next()
            if isinstance(event, Tokens):
                pieces += event.pieces
            if isinstance(event, kind):
                return pieces, event
            assert not isinstance(event, ConnectionClosed), "closed before its time"

    def begun(self, count: int) -> tuple[Accepted, list[str]]:
        """How a generation was accepted, and at least so many of its first pieces."""
        pieces: list[str] = []
        accepted = None
        while len(pieces) < count:
            event = self.next()
            if isinstance(event, Accepted):
                accepted = event
            elif isinstance(event, Tokens):
                pieces += event.pieces
            assert not isinstance(event, Error | ConnectionClosed), event
        assert accepted is not None
        return accepted, pieces


@contextlib.contextmanager
def connected(
    port: int, context: ssl.SSLContext | None = None, *, greet: bool = True
) -> Iterator[RawClient]:
    """A client on a server of this machine, greeted unless said otherwise."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        if context is not None:
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname="localhost"))
        client = RawClient(sock)
        if greet:
            welcome = client.greet()
            assert isinstance(welcome, Welcome), welcome
        yield client


def ask(prompt: str, stream: int = 1, **params: Any) -> Generate:
    """A generate frame, greedy unless said otherwise."""
    params.setdefault("temperature", 0)
    return Generate(stream, CREDIT, prompt=prompt, params=params)

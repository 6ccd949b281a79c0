"""One task that reads the token streams of all generations.

A llama-server emits the tokens of all its slots after one decode step, so they arrive together. A
trio task a socket would cost a wake-up a token; here one wake-up serves every socket that has
data: a private, level-triggered selector, whose own descriptor trio waits for.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

log = structlog.get_logger(__name__)

_READ = 256 << 10


class Sink(Protocol):
    """Takes what arrives on one socket. One that raises is a bug, and loses its socket only."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""

    def connection_lost(self, reason: str) -> None:
        """Nothing more will come; the hub has already let go of the socket."""


class Poller:
    """Reads many sockets in one task.

    Attributes:
        after_batch: called after each wake-up's sockets were served, to send what they led to.
    """

    def __init__(self) -> None:
        self.after_batch: Callable[[], None] = lambda: None
        # Epoll on Linux, kqueue on macOS: both have a descriptor that can itself be waited for.
        self._selector = selectors.DefaultSelector()
        self._watched: set[int] = set()  # descriptors; asking the selector costs more, each time

    def add(self, sock: socket.socket, sink: Sink) -> None:
        """Read a connected, non-blocking socket until it ends or is removed."""
        self._selector.register(sock, selectors.EVENT_READ, sink)
        self._watched.add(sock.fileno())

    def remove(self, sock: socket.socket) -> None:
        """Stop reading a socket, before it is closed; nothing happens if it is not read."""
        if sock.fileno() in self._watched:
            self._watched.remove(sock.fileno())
            self._selector.unregister(sock)

    async def run(self) -> None:
        """Serve until cancelled."""
        descriptor: int = self._selector.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                for key, _ in self._selector.select(0):
                    try:
                        self._read(key)
                    except Exception:
                        # One sink's bug must not end the reading of all the others.
                        log.exception("sink_crashed")
                        self._drop(key)
                self.after_batch()
        finally:
            self._watched.clear()
            self._selector.close()

    def _drop(self, key: selectors.SelectorKey) -> None:
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        if key.fd in self._watched:
            self.remove(sock)
            with contextlib.suppress(Exception):
                key.data.connection_lost("of a bug")

    def _read(self, key: selectors.SelectorKey) -> None:
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        if key.fd not in self._watched:
            return  # removed by what an earlier socket of this batch led to
        sink: Sink = key.data
        try:
            data = sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.remove(sock)
            sink.connection_lost(str(error))
            return
        if data:
            sink.data_received(data)
        else:
            self.remove(sock)
            sink.connection_lost("it closed the connection")

"""One task that reads the token streams of all generations.

A llama-server emits the tokens of all its slots after one decode step, so they arrive together. A
trio task a socket would cost a wake-up a token; here one wake-up serves every socket that has
data: a private, level-triggered selector, whose own descriptor trio waits for.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Protocol

import trio

_READ = 256 << 10


class Sink(Protocol):
    """Takes what arrives on one socket. Neither method may raise."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""

    def connection_lost(self, reason: str) -> None:
        """Nothing more will come; the hub has already let go of the socket."""


class StreamHub:
    """Reads many sockets in one task.

    Attributes:
        after_batch: called after each wake-up's sockets were served, to send what they led to.
    """

    def __init__(self) -> None:
        self.after_batch: Callable[[], None] = lambda: None
        # Epoll on Linux, kqueue on macOS: both have a descriptor that can itself be waited for.
        self._selector = selectors.DefaultSelector()

    def add(self, sock: socket.socket, sink: Sink) -> None:
        """Read a connected, non-blocking socket until it ends or is removed."""
        self._selector.register(sock, selectors.EVENT_READ, sink)

    def remove(self, sock: socket.socket) -> None:
        """Stop reading a socket, before it is closed; nothing happens if it is not read."""
        watched = self._selector.get_map()  # None once the selector is closed
        if watched is not None and sock.fileno() in watched:
            self._selector.unregister(sock)

    async def run(self) -> None:
        """Serve until cancelled."""
        descriptor: int = self._selector.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                for key, _ in self._selector.select(0):
                    self._read(key)
                self.after_batch()
        finally:
            self._selector.close()

    def _read(self, key: selectors.SelectorKey) -> None:
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        if key.fd not in self._selector.get_map():
            return  # removed by what an earlier socket of this batch led to
        sink: Sink = key.data
        try:
            data = sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._selector.unregister(sock)
            sink.connection_lost(str(error))
            return
        if data:
            sink.data_received(data)
        else:
            self._selector.unregister(sock)
            sink.connection_lost("it closed the connection")

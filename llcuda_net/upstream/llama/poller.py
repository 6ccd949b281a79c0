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

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import OnEvents
from llcuda_net.upstream.llama.sse import ResponseParser
from llcuda_net.upstream.llama.token_stream import StreamTimeouts, stalled

log = structlog.get_logger(__name__)

_READ = 256 << 10


class Sink(Protocol):
    """Takes what arrives on one socket. One that raises is a bug, and loses its socket only."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""

    def connection_lost(self, reason: str) -> None:
        """Nothing more will come; the poller has already let go of the socket."""


class Poller:
    """Reads many sockets in one task."""

    def __init__(self) -> None:
        # Epoll on Linux, kqueue on macOS: both have a descriptor that can itself be waited for.
        self._selector = selectors.DefaultSelector()
        self._watched: set[int] = set()  # descriptors; asking the selector costs more, each time
        self._after_batch: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "idle" if self._after_batch is None else "running"
        return f"<Poller {state} streams={len(self._watched)}>"

    def add(self, sock: socket.socket, sink: Sink) -> None:
        """Read a connected, non-blocking socket until it ends or is removed."""
        self._selector.register(sock, selectors.EVENT_READ, sink)
        self._watched.add(sock.fileno())

    def remove(self, sock: socket.socket) -> None:
        """Stop reading a socket, before it is closed; nothing happens if it is not read."""
        if sock.fileno() in self._watched:
            self._watched.remove(sock.fileno())
            self._selector.unregister(sock)

    def end_batch(self) -> None:
        """Bytes that were read elsewhere, from TLS, have gone to their sink: handle the batch."""
        if self._after_batch is not None:
            self._after_batch()

    async def run(self, after_batch: Callable[[], None] = lambda: None) -> None:
        """Serve until cancelled.

        Args:
            after_batch: called after each wake-up's sockets were read, to send what they led to.
        """
        self._after_batch = after_batch
        descriptor: int = self._selector.fileno()
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                for key, _ in self._selector.select(0):
                    if key.fd not in self._watched:
                        continue  # removed by what an earlier socket of this batch led to
                    sock: socket.socket = key.fileobj  # type: ignore[assignment]  # we add no others
                    try:
                        if data := sock.recv(_READ):
                            key.data.data_received(data)
                        else:
                            self.remove(sock)
                            key.data.connection_lost("it closed the connection")
                    except BlockingIOError:
                        continue
                    except OSError as error:
                        self.remove(sock)
                        key.data.connection_lost(str(error))
                    except Exception:
                        # One sink's bug must not end the reading of all the others.
                        log.exception("sink_crashed")
                        self._drop(key)
                after_batch()
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


class TokenStream:
    """The sink of one token stream: parses what is read, and passes the events on.

    Attributes:
        begun, ended: set with the first event, and when nothing more will come.
        failure: why it ended before its time; None: the upstream ended it.
        lost: how the connection ended.
        batches: of events so far.
    """

    def __init__(self, on_events: OnEvents) -> None:
        self.parser = ResponseParser()
        self.begun = trio.Event()
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self.lost = ""
        self.batches = 0
        self._on_events = on_events
        self._over = False

    async def watch(self, timeouts: StreamTimeouts, first: float) -> None:
        """Wait for the end, and check that tokens still come.

        Args:
            first: seconds until the first one.

        Raises:
            RequestError: none came for too long.
        """
        with trio.move_on_after(first):
            await self.begun.wait()
        if not self.begun.is_set():
            raise stalled(first, "first token")
        while True:
            seen = self.batches
            with trio.move_on_after(timeouts.stall) as scope:
                await self.ended.wait()
            if not scope.cancelled_caught:
                return
            if seen == self.batches:
                raise stalled(timeouts.stall)

    def data_received(self, data: bytes) -> None:
        """See Sink."""
        if self._over:
            return
        parser = self.parser
        try:
            parser.feed_response(data)
        except RequestError as error:
            self.failure = error
        try:
            if parser.events:
                events, parser.events = parser.events, []
                self.batches += 1
                if self.batches == 1:
                    self.begun.set()
                self._on_events(events)
        except Exception as error:  # it belongs to the generation, not to the poller
            self.failure = error
        if self.failure is not None or parser.finished or parser.complete:
            self.lost = "it ended the answer early"
            self._end()

    def connection_lost(self, reason: str) -> None:
        """See Sink."""
        self.lost = reason
        try:
            self.parser.feed_eof()
        except RequestError as error:
            self.failure = self.failure or error
        self._end()

    def _end(self) -> None:
        self._over = True
        self.begun.set()
        self.ended.set()

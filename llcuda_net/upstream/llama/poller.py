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
from llcuda_net.upstream.interface import CompletionEvent, OnEvents
from llcuda_net.upstream.llama.chat_stream import ChatParser
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
        # One buffer for all: a new one of this size per read costs more than all that follows.
        buffer = memoryview(bytearray(_READ))
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                for key, _ in self._selector.select(0):
                    if key.fd not in self._watched:
                        continue  # removed by what an earlier socket of this batch led to
                    sock: socket.socket = key.fileobj  # type: ignore[assignment]  # we add no others
                    try:
                        if count := sock.recv_into(buffer):
                            key.data.data_received(bytes(buffer[:count]))
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


class TokenLimit:
    """Counts the tokens of an answer, and ends it where the upstream makes more than were asked.

    A generation's log, and so its memory, is bounded by n_predict only as long as upstreams obey.

    Args:
        most: tokens; None: any number. One comes in any case.
        counted: each event has the right number of tokens. Else an upstream that tells none, or too
            few, is not believed: each event with a token is one more.

    Attributes:
        count: tokens so far, as a generation counts them.
        exceeded: it made more; what it sends is of no interest any more.
    """

    def __init__(self, most: int | None, *, counted: bool = False) -> None:
        self.most = None if most is None else max(1, most)
        self.count = 0
        self._counted = counted
        self.exceeded = False

    def __repr__(self) -> str:
        return f"<TokenLimit {self.count} of {self.most}{', exceeded' if self.exceeded else ''}>"

    def cut(self, events: list[CompletionEvent]) -> list[CompletionEvent]:
        """A batch of events without what is beyond the limit, but with an end in its place."""
        if self.exceeded:
            return []
        for number, event in enumerate(events):
            count = event.tokens_predicted
            if not event.stop and not self._counted:
                count = max(count, self.count + (event.content != "" or bool(event.tokens)))
            if self.most is not None and count > self.most:
                self.exceeded = True
                end = CompletionEvent(
                    stop=True,
                    stop_type="limit",
                    tokens_predicted=self.count,
                    tokens_evaluated=event.tokens_evaluated,
                    timings=event.timings,
                )
                return [*events[:number], end]
            self.count = max(self.count, count)
        return events


class TokenStream:
    """The sink of one token stream: parses what is read, and passes the events on.

    Args:
        most: tokens of the answer; None: any number.
        parser: of what comes; by default of a completion.

    Attributes:
        begun, ended: set with the first token, and when nothing more will come.
        failure: why it ended before its time; None: the upstream ended it.
        lost: how the connection ended.
        limit: counts the tokens, and ends what has too many.
        batches: of events with tokens so far.
    """

    def __init__(
        self,
        on_events: OnEvents,
        most: int | None = None,
        parser: ResponseParser | ChatParser | None = None,
    ) -> None:
        self.parser = parser or ResponseParser()
        self.limit = TokenLimit(most, counted=isinstance(parser, ChatParser))
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
            parser.feed(data)
        except RequestError as error:
            self.failure = error
        try:
            if parser.events:
                events, parser.events = parser.events, []
                before = self.limit.count
                events = self.limit.cut(events)
                if self.limit.count > before:  # events without a token are no progress
                    self.batches += 1
                    self.begun.set()
                if self.limit.exceeded:
                    self.failure = None  # of what is beyond the end
                self._on_events(events)
        except Exception as error:  # it belongs to the generation, not to the poller
            self.failure = error
        if self.failure is not None or parser.finished or parser.complete or self.limit.exceeded:
            self.lost = "it ended the answer early"
            if parser.unfinished:
                self.lost = "it ended the answer within an event"
            self._end()

    def connection_lost(self, reason: str) -> None:
        """See Sink."""
        self.lost = f"{reason} within an event" if self.parser.unfinished else reason
        try:
            self.parser.feed_eof()
            if self.parser.events:  # the end, which waited for its usage
                self._on_events(self.limit.cut(self.parser.events))
        except Exception as error:
            self.failure = self.failure or error
        self._end()

    def _end(self) -> None:
        self._over = True
        self.begun.set()
        self.ended.set()

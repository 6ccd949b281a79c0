"""Two tasks that read the token streams of all generations.

A llama-server emits the tokens of all its slots after one decode step, so they arrive together. A
trio task a socket would cost a wake-up a token; here one wake-up serves every socket that has
data: a private, level-triggered selector, whose own descriptor trio waits for. How long for more,
`upstream/llama/gathering.py` says. A stream that has just begun is in a selector of its own, so
that its first token waits for nothing.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog
import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent, OnEvents
from llcuda_net.upstream.llama.chat_stream import ChatParser
from llcuda_net.upstream.llama.gathering import Cadence, Gathering, Member
from llcuda_net.upstream.llama.sse import ResponseParser
from llcuda_net.upstream.llama.token_stream import StreamTimeouts, stalled

log = structlog.get_logger(__name__)

_READ = 256 << 10
#: Sockets that are read before what they led to is sent: the first ones do not wait for the last.
_MOST_SOCKETS = 64
#: Reads after which a stream has begun: of the head, and of the first token.
_BEGUN = 2


class Sink(Protocol):
    """Takes what arrives on one socket. One that raises is a bug, and loses its socket only."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""

    def connection_lost(self, reason: str) -> None:
        """Nothing more will come; the poller has already let go of the socket."""


class _Watched(Member):
    """A socket that is read, and for whom.

    Attributes:
        selector: that it is in; None: it is not read any more.
        reads: of it so far, while it is in the one for those that begin.
        reason: why it ended.
    """

    __slots__ = ("reads", "reason", "received", "selector", "sink", "sock")

    def __init__(
        self, sock: socket.socket, sink: Sink, cadence: Cadence, selector: _Selector
    ) -> None:
        super().__init__(cadence)
        self.sock = sock
        self.sink = sink
        self.received = sink.data_received
        self.selector: _Selector | None = selector
        self.reads = 0
        self.reason = "it closed the connection"


class _Selector:
    """Descriptors that are waited for together, by one descriptor of its own.

    Attributes:
        descriptor: readable where one of the others is.
        count: of the others.
        ready: gives those that can be read now, up to a batch of them, each with what it is for.
    """

    def __init__(self) -> None:
        # Epoll on Linux, kqueue on macOS: both have a descriptor that can itself be waited for.
        self._selector = selectors.DefaultSelector()
        self.descriptor: int = self._selector.fileno()
        self.ready: Callable[[], list[tuple[int, int]]] = self._ready
        self.count = 0

    def add(self, descriptor: int) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ)
        self.count += 1

    def remove(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        self.count -= 1

    def _ready(self) -> list[tuple[int, int]]:
        return [(key.fd, mask) for key, mask in self._selector.select(0)][:_MOST_SOCKETS]

    def close(self) -> None:
        self._selector.close()


class _Epoll(_Selector):
    """The same without what the general selectors cost for each event."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.descriptor = self._epoll.fileno()
        self.ready = partial(self._epoll.poll, 0, _MOST_SOCKETS)
        self.count = 0

    def add(self, descriptor: int) -> None:
        self._epoll.register(descriptor, select.EPOLLIN)
        self.count += 1

    def remove(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self.count -= 1

    def close(self) -> None:
        self._epoll.close()


def _selector() -> _Selector:
    return _Epoll() if hasattr(select, "epoll") else _Selector()


class Poller:
    """Reads many sockets in two tasks: one for those that have just begun, one for all others."""

    def __init__(self) -> None:
        self._begun = _selector()
        self._beginning = _selector()
        self._watched: dict[int, _Watched] = {}  # by descriptor
        self._gathering = Gathering()
        self._after_batch: Callable[[], None] | None = None
        # One buffer for all: a new one of this size per read costs more than all that follows.
        self._buffer = memoryview(bytearray(_READ))

    def __repr__(self) -> str:
        state = "idle" if self._after_batch is None else "running"
        return f"<Poller {state} streams={len(self._watched)}>"

    def add(self, sock: socket.socket, sink: Sink, cadence: Cadence | None = None) -> None:
        """Read a connected, non-blocking socket until it ends or is removed.

        Args:
            cadence: of the upstream that sends; None: nothing else comes together with this.
        """
        watched = _Watched(sock, sink, cadence or Cadence(), self._beginning)
        self._beginning.add(sock.fileno())
        self._watched[sock.fileno()] = watched

    def remove(self, sock: socket.socket) -> None:
        """Stop reading a socket, before it is closed; nothing happens if it is not read."""
        watched = self._watched.pop(sock.fileno(), None)
        if watched is not None and watched.selector is not None:
            watched.selector.remove(sock.fileno())
            watched.selector = None
            watched.cadence.leave(watched)

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
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_beginnings, after_batch)
                nursery.start_soon(self._read_begun, after_batch)
        finally:
            self._watched.clear()
            self._begun.close()
            self._beginning.close()

    async def _read_beginnings(self, after_batch: Callable[[], None]) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._beginning.descriptor)
            for watched in self._read(self._beginning):
                watched.reads += 1
                if watched.reads >= _BEGUN and watched.selector is not None:
                    descriptor = watched.sock.fileno()
                    self._beginning.remove(descriptor)
                    self._begun.add(descriptor)
                    watched.selector = self._begun
            after_batch()

    async def _read_begun(self, after_batch: Callable[[], None]) -> None:
        begun = self._begun
        pause = 0.0
        while True:
            if pause:
                with trio.CancelScope(deadline=trio.current_time() + pause):
                    await trio.sleep_forever()
            else:
                await trio.lowlevel.wait_readable(begun.descriptor)
            took = self._read(begun)
            alone = begun.count < 2
            if not alone:
                self._gather(took)
            after_batch()
            pause = 0.0 if alone else self._gathering.pace(begun.count, time.monotonic())

    def _gather(self, took: list[_Watched]) -> None:
        """Read what belongs to the same batch; blocks, shorter than any timer of trio's would."""
        gathering, begun = self._gathering, self._begun
        gathering.took(took, time.monotonic())
        count = len(took)
        while count < _MOST_SOCKETS and gathering.more():
            took = self._read(begun)  # while the last ones were read, these came
            now = time.monotonic()
            if not took:
                pause = gathering.wait(now)
                if not pause:
                    return
                time.sleep(pause)
                took = self._read(begun)
                now = time.monotonic()
                gathering.took(took, now)
                gathering.waited(len(took))
            else:
                gathering.took(took, now)
            count += len(took)

    def _read(self, selector: _Selector) -> list[_Watched]:
        """Read each socket that has data; those that had.

        All are read before anything is parsed: the two take turns at the processor's caches less
        often then.
        """
        all_watched = self._watched
        buffer = self._buffer
        came: list[tuple[_Watched, bytes]] = []
        for descriptor, _ in selector.ready():
            watched = all_watched[descriptor]
            try:
                count = watched.sock.recv_into(buffer)
            except BlockingIOError:
                continue
            except OSError as error:
                watched.reason = str(error)
                count = 0
            came.append((watched, bytes(buffer[:count])))
        found = []
        for watched, data in came:
            if watched.selector is None:
                continue  # removed by what an earlier socket of this batch led to
            try:
                if data:
                    watched.received(data)
                    found.append(watched)
                else:
                    self.remove(watched.sock)
                    watched.sink.connection_lost(watched.reason)
            except Exception:
                # One sink's bug must not end the reading of all the others.
                log.exception("sink_crashed")
                self._drop(watched)
        return found

    def _drop(self, watched: _Watched) -> None:
        if watched.selector is not None:
            self.remove(watched.sock)
            with contextlib.suppress(Exception):
                watched.sink.connection_lost("of a bug")


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
        most, so_far = self.most, self.count
        for number, event in enumerate(events):
            count = event.tokens_predicted
            if count <= so_far:
                if event.stop or self._counted or not (event.content or event.tokens):
                    continue
                count = so_far + 1
            if most is not None and count > most:
                self.exceeded = True
                end = CompletionEvent(
                    stop=True,
                    stop_type="limit",
                    tokens_predicted=so_far,
                    tokens_evaluated=event.tokens_evaluated,
                    timings=event.timings,
                )
                return [*events[:number], end]
            so_far = self.count = count
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
                    if not self.batches:
                        self.begun.set()
                    self.batches += 1
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

"""The parts of reading one token stream: how long to wait for it, and what takes in its bytes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import trio

from llcuda_net.errors import RequestError, UpstreamStalled
from llcuda_net.upstream.interface import OnEvents
from llcuda_net.upstream.llama.sse import ResponseParser
from llcuda_net.upstream.prefix_cache import tokens_in


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """How long an upstream may say nothing, by phase.

    Attributes:
        stall: seconds between two tokens.
        first: seconds until the first one, and for each token of the prompt, which is read before.
    """

    stall: float = 60.0
    first: float = 120.0
    a_token: float = 0.1

    def for_first(self, prompt: str | Sequence[int]) -> float:
        """Seconds until the first token of an answer to this prompt."""
        tokens = tokens_in(prompt) if isinstance(prompt, str) else len(prompt)
        return self.first + tokens * self.a_token


def stalled(seconds: float, what: str = "token") -> RequestError:
    """The error for an upstream that has said nothing for too long."""
    return UpstreamStalled(f"the upstream sent no {what} for {seconds:g} s", retry=True)


class LeanStream:
    """The hub's Sink for one token stream: parses what is read."""

    def __init__(self, on_events: OnEvents) -> None:
        self.parser = ResponseParser()
        self.begun = trio.Event()
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self.lost = ""
        self.batches = 0
        self._on_events = on_events

    async def watch(self, patience: StreamTimeouts, first: float) -> None:
        """Wait for the end, looking now and then whether tokens still come.

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
            with trio.move_on_after(patience.stall) as scope:
                await self.ended.wait()
            if not scope.cancelled_caught:
                return
            if seen == self.batches:
                raise stalled(patience.stall)

    def data_received(self, data: bytes) -> None:
        """See Sink."""
        if self.ended.is_set():
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
        except Exception as error:  # it belongs to the generation, not to the hub
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
        self.begun.set()
        self.ended.set()


async def unwind(chunks: AsyncIterator[bytes]) -> None:
    """Leave httpx's generators, which are several deep, where closing the outermost leaves one."""
    with trio.CancelScope() as scope:
        scope.cancel()
        while await anext(chunks, None) is not None:
            pass


async def send_now(stream: trio.SocketStream, data: bytes, on_sent: Callable[[], None]) -> None:
    """Send, and tell so at once: trio's own send gives every other task its turn first."""
    try:
        sent = os.write(stream.socket.fileno(), data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await stream.send_all(data[sent:])
    on_sent()

"""A generation as its reader sees it: pieces of text as they come, and the result at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import trio

import llcuda_protocol as wire
from llcuda_net.client.channel import Channel as FrameChannel
from llcuda_net.client.chat.answer import Answer
from llcuda_net.client.events import (
    Channel,
    Durable,
    Event,
    Piece,
    Queued,
    Result,
    Spliced,
    ToolCall,
)
from llcuda_net.client.reconnecting import ReconnectingConnection
from llcuda_net.client.requests import Reading
from llcuda_net.errors import Unsupported
from llcuda_protocol import TokenLogprob, TopToken

__all__ = [
    "Channel",
    "Durable",
    "Event",
    "Piece",
    "Queued",
    "Result",
    "Spliced",
    "Stream",
    "TokenLogprob",
    "ToolCall",
    "TopToken",
]


#: Of a generation that has a slot.
_RUNS = Queued(0)


class Stream:
    """An answer as it is made: `async for piece in stream` gives its text, piece by piece.

    Reasoning and tool calls are in `events()`, and put together in `reasoning` and `tool_calls`.

    One task reads it. Reading slowly slows this stream down and no other. `Client.generate` and
    `Client.attach` open and close it. A connection that is lost meanwhile is a wait, as long as the
    client can make another in time: no piece is missing or doubled.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        channel: FrameChannel,
        accepted: wire.Accepted,
        first: int,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._accepted = accepted
        self._id = accepted.id
        self._queued = Queued(accepted.position, accepted.wait, accepted.reason)
        self._durable = 0
        self._events: deque[Event] = deque()
        self._answer = Answer(first, self._events)
        self._result: Result | None = None

    def __repr__(self) -> str:
        state = self._result.reason if self._result is not None else "open"
        if self._result is None and self._queued.position:
            state = f"queued at {self._queued.position}"
        return f"<Stream {self._id} {state}, {self.received} pieces received>"

    @property
    def id(self) -> str:
        """The generation's id on the server, with which `Client.attach` finds it."""
        return self._id

    @property
    def level(self) -> str | None:
        """What the generation survives on the server: memory, process, disk or strict."""
        return self._accepted.level

    @property
    def epoch(self) -> int:
        """Names the run of a server that makes the pieces; 0: the first. See `Client.attach`."""
        return self._accepted.epoch

    @property
    def cached(self) -> bool:
        """Whether a stored result answers the request."""
        return self._accepted.cached

    @property
    def durable(self) -> int:
        """How many pieces a power cut can no longer lose, where `durable=True` asked for that.

        Counted from the generation's very first piece, wherever this reader began.
        """
        return self._durable

    @property
    def received(self) -> int:
        """How many pieces have arrived, counted from the generation's very first.

        `client.attach(stream.id, stream.received, epoch=stream.epoch)` reads on from here.
        """
        return self._answer.received

    @property
    def position(self) -> int:
        """Its latest known place in the queue: 1 is the next to run, 0 has a slot."""
        return self._queued.position

    @property
    def wait(self) -> float | None:
        """The latest estimate of the seconds until it runs; None without an estimate."""
        return self._queued.wait

    @property
    def reason(self) -> str | None:
        """What it waits for, as last reported, in words for a person."""
        return self._queued.reason

    @property
    def text(self) -> str:
        """The text that has arrived so far, without reasoning and tool calls."""
        return self._answer.text

    @property
    def reasoning(self) -> str:
        """What the model has thought so far, where it shows that."""
        return self._answer.reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; before the end the arguments of the last may not be whole."""
        return self._answer.tool_calls

    @property
    def result(self) -> Result:
        """The whole answer, once the stream has been read to its end.

        Raises:
            RuntimeError: it has not.
        """
        if self._result is None:
            raise RuntimeError("the stream has no result yet: read it to its end first")
        return self._result

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await self._next()
            if event is None:
                raise StopAsyncIteration
            if isinstance(event, Piece) and event.channel.kind == "text":
                return event.text

    def events(self) -> AsyncIterator[Event]:
        """All pieces with all that is known of them, and with queue moves and splices.

        Pieces of reasoning and of tool calls are among them: `Piece.channel` says what each is.

        Raises:
            ConnectError: the connection was lost before the answer was complete, and could not be
                made again in time.
            RequestError: the server ended the generation with an error. After a loss,
                `UnknownGeneration`: the server has lost it, and `text` is all of it; `Ahead`: the
                server has lost the pieces from number `durable` of the error on.
            trio.ClosedResourceError: the stream was closed by this side.
        """
        return _Events(self)

    async def cancel(self) -> None:
        """Ask the server to stop.

        What was generated until then can still be read, and `result.reason` is "cancelled" unless
        the answer came to its end first.
        """
        await trio.lowlevel.checkpoint()
        if self._result is None:
            self._channel.stop(detach=False)

    async def detach(self) -> None:
        """Stop reading, and let the generation go on, for as long as its `on_disconnect` says.

        Pieces under way can still be read; `result.reason` is then "detached", unless the answer
        came to its end first.

        Raises:
            Unsupported: the server is too old.
        """
        await trio.lowlevel.checkpoint()
        require_attach(self._connection)
        if self._result is None:
            self._channel.stop(detach=True)

    async def take(self) -> list[Event]:
        """All events at hand, after waiting for one; an empty list at the end.

        Raises:
            what `events` raises.
        """
        if not self._events:
            await self._receive()
        events = list(self._events)
        self._events.clear()
        return events

    def close(self) -> None:
        """Close the stream; idempotent.

        A generation that was started here and still runs is cancelled on the server; one that was
        attached to goes on.
        """
        self._channel.close()

    async def _next(self) -> Event | None:
        if self._events:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._receive()
        return self._events.popleft() if self._events else None

    async def _receive(self) -> None:
        """Wait for one event or the end."""
        while self._result is None and not self._events:
            frame = await self._channel.receive()
            if isinstance(frame, wire.Tokens):
                self._queued = _RUNS
                self._answer.add(frame)
            elif isinstance(frame, wire.Queue):
                self._queued = Queued(frame.position, frame.wait, frame.reason)
                self._events.append(self._queued)
            elif isinstance(frame, wire.Splice):
                if frame.epoch is not None:
                    self._accepted = replace(self._accepted, epoch=frame.epoch)
                if self._channel.request.splices:  # else it tells of the epoch alone
                    self._answer.splice(Spliced(frame.position, frame.reason))
            elif isinstance(frame, wire.Channel):
                channel = Channel(frame.channel, frame.index, frame.id or "", frame.name or "")
                self._answer.switch(frame.position, channel)
            elif isinstance(frame, wire.Durable):
                self._durable = max(self._durable, frame.count)
                self._events.append(Durable(frame.count))
            elif isinstance(frame, wire.Accepted):  # resumed
                self._accepted = frame
                self._queued = Queued(frame.position, frame.wait, frame.reason)
                if frame.position:
                    self._events.append(self._queued)
            elif isinstance(frame, wire.Done):
                self._finish(frame)

    def _finish(self, done: wire.Done) -> None:
        answer = self._answer
        answer.finish()
        self._result = Result(
            text=answer.text,
            reason=done.reason,
            stop=done.stop,
            usage=done.usage,
            timings=done.timings,
            id=done.id or self._id,
            model=done.model,
            ids=answer.ids or None,
            logprobs=answer.logprobs or None,
            splices=done.splices,
            cached=self.cached,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
        )


class Opening:
    """A generation to be requested: `async with` opens its stream, and closes it.

    Args:
        connection: where to send it.
        request: what to send.
        detaches: closing the stream lets the generation go on.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        request: wire.Generate | wire.Attach,
        *,
        detaches: bool,
    ) -> None:
        self._connection = connection
        self._request = request
        self._detaches = detaches
        self._stream: Stream | None = None

    async def __aenter__(self) -> Stream:
        if self._detaches:
            require_attach(self._connection)
        reading = Reading(self._request)
        first = reading.received
        channel = await self._connection.open(reading, detaches=self._detaches)
        try:
            accepted = await channel.receive()
        except BaseException:
            if isinstance(self._request, wire.Generate):
                channel.stop(detach=False)  # in the background, too: nobody knows its id
            channel.close()
            raise
        assert isinstance(accepted, wire.Accepted)  # the protocol allows nothing else there
        self._stream = Stream(self._connection, channel, accepted, first)
        return self._stream

    async def __aexit__(self, *exception: object) -> None:
        if self._stream is not None:
            self._stream.close()


def require_attach(connection: ReconnectingConnection) -> None:
    """Make sure that the server knows generations by their ids.

    Raises:
        Unsupported: it does not.
    """
    if "attach" not in connection.features:
        raise Unsupported(
            f"{connection.name} cannot give back a generation by its id: it is of an older version",
        )


class _Events:
    """Iterates over a stream's events; not a generator, which could not be left half-way."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        event = await self._stream._next()
        if event is None:
            raise StopAsyncIteration
        return event

"""A stream: one client's reading of a generation, from its log to the session's write buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from llcuda_net.errors import Interrupted, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import Failover, Place, State
from llcuda_net.server.tcp.fitting import failure, send_fitted
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.storage.channels import TEXT
from llcuda_net.storage.records import is_continuation
from llcuda_protocol import (
    Accepted,
    Channel,
    Connection,
    Done,
    Durable,
    Error,
    ErrorCode,
    LocalProtocolError,
    Queue,
    Splice,
    Tokens,
)

#: Most pieces that are encoded at once: bounds the work that is lost when they do not all fit.
_MOST_PIECES = 512
#: Bytes of log-probabilities that are encoded at once: one piece may have 30 kB of them.
_MOST_BYTES = 64 << 10
#: The encoded log-probabilities of a piece that a reader does not see: those of no token.
_NO_TOKENS = b"\x90"
#: Most characters of the id and the name of a tool call in a frame.
_MOST_NAME = 1024

log = structlog.get_logger(__name__)


class GenerationStream:
    """Sends a generation's log as credit and the write buffer allow, and then how it ended.

    Args:
        number: of the stream on its connection.
        first: number of the first piece to send.
        with_ids: whether the client asked for token ids.
        with_durable: whether it asked for what a power cut cannot take away.
        with_splices: whether it asked to be informed where another upstream continues.
        with_epochs: whether the client goes on where another server does; else the stream ends
            there.
        with_channels: whether it asked for all channels. Otherwise it reads text alone, and the
            pieces of other channels are empty, so that the numbers of all pieces stay.
        on_end: called with the number when the last frame has been added.
        on_left: called with the generation when it is no longer read here.
        on_shelved: called with the generation when more of its log could be sent, and the log was
            dropped from memory; it is to be brought back.
        on_crash: called when a bug was caught here; ends the session. Streams are pumped by the
            generation, the queue and the publisher, and none of them may suffer for it.
    """

    def __init__(
        self,
        number: int,
        generation: Generation,
        connection: Connection,
        buffer: WriteBuffer,
        *,
        first: int = 0,
        with_ids: bool,
        with_durable: bool = False,
        with_splices: bool = False,
        with_epochs: bool = False,
        with_channels: bool = False,
        on_end: Callable[[int], object],
        on_left: Callable[[Generation], object],
        on_shelved: Callable[[Generation], object],
        on_crash: Callable[[], None],
    ) -> None:
        self.generation = generation
        self._number = number
        self._connection = connection
        self._buffer = buffer
        self._with_ids = with_ids
        self._with_durable = with_durable
        self._with_splices = with_splices
        self._with_epochs = with_epochs
        self._epoch = 0
        self._with_channels = with_channels
        self._on_end = on_end
        self._on_left = on_left
        self._on_shelved = on_shelved
        self._on_crash = on_crash
        self._next = first
        self._reading = True
        self._cancelled = False
        self._detached = False
        self._accepted = False
        self._place = Place()
        self._durable = 0
        #: How many of the generation's failovers were sent, or are no news to this reader.
        self._failovers = sum(one.position <= first for one in generation.failovers)
        #: How many of its switches are behind us, and whether the reader does not see this channel.
        self._switches = 0
        self._hidden = False
        self._special = with_ids  # its frames hold more, or less, than the text
        generation.join(self)
        if with_durable:
            generation.follow()

    def __repr__(self) -> str:
        state = "reading" if self._reading else "ended"
        return (
            f"<GenerationStream {self._number} {state} next={self._next}"
            f" of {self.generation.visible} generation={self.generation.id}>"
        )

    def drop(self) -> None:
        """Read no further: the client is gone."""
        if not self._reading:
            return
        self._reading = False
        self.generation.readers.remove(self)
        self._on_left(self.generation)

    def cancel(self) -> None:
        """Cancel the generation for the client, and drop what was not sent.

        Without the drop, a stream without credit would never come to its end. Of several cancels
        and detaches the first counts.
        """
        if self._cancelled or self._detached:
            return
        self._cancelled = True
        self.generation.cancel()
        self.pump()

    def detach(self) -> None:
        """End the stream for the client; the generation continues."""
        if self._cancelled or self._detached:
            return
        self._detached = True
        self.pump()

    def hand_back(self, error: RequestError) -> None:
        """The server stops: send what can be sent now, and that the rest may be asked for again.

        Without credit there would be no end: the error does not wait for what comes before it.
        """
        self.pump()
        if self._connection.is_open(self._number):
            self._end(Error(self._number, error.code, error.message, error.retry))

    def pump(self) -> None:
        """Send what can be sent now. Called when the log, the credit or the room has grown."""
        if not self._reading:
            return
        generation = self.generation
        try:
            if (
                not self._accepted
                or self._detached
                or generation.place is not self._place
                or (self._with_durable and generation.durable > self._durable)
                or self._failovers < len(generation.failovers)
            ) and not self._send_news():
                return
            while self._next < generation.visible and not self._cancelled:
                if self._buffer.full:
                    self._buffer.wait_for_room()
                    return
                if generation.shelved is not None:
                    self._without_log()
                    return
                if self._switches < len(generation.switches):
                    self._switch()
                start = self._next
                end = generation.visible
                if end - start > 1:
                    end = self._end_of_slice(start)
                logprobs = generation.logprobs
                if not self._special and logprobs is None:
                    pieces = generation.pieces[start:end]
                    if data := self._connection.send_pieces(self._number, start, pieces):
                        self._buffer.add(data)
                        self._next = end
                        if self._failovers < len(generation.failovers) and not (
                            self._send_failovers()
                        ):
                            return
                        continue
                tokens = Tokens(
                    self._number,
                    start,
                    generation.pieces[start:end],
                    generation.ids[start:end] if self._with_ids else None,
                )
                packed: Sequence[Any] | None = None if logprobs is None else logprobs[start:end]
                if self._hidden:
                    tokens, packed = _hide(tokens, packed)
                data, count = self._connection.send_tokens(tokens, packed)
                if not count:
                    return  # without credit
                self._buffer.add(data)
                self._next += count
                if self._failovers < len(generation.failovers) and not self._send_failovers():
                    return
            if generation.ended:
                self._finish()
        except LocalProtocolError as error:
            self._refused(error)
        except Exception:
            self._crashed()

    def _without_log(self) -> None:
        """The log was dropped from memory: for good, or until the reader can take more of it."""
        lost = self.generation.lost
        if lost is not None:
            self._end(Error(self._number, lost.code, lost.message, lost.retry, lost.retry_after))
        elif self._connection.credit(self._number):
            self._on_shelved(self.generation)

    def _refused(self, error: LocalProtocolError) -> None:
        """The stream is not open any more, or another reader may take larger frames."""
        if not self._connection.is_open(self._number):
            self.drop()
            return
        try:
            self._end(failure(self._number, error))
        except Exception:
            self._crashed()

    def _crashed(self) -> None:
        log.exception("stream_crashed", generation=self.generation.id)
        self.drop()
        self._on_crash()

    def _end_of_slice(self, start: int) -> int:
        """The end of what may go into one frame: before a failover or a switch, and not long."""
        generation = self.generation
        end = min(start + _MOST_PIECES, generation.visible)
        if generation.logprobs is not None:
            room = _MOST_BYTES
            for place in range(start, end):
                room -= len(generation.logprobs[place])
                if room < 0:
                    end = max(place, start + 1)
                    break
        if self._switches < len(generation.switches):
            end = min(end, generation.switches[self._switches].position)
        failover = self._next_failover()
        return end if failover is None else min(end, failover.position)

    # -- what is not tokens -------------------------------------------------------------------

    def _send_news(self) -> bool:
        """Send what has changed beside the log; whether tokens may follow."""
        generation = self.generation
        if not self._connection.is_open(self._number):
            self.drop()
            return False
        if not self._accepted:
            if generation.ended and not generation.accepted and generation.error is not None:
                self._finish()
                return False
            if not (generation.accepted or generation.ended):
                return False
            self._accept()
        if self._detached:
            # Not before: until it is accepted, nobody knows that it will be there.
            self._end(Done(self._number, reason="detached", id=generation.id))
            return False
        durable = generation.durable
        if self._with_durable and durable > self._durable:
            self._durable = durable
            self._buffer.add(self._connection.send(Durable(self._number, durable)))
        place = generation.place
        if place is not self._place:
            if place != self._place:
                queue = Queue(self._number, place.position, place.wait, place.reason or None)
                self._buffer.add(self._connection.send(queue))
            self._place = place
        return self._send_failovers()

    def _accept(self) -> None:
        generation = self.generation
        place = generation.place
        accepted = Accepted(
            self._number,
            generation.id,
            place.position,
            generation.level,
            generation.epoch,
            generation.cached_from is not None,
            place.wait,
            place.reason or None,
        )
        self._buffer.add(self._connection.send(accepted))
        self._place = place
        self._epoch = generation.epoch
        self._accepted = True

    def _next_failover(self) -> Failover | None:
        """The next one that is news to this reader."""
        failovers = self.generation.failovers
        while self._failovers < len(failovers):
            one = failovers[self._failovers]
            if self._with_splices or one.epoch > self._epoch:
                return one
            self._failovers += 1
        return None

    def _send_failovers(self) -> bool:
        """Whether the stream goes on behind them."""
        while (one := self._next_failover()) is not None and one.position <= self._next:
            self._failovers += 1
            epoch = one.epoch if one.epoch > self._epoch else None
            if epoch is not None and not self._with_epochs and one.position:
                why = "another server has gone on with this generation: attach again"
                self._end(Error(self._number, ErrorCode.LEASE_LOST, why, retry=True))
                return False
            # What nobody has seen is nobody's concern, but the epoch in which it will be.
            if one.position or (epoch is not None and self._with_epochs):
                splice = Splice(self._number, one.position, one.reason, epoch)
                self._buffer.add(self._connection.send(splice))
            self._epoch = epoch or self._epoch
        return True

    def _switch(self) -> None:
        """Note of which channel the next piece is, and tell a reader who wants to know.

        One who begins in the middle is told of the channel that it is in, and of none before.
        """
        switches = self.generation.switches
        found = None
        while self._switches < len(switches) and switches[self._switches].position <= self._next:
            found = switches[self._switches]
            self._switches += 1
        if found is None:
            return
        self._hidden = not self._with_channels and found.kind != TEXT
        self._special = self._with_ids or self._hidden
        if self._with_channels:
            id_, name = found.id[:_MOST_NAME] or None, found.name[:_MOST_NAME] or None
            channel = Channel(self._number, found.position, found.kind, found.index, id_, name)
            self._buffer.add(self._connection.send(channel))

    def _finish(self) -> None:
        """The generation is over, and all of it was sent."""
        self._end(ending(self.generation, self._number, channels=self._with_channels))

    def _end(self, frame: Error | Done) -> None:
        self._buffer.add(send_fitted(self._connection, frame))
        self._on_end(self._number)
        self.drop()


def _hide(tokens: Tokens, packed: Sequence[Any] | None) -> tuple[Tokens, Sequence[Any] | None]:
    """As many pieces, of which nothing is seen."""
    count = len(tokens.pieces)
    ids: list[int | None] | None = None if tokens.ids is None else [None] * count
    hidden = Tokens(tokens.stream, tokens.first, [""] * count, ids)
    return hidden, None if packed is None else [_NO_TOKENS] * count


def ending(generation: Generation, stream: int, *, channels: bool = False) -> Done | Error:
    """The last frame of a stream that reads this generation.

    Args:
        channels: whether the reader knows of tool calls.
    """
    state, error, outcome = generation.state, generation.error, generation.outcome
    if state in (State.FAILED, State.INTERRUPTED):
        error = error or Interrupted("the server was stopped before the end", retry=True)
        return Error(stream, error.code, error.message, error.retry, error.retry_after)
    count = generation.count
    reason = "cancelled" if state is State.CANCELLED else outcome.reason
    if reason == "tool_calls" and not channels:
        reason = "stop"
    return Done(
        stream,
        reason=reason,
        id=generation.id,
        model=outcome.model,
        stop=outcome.stop,
        usage=outcome.usage,
        timings=generation.phases(),
        splices=[p for p, _ in generation.splices if is_continuation(p, count, state)],
    )

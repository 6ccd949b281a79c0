"""A stream: one client's reading of a generation, from its log to the session's outbox."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Failover, Generation
from llcuda_net.server.tcp.write_buffer import Outbox
from llcuda_protocol import (
    Accepted,
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
#: The same where each piece carries log-probabilities, up to 30 kB of them.
_MOST_PIECES_LOGPROBS = 16

log = structlog.get_logger(__name__)


class GenerationStream:
    """Sends a generation's log as credit and the outbox allow, and then how it ended.

    Args:
        number: of the stream on its connection.
        first: number of the first piece that the client wants.
        with_ids: whether the client asked for token ids.
        with_durable: whether it asked for what a power cut cannot take away.
        with_splices: whether it asked to be told where another upstream goes on.
        on_end: called with the number when the last frame has been added.
        on_left: called with the generation when it is no longer read here.
        on_crash: called when a bug was caught here; ends the session. What calls a stream is the
            generation, the queue or the hub, and none of them may suffer for it.
    """

    def __init__(
        self,
        number: int,
        generation: Generation,
        connection: Connection,
        outbox: Outbox,
        *,
        first: int = 0,
        with_ids: bool,
        with_durable: bool = False,
        with_splices: bool = False,
        on_end: Callable[[int], object],
        on_left: Callable[[Generation], object],
        on_crash: Callable[[], None],
    ) -> None:
        self.generation = generation
        self._number = number
        self._connection = connection
        self._outbox = outbox
        self._with_ids = with_ids
        self._on_end = on_end
        self._on_left = on_left
        self._on_crash = on_crash
        self._next = first
        self._reading = True
        self._cancelled = False
        self._detached = False
        self._accepted = False
        self._queue: tuple[int, float | None, str] = (0, None, "")
        self._durable = 0
        self._with_durable = with_durable
        #: How many of the generation's failovers were told, or are no news to this reader.
        self._told = sum(one.position <= first for one in generation.failovers)
        self._with_splices = with_splices
        generation.join()
        generation.on_change.append(self.pump)
        if with_durable:
            generation.on_durable.append(self._settled)

    def drop(self) -> None:
        """Read no further: the client is gone."""
        if not self._reading:
            return
        self._reading = False
        generation = self.generation
        generation.on_change.remove(self.pump)
        if self._with_durable:
            generation.on_durable.remove(self._settled)
        generation.readers -= 1
        self._on_left(generation)

    def cancel(self) -> None:
        """The client wants the generation stopped: drop what was not sent.

        Without the drop, a stream without credit would never come to its end.
        """
        self._cancelled = True
        self.generation.cancel()
        self.pump()

    def detach(self) -> None:
        """The client wants to read no further, and the generation to go on."""
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
        try:
            self._pump()
        except Exception:
            self._crashed()

    def _crashed(self) -> None:
        log.exception("stream_crashed", generation=self.generation.id)
        self.drop()
        self._on_crash()

    def _pump(self) -> None:
        if not self._connection.is_open(self._number):
            self.drop()
            return
        generation, connection, outbox = self.generation, self._connection, self._outbox
        if not self._accepted:
            if generation.ended and not generation.accepted and generation.error is not None:
                self._end(generation.ending(self._number))
                return
            if not (generation.accepted or generation.ended):
                return
            self._accept()
        if self._detached:
            # Not before: until it is accepted, nobody knows that it will be there.
            self._end(Done(self._number, reason="detached", id=generation.id))
            return
        self._tell_durable()
        if self._waits() != self._queue:
            position, wait, reason = self._queue = self._waits()
            outbox.add(connection.send(Queue(self._number, position, wait, reason or None)))
        self._tell_failovers()
        while self._next < generation.visible and not self._cancelled:
            if connection.credit(self._number) <= 0 or not outbox.has_room:
                return
            try:
                data, count = connection.send_tokens(self._slice())
            except LocalProtocolError as error:  # other readers may take larger frames
                self._end(Error(self._number, ErrorCode.INTERNAL, str(error)[:500]))
                return
            outbox.add(data)
            self._next += count
            self._tell_failovers()
        if generation.ended:
            self._end(generation.ending(self._number))

    def _accept(self) -> None:
        generation = self.generation
        accepted = Accepted(
            self._number,
            generation.id,
            generation.position,
            generation.level,
            generation.epoch,
            generation.cached_from is not None,
            generation.queue_wait,
            generation.queue_reason or None,
        )
        self._outbox.add(self._connection.send(accepted))
        self._queue = self._waits()
        self._accepted = True

    def _waits(self) -> tuple[int, float | None, str]:
        generation = self.generation
        return generation.position, generation.queue_wait, generation.queue_reason

    def _next_failover(self) -> Failover | None:
        """The next one to be told of."""
        if not self._with_splices:
            return None
        failovers = self.generation.failovers
        return failovers[self._told] if self._told < len(failovers) else None

    def _tell_failovers(self) -> None:
        while (one := self._next_failover()) is not None and one.position <= self._next:
            self._told += 1
            if one.position:  # what nobody has seen is nobody's concern
                splice = Splice(self._number, one.position, one.reason)
                self._outbox.add(self._connection.send(splice))

    def _settled(self) -> None:
        """More of the generation is on the disk."""
        try:
            if self._accepted and self._connection.is_open(self._number):
                self._tell_durable()
                self._outbox.flush()
        except Exception:
            self._crashed()

    def _tell_durable(self) -> None:
        durable = self.generation.durable
        if self._with_durable and durable > self._durable:
            self._durable = durable
            self._outbox.add(self._connection.send(Durable(self._number, durable)))

    def _slice(self) -> Tokens:
        generation = self.generation
        logprobs = generation.logprobs
        most = _MOST_PIECES if logprobs is None else _MOST_PIECES_LOGPROBS
        start = self._next
        end = min(start + most, generation.visible)
        failover = self._next_failover()
        if failover is not None:
            end = min(end, failover.position)
        return Tokens(
            self._number,
            start,
            generation.pieces[start:end],
            generation.ids[start:end] if self._with_ids else None,
            None if logprobs is None else logprobs[start:end],
        )

    def _end(self, frame: Error | Done) -> None:
        try:
            data = self._connection.send(frame)
        except LocalProtocolError as error:  # the upstream gave a figure or name out of all bounds
            data = self._connection.send(Error(self._number, ErrorCode.INTERNAL, str(error)[:500]))
        self._outbox.add(data)
        self._on_end(self._number)
        self.drop()

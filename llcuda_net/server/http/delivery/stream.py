"""A stream of server-sent events: one client's reading of the generations that answer a request.

The sibling of server/tcp/stream.py. A request with n choices has as many generations; their events
come in one stream, as they are made, and each event's id says how far the reader is in all of them.

A comment is one line and no more: an empty line behind it would end an event, and OpenAI's client
for Python takes that for one without data. See "Server-sent events" in the HTML standard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog
import trio

from llcuda_net.errors import InternalError, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import NOT_QUEUED, Place
from llcuda_net.server.http.delivery.event_ids import FINISH, USAGE, Ids, joined
from llcuda_net.server.http.delivery.format import Format, Writer, failure_of
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange

log = structlog.get_logger(__name__)

#: Seconds for which an answer that does not begin may still fail with a status of its own.
HEAD_PATIENCE = 1.0
#: Seconds between two looks at a stream, and of silence after which a comment is due.
LOOK, SILENCE = 2.0, 8.0
#: Seconds between two comments about the queue.
_COMMENT_EVERY = 1.0
#: Bytes of events that are made at once: bounds what a full buffer has to hold beyond its bound.
_BATCH = 16 << 10


class _Choice:
    """One choice of the answer, and how far it was sent."""

    __slots__ = ("generation", "ids", "place", "sent", "writer")

    def __init__(self, generation: Generation, sent: int) -> None:
        self.generation = generation
        self.sent = sent
        self.place = NOT_QUEUED
        self.writer: Writer
        self.ids: Ids

    @property
    def over(self) -> bool:
        """Whether the reason for its end was sent."""
        generation = self.generation
        return generation.ended and self.sent > generation.count


class EventStream:
    """Sends the logs of generations as events, as the write buffer allows, and how they ended.

    Args:
        generations: one per choice.
        form: how the events are written.
        sent: how many events of each the reader has, as their ids count them.
        after: the last event that the reader has, where the API has numbers of its own.
        headers: of the answer, beside its own.
    """

    def __init__(
        self,
        exchange: Exchange,
        generations: Sequence[Generation],
        form: Format,
        *,
        sent: Iterable[int] = (),
        after: int | None = None,
        headers: Mapping[str, str],
    ) -> None:
        self._exchange = exchange
        self._host = exchange.host
        self._buffer = exchange.buffer
        self._form = form
        self._after = after
        self._headers = headers
        counts = [*sent] or [0] * len(generations)
        self._choices = [_Choice(*one) for one in zip(generations, counts, strict=True)]
        self._alone = len(generations) == 1
        self._reading = True
        self._begun = False
        self._refusal: Exception | None = None
        self._done = trio.Event()
        self._spoke = False  # whether anything was sent since the last look
        self._silent = trio.current_time()  # since when nothing was, as far as the looks saw
        self._commented = -_COMMENT_EVERY
        self._until = trio.CancelScope()  # around the pause until the next look
        for generation in generations:
            generation.join(self)

    def __repr__(self) -> str:
        state = "reading" if self._reading else "ended"
        sent = ", ".join(f"{c.generation.id} {c.sent}" for c in self._choices)
        return f"<EventStream {state} {sent}>"

    async def run(self) -> None:
        """Serve it to its end; when cancelled, since the client is gone, it leaves.

        Raises:
            HttpError, RequestError: it failed before anything was sent.
        """
        exchange = self._exchange
        exchange.on_room, exchange.on_stop = self.pump, self.hand_back
        try:
            if self._after is not None or any(choice.sent for choice in self._choices):
                self._begin()
            self.pump()
            exchange.flush()
            while self._reading:
                with trio.move_on_after(self._pause()) as self._until:
                    await self._done.wait()
                if self._reading:
                    self._look()
                exchange.flush()
        finally:
            exchange.on_room = exchange.on_stop = None
            if self._reading:
                self._leave()
                for choice in self._choices:
                    self._host.orphans.add(choice.generation)
        if self._refusal is not None:
            raise self._refusal

    def hand_back(self, error: RequestError) -> None:
        """The server stops: send what can be sent now, and that the rest may be asked for again."""
        self.pump()
        if self._reading:
            self._fail(of_request_error(error))

    def pump(self) -> None:
        """Send what can be sent now. Called when a log, the queue or the room has changed."""
        if not self._reading:
            return
        try:
            if not self._begun and not self._may_begin():
                return
            for choice in self._choices:
                if not self._send(choice):
                    return
            if self._alone or all(choice.over for choice in self._choices):
                self._end()
        except Exception:
            log.exception("event_stream_crashed", generation=self._choices[0].generation.id)
            self._refusal = InternalError("a bug in the server")
            self._leave()

    # -- the beginning ------------------------------------------------------------------------

    def _may_begin(self) -> bool:
        """Begin where it is known that the answer is no refusal; whether it has begun."""
        generations = [choice.generation for choice in self._choices]
        if not all(one.accepted or one.ended for one in generations):
            return False  # its id is not certain yet, nor that it will be there
        accepted = all(one.accepted for one in generations)
        if (self._form.eager and accepted) or any(one.visible for one in generations):
            self._begin()
            return True
        for one in generations:
            if one.ended and (failure := failure_of(one)) is not None:
                self._fail(failure)
                return False
        if any(one.place.position for one in generations) or all(one.ended for one in generations):
            self._begin()
        return self._begun

    def _begin(self) -> None:
        """Send the head of the answer."""
        if self._begun:
            return
        self._begun = True
        first = self._choices[0].generation
        for index, choice in enumerate(self._choices):
            choice.writer = self._form.writer(choice.generation, index, first, self._after)
            choice.ids = Ids(choice.generation)
        named = {"x-llcuda-generation": ids_of([c.generation for c in self._choices])}
        self._exchange.begin_stream({**self._headers, **named})
        for choice in self._choices:
            if not choice.sent:
                self._exchange.write(choice.writer.begin())

    # -- events -------------------------------------------------------------------------------

    def _send(self, choice: _Choice) -> bool:
        """Send what is there of a choice; whether it is over, or the others may go on."""
        generation = choice.generation
        if generation.place is not choice.place:
            self._moved(choice)
        while choice.sent < generation.visible:
            if self._buffer.full:
                self._buffer.wait_for_room()
                return False
            if generation.shelved is not None:
                return self._without_log(choice)
            self._spoke = True
            at, ids, sent, visible = (
                choice.writer.at,
                choice.ids.at,
                choice.sent,
                generation.visible,
            )
            events: list[bytes] = []
            size = 0
            while sent < visible and size < _BATCH:
                position = sent
                sent += 1
                choice.sent = sent
                event = at(position, ids(sent) if self._alone else self._id())
                events.append(event)
                size += len(event)
            self._exchange.write(b"".join(events))
        if not generation.ended:
            return not self._alone
        if choice.sent > generation.count:
            return True
        if generation.shelved is not None:  # the last event may have all of it
            return self._without_log(choice)
        failure = failure_of(generation)
        choice.sent = generation.count + FINISH
        if failure is not None:
            self._fail(failure, choice.writer.failed(failure, self._id()))
            return False
        self._write(choice.writer.last(self._id()))
        return True

    def _id(self) -> bytes:
        return joined(choice.ids.at(choice.sent) for choice in self._choices)

    def _write(self, data: bytes) -> None:
        self._spoke = True
        self._exchange.write(data)

    def _without_log(self, choice: _Choice) -> bool:
        """The log was dropped from memory: for good, or until the reader can take more of it."""
        lost = choice.generation.lost
        if lost is not None:
            self._fail(of_request_error(lost))
            return False
        self._host.recall(choice.generation)
        return not self._alone

    def _end(self) -> None:
        """All choices are over."""
        generations = [choice.generation for choice in self._choices]
        if any(c.sent < c.generation.count + USAGE for c in self._choices):
            data = self._form.total(generations)
            if data is not None:
                for choice in self._choices:
                    choice.sent = choice.generation.count + USAGE
                self._write(b"id: %b\ndata: %b\n\n" % (self._id(), data))
        self._write(self._form.tail)
        self._exchange.end_stream()
        self._leave()

    def _fail(self, error: HttpError, events: bytes | None = None) -> None:
        """End with an error.

        Args:
            events: that say so; None: the answer may be otherwise the next time.
        """
        if self._begun:
            self._write(self._form.error(error) if events is None else events)
            self._exchange.end_stream()
        else:
            generations = [choice.generation for choice in self._choices]
            if all(generation.accepted for generation in generations):
                error.headers["x-llcuda-generation"] = ids_of(generations)
            self._refusal = error
        self._leave()

    def _leave(self) -> None:
        """Read no further."""
        if not self._reading:
            return
        self._reading = False
        self._done.set()
        for choice in self._choices:
            choice.generation.readers.remove(self)
        for choice in self._choices:
            self._host.left(choice.generation)

    # -- waiting is seen ----------------------------------------------------------------------

    def _pause(self) -> float:
        """Seconds until the next look. Who waits in silence is left alone: thousands may."""
        if not self._begun:
            return HEAD_PATIENCE
        return LOOK if self._spoke else max(LOOK, self._silent + SILENCE - trio.current_time())

    def _look(self) -> None:
        """Called now and then: begin, though there is nothing yet; say why nothing comes."""
        if not self._begun:
            if not all(choice.generation.accepted for choice in self._choices):
                return
            self._begin()
        self.pump()
        now = trio.current_time()
        if self._spoke:
            self._spoke, self._silent = False, now
        waits = any(choice.place != choice.generation.place for choice in self._choices)
        if self._reading and (waits or now - self._silent >= SILENCE):
            self._comment()

    def _moved(self, choice: _Choice) -> None:
        """The queue has moved: say so, but not all the time."""
        place = choice.generation.place
        if place == choice.place:
            choice.place = place
        elif trio.current_time() - self._commented >= _COMMENT_EVERY:
            self._comment()
        else:  # the next look says so
            self._until.deadline = min(self._until.deadline, trio.current_time() + LOOK)

    def _comment(self) -> None:
        now = trio.current_time()
        self._commented = now
        text = ""
        for choice in self._choices:
            choice.place = choice.generation.place
            text = text or self._why(choice.generation)
        if not self._buffer.full and text:
            self._exchange.write(self._form.comment(text))
            self._silent = now

    def _why(self, generation: Generation) -> str:
        """Why there is nothing to send of it; empty: it is over."""
        if generation.ended:
            return ""
        if generation.place.position:
            return queue_line(generation.place, self._host.queued)
        if not generation.accepted:
            return "the request is being kept"
        return "the answer goes on" if generation.visible else "the prompt is being read"


def queue_line(place: Place, queued: int) -> str:
    """Where a request stands, on one line."""
    wait = "" if place.wait is None else f", about {place.wait:.0f} s"
    reason = " ".join(f": {place.reason}".split()) if place.reason else ""
    return f"queued {place.position} of {max(queued, place.position)}{wait}{reason}"


def ids_of(generations: Sequence[Generation]) -> str:
    """The value of x-llcuda-generation: the generation of each choice."""
    return ", ".join(generation.id for generation in generations)

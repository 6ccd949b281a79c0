"""The events of a streamed response: numbered from 0, the same for every reader.

Each is a pure function of the log and the position in it; outline.py says which number it has. A
group of them goes with each piece: what closes the item before it and opens its own, where it is
the first of one, and its delta. Most of a delta is the same for a whole item: it is encoded once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from llcuda_net.errors import Ahead, InvalidRequest, LeaseLost
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.answers import logprobs_of
from llcuda_net.server.http.responses.answers import (
    Shape,
    content_of,
    encode,
    events_before,
    final_status,
    item_id,
    item_of,
    last_status,
    members,
    outline_of,
    output_of,
    part_of,
)
from llcuda_net.server.http.responses.outline import GAP, Outline, Run, Stretch, runs
from llcuda_net.storage.channels import REASONING, TEXT, TOOL_CALL

_NEVER = sys.maxsize
_DELTAS = {
    TEXT: "response.output_text.delta",
    REASONING: "response.reasoning_text.delta",
    TOOL_CALL: "response.function_call_arguments.delta",
}
#: An event before it has a number: its type, and its members beside that and the number.
_Event = tuple[str, dict[str, Any]]


class ResponseEvents:
    """Makes the events of a response. See Writer in delivery/format.py.

    Args:
        generation: what is read; its log must be in memory where a piece of it is written.
        shape: of the answer.
        after: the number of the last event that the reader has; None: it has none.
    """

    def __init__(self, generation: Generation, shape: Shape, after: int | None = None) -> None:
        self._generation = generation
        self._shape = shape
        self._after = -1 if after is None else after
        self._outline = outline_of(generation, shape)
        self._switches = len(generation.switches)
        self._splices = len(generation.splices)
        #: How many alternatives of the tokens at `_next` are written; None: none.
        self._most: int | None = None
        #: What stands before the id, the number, and the text of the delta at `_next`, and behind
        #: it; the same up to `_turn`. The number is `_base` and the position.
        self._event = self._data = self._before = self._behind = b""
        self._base = 0
        self._next = -1
        self._turn = _NEVER

    def __repr__(self) -> str:
        return f"<ResponseEvents of {self._generation.id} at {self._next}>"

    def begin(self) -> bytes:
        """The response is created, and waits or runs."""
        status = "queued" if self._shape.background else "in_progress"
        events = [self._state("response.created", status), self._state(f"response.{status}")]
        return self._written(0, events)

    def at(self, position: int, id_: bytes) -> bytes:
        """The events of the piece at this position; fastest where they are taken in order."""
        generation = self._generation
        if (
            position != self._next
            or position >= self._turn
            or len(generation.switches) != self._switches
            or len(generation.splices) != self._splices
        ):
            return self._group(position, id_)
        self._next = position + 1
        text = encode(generation.pieces[position])
        number = self._base + position
        if self._most is None:
            return b"%b%b%b%d%b%b%b" % (
                self._event,
                id_,
                self._data,
                number,
                self._before,
                text,
                self._behind,
            )
        assert generation.logprobs is not None
        found = encode(logprobs_of(generation.logprobs[position], self._most))
        return b'%b%b%b%d%b%b,"logprobs":%b}\n\n' % (
            self._event,
            id_,
            self._data,
            number,
            self._before,
            text,
            found,
        )

    def last(self, id_: bytes) -> bytes:
        """What closes the last item, and the whole response."""
        generation, outline = self._generation, self._grown()
        count = generation.count
        events: list[_Event] = []
        stretch = outline.stretches[-1]
        number = stretch.base + count
        if not count:  # an empty answer is an empty message
            number = events_before(self._shape)
            if self._shape.background:
                number -= 1
                events.append(self._state("response.in_progress"))
            events += self._opening(stretch)
        events += self._closing(stretch, count, last_status(generation))
        events.append(self._end(final_status(generation)))
        return self._written(number + self._run(count)[0], events, id_)

    def failed(self, error: HttpError, id_: bytes) -> bytes:
        """The response as far as it has come; nothing closes the item that it was in.

        Where it ends here and not for good, or not all of it may be seen, that is no event of it.
        """
        generation = self._generation
        whole = generation.state is State.DONE  # but cannot be read any more
        lost = isinstance(generation.error, LeaseLost)  # goes on at another server
        if whole or lost or generation.visible < generation.count:
            return error_event(error)
        outline = self._grown()
        number = outline.stretches[-1].base + generation.count
        if not generation.count:
            number = 2
        number += self._run(generation.count)[0]
        return self._written(number, [self._end(final_status(generation))], id_)

    # -- a group of events --------------------------------------------------------------------

    def _group(self, position: int, id_: bytes) -> bytes:
        """All events of a piece; what comes next is without those that close and open."""
        outline = self._grown()
        place = outline.find(position)
        stretch = outline.stretches[place]
        later = outline.stretches[place + 1 : place + 2]
        added, until = self._run(position)
        self._turn = min(later[0].first, until) if later else until
        self._around(stretch)
        self._base += added
        number = self._base + position
        self._next = position
        begins = stretch.first == position
        events: list[_Event] = []
        if begins and place:
            before = outline.stretches[place - 1]
            events += self._closing(before, position, "completed")
        if position == 0 and self._shape.background:
            events.append(self._state("response.in_progress"))
        if begins and stretch.opening:
            events += self._opening(stretch)
        written = self._written(number - len(events), events)
        if number > self._after:
            written += self.at(position, id_)
        else:
            self._next = -1  # the next one may be left out, too
        return written

    def _around(self, stretch: Stretch) -> None:
        """What stands around the text of each delta."""
        kind = stretch.channel.kind
        type_ = _DELTAS[kind].encode()
        part = b"" if kind == TOOL_CALL else b',"content_index":0'
        item = encode(item_id(self._generation, stretch))
        self._base = stretch.base
        self._event = b"event: %b\nid: " % type_
        self._data = b'\ndata: {"type":"%b","sequence_number":' % type_
        self._before = b',"item_id":%b,"output_index":%d%b,"delta":' % (item, stretch.item, part)
        self._behind = b',"logprobs":[]}\n\n' if kind == TEXT else b"}\n\n"
        logprobs = self._generation.logprobs is not None and kind == TEXT
        self._most = self._shape.logprobs if logprobs else None

    def _opening(self, stretch: Stretch) -> list[_Event]:
        item = item_of(self._generation, self._shape, stretch, None, (), "in_progress")
        where = {"output_index": stretch.item}
        events: list[_Event] = [("response.output_item.added", {**where, "item": item})]
        kind = stretch.channel.kind
        if kind != TOOL_CALL:
            part = {"item_id": item["id"], **where, "content_index": 0}
            added = {**part, "part": part_of(kind, "", ())}
            events.append(("response.content_part.added", added))
        return events

    def _closing(self, stretch: Stretch, behind: int, status: str) -> list[_Event]:
        """What closes an item of which there are no pieces from `behind` on."""
        text, found = content_of(self._generation, self._shape, self._outline, stretch.item, behind)
        item = item_of(self._generation, self._shape, stretch, text, found, status)
        where = {"output_index": stretch.item}
        done: _Event = ("response.output_item.done", {**where, "item": item})
        at = {"item_id": item["id"], **where}
        kind = stretch.channel.kind
        if kind == TOOL_CALL:
            call = {**at, "name": stretch.channel.name, "arguments": text}
            return [("response.function_call_arguments.done", call), done]
        at["content_index"] = 0
        part = ("response.content_part.done", {**at, "part": part_of(kind, text, found)})
        if kind == REASONING:
            return [("response.reasoning_text.done", {**at, "text": text}), part, done]
        whole = {**at, "text": text, "logprobs": found}
        return [("response.output_text.done", whole), part, done]

    def _state(self, type_: str, status: str | None = None) -> _Event:
        """The response at its beginning."""
        status = status or type_.removeprefix("response.")
        return type_, {"response": members(self._generation, self._shape, status, ())}

    def _end(self, status: str) -> _Event:
        generation, shape = self._generation, self._shape
        output = output_of(generation, shape, self._outline, generation.count)
        return f"response.{status}", {"response": members(generation, shape, status, output)}

    def _run(self, position: int) -> tuple[int, int]:
        """What is added to the numbers of a piece's events, and up to which piece it stays."""
        splices = self._generation.splices
        self._splices = len(splices)
        added = 0
        for run in runs(splices):
            if run.first > position:
                return added, run.first
            added = run.added
        return added, _NEVER

    def _grown(self) -> Outline:
        """The outline of the log as it is now."""
        switches = self._generation.switches
        if len(switches) < self._switches:  # the log was away, and the outline with it
            self._outline = outline_of(self._generation, self._shape)
        else:
            self._outline.grow(switches)
        self._switches = len(switches)
        return self._outline

    def _written(self, number: int, events: Iterable[_Event], id_: bytes = b"") -> bytes:
        """These events from this number on, without those that the reader has.

        Args:
            id_: of the last one; empty: it has none.
        """
        numbered = list(enumerate(events, number))
        last = numbered[-1][0] if numbered else 0
        return b"".join(
            _event(type_, n, found, id_ if n == last else b"")
            for n, (type_, found) in numbered
            if n > self._after
        )


def _event(type_: str, number: int, found: dict[str, Any], id_: bytes) -> bytes:
    data = encode({"type": type_, "sequence_number": number, **found})
    line = b"id: %b\n" % id_ if id_ else b""
    return b"event: %b\n%bdata: %b\n\n" % (type_.encode(), line, data)


def error_event(error: HttpError) -> bytes:
    """The event of a stream that ends before the response does: it is no part of the response.

    So it has no number. OpenAI's SDKs raise what is in `error`.
    """
    found = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    return b"event: error\ndata: %b\n\n" % encode({**found, **error.document()})


def events_in_all(generation: Generation, shape: Shape) -> int:
    """How many events a response has that is over; its log must be in memory."""
    stretch = outline_of(generation, shape).stretches[-1]
    count, done = generation.count, generation.state is State.DONE
    if not count:
        opened = events_before(shape) + stretch.opening + stretch.closing
        return opened + 1 if done else 3
    return stretch.base + count + (stretch.closing if done else 0) + 1


class Reached:
    """What a reader has, by the number of the last event that it has.

    Args:
        generation: its log must be in memory.
        shape: of the answer.
        after: the number.
    """

    def __init__(self, generation: Generation, shape: Shape, after: int) -> None:
        self._generation = generation
        self._shape = shape
        self._after = after

    def __repr__(self) -> str:
        return f"<Reached {self._after} of {self._generation.id}>"

    def known(self) -> bool:
        """Whether all that is needed for `position` is here; see Generation.reach."""
        _, later, place = self._run()
        count = self._generation.count
        if later is not None and count >= later.first:
            return True
        return place < GAP and place <= _last_of(self._outline(), count - 1)

    def position(self) -> int:
        """From which piece on it needs events.

        Raises:
            Ahead: it has what was lost.
            InvalidRequest: the response is over, and has no event of this number.
        """
        generation, outline = self._generation, self._outline()
        run, later, place = self._run()
        count, last = generation.count, self._last(outline)
        if later is not None and place > _last_of(outline, later.first - 1):
            raise self._ahead(later.first)
        is_of_run = _last_of(outline, run.first - 1) < place <= last
        if not is_of_run and (run.added or place >= GAP):
            raise self._ahead(run.first)
        if generation.ended and place > last:
            raise InvalidRequest(
                f"starting_after is {self._after}, and the last event of the response {last}"
            )
        return min(outline.behind(place), count if generation.ended else generation.visible)

    def _run(self) -> tuple[Run, Run | None, int]:
        """The run of the event, the one after that, and its place among all events."""
        of, later = Run(0, 0), None
        for one in runs(self._generation.splices):
            if one.added > self._after:
                later = one
                break
            of = one
        return of, later, self._after - of.added

    def _outline(self) -> Outline:
        return outline_of(self._generation, self._shape)

    def _last(self, outline: Outline) -> int:
        """The place of the last event that there is."""
        generation = self._generation
        if generation.ended:
            return events_in_all(generation, self._shape) - 1
        return _last_of(outline, generation.count - 1)

    def _ahead(self, same: int) -> Ahead:
        pieces = f"{same} piece{'' if same == 1 else 's'}"
        return Ahead(
            f"event {self._after} of the response was read before, and only the events of the "
            f"first {pieces} are as they were: what came after them was lost with the server that "
            "made it",
            durable=same,
        )


def _last_of(outline: Outline, position: int) -> int:
    """The place among all events of the delta of a piece; of none: that of the events before."""
    return 1 if position < 0 else outline.stretches[outline.find(position)].base + position

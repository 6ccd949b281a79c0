"""The events of a streamed message: one or a few per piece of a generation's log.

Each is a pure function of the log and the position in it, so a stream that is taken up again, by
this server or the next one, has the same events. The events of a piece have one id, which stands
at the last of them: a reader that comes back gets all events of the next piece. Most of an event is
the same for a whole block; it is encoded once, and per piece only the text is.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.anthropic.answers import opened, runs, signature_of, stop_of, used
from llcuda_net.server.http.anthropic.errors import document
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.answers import ours
from llcuda_net.storage.channels import REASONING, TOOL_CALL, Switch

_NEVER = sys.maxsize

_encode = msgspec.json.Encoder().encode

#: An event's delta up to its text, by the kind of its channel.
_DELTAS = {
    REASONING: b'{"type":"thinking_delta","thinking":',
    TOOL_CALL: b'{"type":"input_json_delta","partial_json":',
}
_TEXT_DELTA = b'{"type":"text_delta","text":'


class MessageEvents:
    """Makes the events of one message. See delivery/format.py.

    Args:
        generation: what is read; its log must be in memory where a piece of it is written.
        start: the message as it begins, as JSON values.
        max_tokens: as of `stop_of`.
    """

    def __init__(self, generation: Generation, start: dict[str, Any], max_tokens: int) -> None:
        self._generation = generation
        self._max_tokens = max_tokens
        self._start = start
        #: The events before that of the text of the piece at `_next`, and what stands before the
        #: text of that one, and of those behind it up to `_turn`.
        self._lead = self._before = b""
        self._next = -1
        self._turn = _NEVER
        self._switches = 0  # how many there were when `_turn` was found

    def __repr__(self) -> str:
        return f"<MessageEvents of {self._generation.id} at {self._next}>"

    def begin(self) -> bytes:
        """The message, still empty."""
        return event("message_start", {"message": self._start})

    def at(self, position: int, id_: bytes) -> bytes:
        """The events of the piece at this position; fastest where they are taken in order."""
        generation = self._generation
        if (
            position != self._next
            or position >= self._turn
            or len(generation.switches) != self._switches
        ):
            self._seek(position)
        self._next = position + 1
        text = _encode(generation.pieces[position])
        return b"%bid: %b\nevent: content_block_delta\n%b%b}}\n\n" % (
            self._lead,
            id_,
            self._before,
            text,
        )

    def last(self, id_: bytes) -> bytes:
        """The end of the last block, why the message stopped, what it used."""
        generation = self._generation
        end = event(
            "message_delta",
            {
                "delta": stop_of(generation, self._max_tokens),
                "usage": used(generation),
                "llcuda": ours(generation),
            },
        )
        *_, run = (None, *runs(generation.switches, generation.count))
        if run is not None and run.begins:
            end = self._closed(run.channel, run.block) + end
        return b'%bid: %b\nevent: message_stop\ndata: {"type":"message_stop"}\n\n' % (end, id_)

    def failed(self, error: HttpError, id_: bytes) -> bytes:
        """The error, in an event without an id: it may be otherwise the next time."""
        return error_event(error)

    def _seek(self, position: int) -> None:
        """What stands around the text of the piece at this position, and of those behind it."""
        switches = self._generation.switches
        self._switches = len(switches)
        later = (one.position for one in switches if one.position > position)
        self._turn = next(later, _NEVER)
        *_, before, run = (None, None, *runs(switches, position + 1))
        assert run is not None
        self._lead = b""
        if run.first == position:
            self._turn = position + 1  # what comes next has nothing before it
            if before is not None and before.begins:
                self._lead = self._closed(before.channel, before.block)
            if run.begins:
                block = {"index": run.block, "content_block": opened(run.channel)}
                self._lead += event("content_block_start", block)
        delta = _DELTAS.get(run.channel.kind, _TEXT_DELTA)
        before_text = b'data: {"type":"content_block_delta","index":%d,"delta":%b'
        self._before = before_text % (run.block, delta)

    def _closed(self, channel: Switch, block: int) -> bytes:
        """The events behind the last piece of a block, or behind the first part of a tool call."""
        found = event("content_block_stop", {"index": block})
        if channel.kind != REASONING:
            return found
        delta = {"type": "signature_delta", "signature": signature_of(self._generation)}
        return event("content_block_delta", {"index": block, "delta": delta}) + found


def event(kind: str, members: dict[str, Any]) -> bytes:
    """An event without an id."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **members}))


def error_event(error: HttpError) -> bytes:
    """The event with which a stream fails."""
    return b"event: error\ndata: %b\n\n" % _encode(document(error))

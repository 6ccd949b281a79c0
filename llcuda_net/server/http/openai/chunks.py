"""The events of a streamed chat: one, with a chunk, per piece of a generation's log.

Each is a pure function of the log and the position in it, so a stream that is taken up again, by
this server or the next one, has the same events. Most of a chunk is the same for a whole channel;
it is encoded once, and per piece only the text is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.answers import (
    Shape,
    finish_reason,
    logprobs_of,
    members,
    ours,
    usage_of,
)
from llcuda_net.storage.channels import REASONING, TOOL_CALL, Switch, channel_at

_NEVER = sys.maxsize

_encode = msgspec.json.Encoder().encode


class ChatChunks:
    """Makes the events of one choice; the data of each is a chunk. See delivery/format.py.

    Args:
        generation: what is read; its log must be in memory where a piece of it is written.
        shape: of the answer.
        index: of the choice, where there are several.
        first: the generation of the first choice, by which the answer is named.
    """

    def __init__(
        self,
        generation: Generation,
        shape: Shape,
        index: int = 0,
        first: Generation | None = None,
    ) -> None:
        self._generation = generation
        self._shape = shape
        self._index = index
        self._first = generation if first is None else first
        self._usage = b',"usage":null' if shape.usage else b""
        #: What stands before and behind the text of the piece at `_next`, and of those behind it up
        #: to `_turn`.
        self._before = self._after = b""
        self._next = -1
        self._turn = _NEVER
        self._switches = 0  # how many there were when `_turn` was found

    def __repr__(self) -> str:
        return f"<ChatChunks choice {self._index} of {self._first.id} at {self._next}>"

    def begin(self) -> bytes:
        """There is nothing before the first piece."""
        return b""

    def at(self, position: int, id_: bytes) -> bytes:
        """The event of the piece at this position; fastest where they are taken in order."""
        generation = self._generation
        if (
            position != self._next
            or position >= self._turn
            or len(generation.switches) != self._switches
        ):
            self._seek(position)
        self._next = position + 1
        most = self._shape.logprobs
        text = _encode(generation.pieces[position])
        if most is None or generation.logprobs is None:
            return b"id: %b\ndata: %b%b%b\n\n" % (id_, self._before, text, self._after)
        found = logprobs_of(generation.logprobs[position], most)
        written = _encode({"content": found, "refusal": None})
        after = self._after.replace(b"null", written, 1)
        return b"id: %b\ndata: %b%b%b\n\n" % (id_, self._before, text, after)

    def last(self, id_: bytes) -> bytes:
        """The last event of the choice, which says why it ended."""
        generation = self._generation
        delta = b"{}" if generation.count else b'{"role":"assistant","content":""}'
        chunk = b'%b%b,"logprobs":null,"finish_reason":%b}]%b,"llcuda":%b}' % (
            self._start(),
            delta,
            _encode(finish_reason(generation)),
            self._usage,
            _encode(ours(generation)),
        )
        return b"id: %b\ndata: %b\n\n" % (id_, chunk)

    def failed(self, error: HttpError, id_: bytes) -> bytes:
        """The error, in an event without an id: it may be otherwise the next time."""
        return error_event(error)

    def _start(self) -> bytes:
        common = _common(self._first, self._shape)
        return b'%b,"choices":[{"index":%d,"delta":' % (common, self._index)

    def _seek(self, position: int) -> None:
        """What stands around the text of the piece at this position, and of those behind it."""
        switches = self._generation.switches
        channel = channel_at(switches, position)
        self._switches = len(switches)
        later = (one.position for one in switches if one.position > position)
        self._turn = next(later, _NEVER)
        begins = channel.kind == TOOL_CALL and channel.position == position
        if begins or position == 0:
            self._turn = position + 1  # what comes next is without the name and the role
        role = b'"role":"assistant",' if position == 0 else b""
        before, after = _around(channel, begins=begins)
        self._before = b"%b{%b%b" % (self._start(), role, before)
        self._after = b'%b},"logprobs":null,"finish_reason":null}]%b}' % (after, self._usage)


def error_event(error: HttpError) -> bytes:
    """The event with which a stream fails."""
    return b"data: %b\n\n" % error.body


def usage_chunk(generations: Sequence[Generation], shape: Shape) -> bytes:
    """The chunk behind the last ones: what all choices have used."""
    used = _encode(usage_of(generations))
    return b'%b,"choices":[],"usage":%b}' % (_common(generations[0], shape), used)


def _common(first: Generation, shape: Shape) -> bytes:
    """The members that all chunks of an answer begin with, without the last brace."""
    return _encode(members(first, shape, "chat.completion.chunk"))[:-1]


def _around(channel: Switch, *, begins: bool) -> tuple[bytes, bytes]:
    """What stands in a delta before and behind the text of a piece of this channel."""
    if channel.kind == REASONING:
        return b'"reasoning_content":', b""
    if channel.kind == TOOL_CALL:
        named = b'"id":%b,"type":"function",' % _encode(channel.id) if begins else b""
        name = b'"name":%b,' % _encode(channel.name) if begins else b""
        before = b'"tool_calls":[{"index":%d,%b"function":{%b"arguments":'
        return before % (channel.index, named, name), b"}}]"
    return b'"content":', b""

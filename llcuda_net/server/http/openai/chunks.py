"""The events of a streamed chat: one chunk per piece of a generation's log.

Each is a pure function of the log and the position in it, so a stream that is taken up again, by
this server or the next one, has the same events. Most of a chunk is the same for a whole channel;
it is encoded once, and per piece only the text is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.openai import answers
from llcuda_net.storage.records import Switch
from llcuda_net.upstream.interface import REASONING, TEXT, TOOL_CALL

_NEVER = sys.maxsize

_encode = msgspec.json.Encoder().encode


class ChatShape:
    """Writes one choice of an answer to a chat; each chunk is the JSON of one event.

    Args:
        generation: what is read; its log must be in memory where a piece of it is written.
        id_: of the answer; all choices have the same.
        api: how the answer is written, as far as its generation does not say it. `model`: the name
            of the model that answers; `logprobs`: how many alternatives of each token to write,
            None for no log-probabilities; `usage`: a stream ends with what was used.
        index: of the choice.
    """

    def __init__(
        self, generation: Generation, id_: str, api: Mapping[str, Any], index: int = 0
    ) -> None:
        self.generation = generation
        self.id = id_
        self.api = api
        self.index = index
        self._most = api.get("logprobs")
        self._usage = b',"usage":null' if api.get("usage") else b""
        #: What stands before and behind the text of the piece at `_next`, and of those behind it up
        #: to `_turn`.
        self.before = self.after = b""
        self._next = -1
        self._turn = _NEVER
        self._switches = 0  # how many there were when `_turn` was found

    def __repr__(self) -> str:
        return f"<ChatShape {self.id} choice {self.index} at {self._next}>"

    def head(self) -> bytes:
        """The chunk that comes first."""
        return self._chunk(b'{"role":"assistant","content":""}')

    def piece(self, position: int) -> bytes:
        """The chunk of the piece at this position; fastest where they are taken in order."""
        generation = self.generation
        if (
            position != self._next
            or position >= self._turn
            or len(generation.switches) != self._switches
        ):
            self._seek(position)
        self._next = position + 1
        text = _encode(generation.pieces[position])
        if self._most is None or generation.logprobs is None:
            return b"%b%b%b" % (self.before, text, self.after)
        found = answers.logprobs_of(generation.logprobs[position], self._most)
        written = _encode({"content": found, "refusal": None})
        return b"%b%b%b" % (self.before, text, self.after.replace(b"null", written, 1))

    def finish(self) -> bytes:
        """The last chunk of the choice, which says why it ended."""
        chunk = self._chunk(b"{}", _encode(answers.finish_reason(self.generation)))
        return b'%b,"llcuda":%b}' % (chunk[:-1], _encode(answers.ours(self.generation)))

    def _chunk(self, delta: bytes, reason: bytes = b"null") -> bytes:
        tail = b',"logprobs":null,"finish_reason":%b}]%b}' % (reason, self._usage)
        return b"%b%b%b" % (self._start(), delta, tail)

    def _start(self) -> bytes:
        return b'%b,"choices":[{"index":%d,"delta":' % (_common(self), self.index)

    def _seek(self, position: int) -> None:
        """What stands around the text of the piece at this position, and of those behind it."""
        channel = Switch(0, TEXT)
        self._turn, self._switches = _NEVER, len(self.generation.switches)
        for switch in self.generation.switches:
            if switch.position > position:
                self._turn = switch.position
                break
            channel = switch
        begins = channel.kind == TOOL_CALL and channel.position == position
        if begins:
            self._turn = position + 1  # what comes next is without the name
        before, after = _around(channel, begins=begins)
        self.before = b"%b{%b" % (self._start(), before)
        self.after = b'%b},"logprobs":null,"finish_reason":null}]%b}' % (after, self._usage)

    @staticmethod
    def usage(shapes: Sequence[ChatShape]) -> bytes:
        """The chunk behind the last ones: what all choices have used."""
        used = answers.usage_of([shape.generation for shape in shapes])
        return b'%b,"choices":[],"usage":%b}' % (_common(shapes[0]), _encode(used))

    @staticmethod
    def whole(shapes: Sequence[ChatShape]) -> bytes:
        """The body of an answer that is not streamed."""
        first = shapes[0]
        return answers.whole([shape.generation for shape in shapes], first.id, first.api)


#: What writes the answers of each API.
SHAPES: dict[str, type[ChatShape]] = {"chat": ChatShape}


def _common(shape: ChatShape) -> bytes:
    """The members that all chunks of an answer begin with, without the last brace."""
    kind = "chat.completion.chunk"
    return _encode(answers.members(shape.generation, shape.id, shape.api, kind))[:-1]


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

"""What a reader of a generation receives: its pieces, its progress, and the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llcuda_protocol import TokenLogprob


@dataclass(frozen=True, slots=True)
class Channel:
    """What a piece of an answer belongs to: its text, its reasoning, or one of its tool calls.

    Attributes:
        kind: "text", "reasoning" or "tool_call".
        index: of a tool call: its number in the answer, from 0.
        id: of a tool call: its id.
        name: of a tool call: the name of the tool. Its pieces are its arguments, in JSON.
    """

    kind: str
    index: int = 0
    id: str = ""
    name: str = ""


#: The channel of every piece of an answer that has no others.
TEXT = Channel("text")


class Piece(NamedTuple):
    """A piece of the answer, most often one token.

    Attributes:
        sequence: its place in the answer, counted from 0.
        text: the text; the pieces of a channel joined are what it says.
        id: the id of its last token, where `tokens=True` asked for ids.
        logprobs: its tokens with natural log-probabilities, where `n_probs` asked for them.
        channel: what it belongs to: `channel.kind` is "text", "reasoning" or "tool_call".
    """

    sequence: int
    text: str
    id: int | None = None
    logprobs: list[TokenLogprob] | None = None
    channel: Channel = TEXT


class Queued(NamedTuple):
    """The queue moved.

    Attributes:
        position: its place: 1 is the next to run, 0 has a slot.
        wait: estimated seconds until it runs; None without an estimate.
        reason: what it waits for, in words for a person.
    """

    position: int
    wait: float | None = None
    reason: str | None = None


class Durable(NamedTuple):
    """So many pieces of the generation can no longer be lost, not even by a power cut.

    Counted from the generation's very first. Comes only where `durable=True` asked for it.
    """

    pieces: int


class Spliced(NamedTuple):
    """An upstream failed, and another one, or that one again, continues: from here.

    Comes only where `splices=True` asked for it, before piece number `position` (or the end).

    Attributes:
        position: the sequence number of the first piece that is made after the failure.
        reason: why, in words for a person.
    """

    position: int
    reason: str | None = None


class ToolCall(NamedTuple):
    """A tool that the model asks to be called.

    Attributes:
        id: with which the answer to it is named.
        name: of the tool.
        arguments: a JSON object, as text; a model may get it wrong, so check what it says.
    """

    id: str
    name: str
    arguments: str

    def reply(self, content: str) -> dict[str, Any]:
        """The message that gives the model what the tool has returned."""
        return {"role": "tool", "tool_call_id": self.id, "content": content}


Event = Piece | Queued | Durable | Spliced


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer. `str(result)` is its text.

    Attributes:
        text: the answer, without its reasoning.
        reason: "stop" (end of text or a stop string), "length" (n_predict or the context is
            used up), "tool_calls" (it waits for tools), "cancelled" or "detached".
        stop: the stop string that ended it, if one did.
        usage: counts of tokens: `prompt_tokens`, `cached_tokens`, `completion_tokens`.
        timings: milliseconds by phase: `queue`, `template`, `connect`, `prompt`, `first_token`,
            `generation`, `total`; those that the request went through.
        id: the generation's id on the server.
        model: the model's name.
        ids: one token id per piece, where `tokens=True` asked for them.
        logprobs: one list of tokens per piece, where `n_probs` asked for them.
        splices: sequence numbers of pieces before which the generation was continued from all
            that there was, after the server had stopped or its upstream had failed.
        cached: a stored result answered the request.
        reasoning: what the model thought before it answered, where it shows that.
        tool_calls: the tools that it asks to be called, in their order.
    """

    text: str
    reason: str
    stop: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    id: str | None = None
    model: str | None = None
    ids: list[int | None] | None = None
    logprobs: list[list[TokenLogprob]] | None = None
    splices: list[int] = field(default_factory=list)
    cached: bool = False
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, with which a conversation goes on.

        After it come the results of its tool calls (`ToolCall.reply`), or the next question. The
        reasoning is in it where there are tool calls: models go on with it then, and not later.
        """
        if not self.tool_calls:
            return {"role": "assistant", "content": self.text}
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in self.tool_calls
        ]
        found = {"role": "assistant", "content": self.text or None, "tool_calls": calls}
        return found | ({"reasoning_content": self.reasoning} if self.reasoning else {})

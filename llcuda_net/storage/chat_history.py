"""From an answer to the messages with which a conversation goes on.

A conversation goes on with the messages of the request, or its prompt as one message of the user,
and with the answer as a message of the assistant: what a client would have to send, had it kept all
that. Both have the one shape that messages have everywhere in the server, that of OpenAI's API.

The answer has its reasoning, too. Which of it a model reads again is for its chat template to say:
most leave out that of earlier turns, and keep it where only results of tools came since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llcuda_net.errors import InvalidRequest
from llcuda_net.storage.channels import REASONING, TEXT, TOOL_CALL, Switch, channel_at, contents
from llcuda_net.storage.records import Result


class Said(NamedTuple):
    """An answer by its channels.

    Attributes:
        text: of the answer, without the other two.
        reasoning: what the model thought; empty: it showed nothing.
        tool_calls: in OpenAI's shape: `id`, `type`, and `function` with `name` and `arguments`.
    """

    text: str
    reasoning: str
    tool_calls: list[dict[str, Any]]

    @property
    def message(self) -> dict[str, Any]:
        """It as the assistant's message; members that have nothing are left out.

        `content` is None where there is nothing but tool calls.
        """
        found: dict[str, Any] = {
            "role": "assistant",
            "content": None if self.tool_calls and not self.text else self.text,
        }
        if self.reasoning:
            found["reasoning_content"] = self.reasoning
        if self.tool_calls:
            found["tool_calls"] = self.tool_calls
        return found


def said(pieces: Sequence[str], switches: Sequence[Switch], *, cut: bool = False) -> Said:
    """What a log says.

    Args:
        pieces: the log, or as much of its beginning as is to be looked at; later switches are left
            out.
        cut: whether it may have ended in the midst of something. A tool call that it ends with is
            left out then: nobody knows what its arguments were to be.
    """
    found = contents(pieces, switches)
    if cut and pieces:
        last = channel_at(switches, len(pieces) - 1)
        if last.kind == TOOL_CALL:
            half = (last.kind, last.index)
            found = [one for one in found if (one.channel.kind, one.channel.index) != half]
    return Said(
        "".join(text for channel, text in found if channel.kind == TEXT),
        "".join(text for channel, text in found if channel.kind == REASONING),
        [
            {
                "id": channel.id,
                "type": "function",
                "function": {"name": channel.name, "arguments": text},
            }
            for channel, text in found
            if channel.kind == TOOL_CALL
        ],
    )


def is_cut(state: str, reason: str, stop: str | None) -> bool:
    """Whether an answer may have ended in the midst of something.

    Args:
        state, reason, stop: how it ended, as in Result.
    """
    return state != "done" or reason == "length" or stop is not None


def asked(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, as it is stored: a prompt is one message of the user.

    Raises:
        InvalidRequest: it has only the numbers of tokens, which are no message.
    """
    messages: list[dict[str, Any]] | None = request.get("messages")
    if messages is not None:
        return messages
    prompt = request.get("prompt")
    if not isinstance(prompt, str):
        raise InvalidRequest(
            "its prompt was token ids, which are no message: a conversation begins with messages "
            "or with a prompt of text"
        )
    return [{"role": "user", "content": prompt}]


def history(result: Result) -> list[dict[str, Any]]:
    """The messages with which a conversation goes on after an answer that is over.

    However it ended: what there is of it counts. With nothing of it there is nothing to go on from.

    Raises:
        InvalidRequest: it is not part of a conversation, or failed before it said anything.
    """
    cut = is_cut(result.state, result.reason, result.stop)
    answer = said(result.log.pieces, result.switches, cut=cut)
    if result.state != "done" and not (answer.text or answer.tool_calls):
        raise InvalidRequest(
            f"the generation {result.id} ended ({result.state}) before it said anything: "
            "go on from the one before it"
        )
    *messages, last = asked(result.request)
    if last["role"] == "assistant":  # the answer went on behind its own beginning
        return [*messages, _joined(last, answer.message)]
    return [*messages, last, answer.message]


def _joined(begun: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """The beginning of an answer and the rest of it, as one message."""
    texts = [one["content"] for one in (begun, message) if one.get("content")]
    return {**begun, **message, "content": "".join(texts) if texts else message["content"]}

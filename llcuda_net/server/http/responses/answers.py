"""The response, and its output items: as an answer, and in the events of a stream.

Everything here is a pure function of a generation and of the shape of its answer, so that this
server and the next one write the same. Nothing is in it that only this process knows, such as the
times of the phases: an event that is read again, after a restart, is the same to the byte.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.errors import SERVER, HttpError
from llcuda_net.server.http.openai.answers import logprobs_of, service_tier
from llcuda_net.server.http.responses.outline import Outline, Stretch
from llcuda_net.storage.channels import REASONING, TEXT, parts

#: What the ids of responses and of their items begin with.
RESPONSE = "resp_"
_PREFIXES = {TEXT: "msg", REASONING: "rs"}
#: What the readable form of reasoning begins with that goes where others put an encrypted one.
OPEN_REASONING = "llcuda-open:"
#: Codes of errors that clients of this API know; others become one of two.
_CODES = ("context_length_exceeded", "rate_limit_exceeded")

encode = msgspec.json.Encoder().encode


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a response has beyond its generation; kept with the request.

    Attributes:
        model: the name of the model that answers.
        stream: the answer is streamed.
        background: it runs without a reader.
        store: it is kept beyond its last minutes.
        instructions: as given; they are the first message, and no later response inherits them.
        previous: the response that this one follows, by its id as given.
        conversation: the one that it is part of.
        instead_of: the response there that this one stands beside, by its id as given.
        behind: the id of the entry there that it goes on from; empty: it begins.
        metadata: as given.
        tools, tool_choice, parallel: as given, without tools that are not followed.
        text: the format of the text and the like, as given.
        reasoning: as given.
        temperature, top_p, max_tokens, truncation: as given.
        logprobs: how many alternatives of each token to write; None: no log-probabilities.
        encrypted: reasoning comes with `encrypted_content`.
        inherited: how many messages are those of earlier responses.
        merges: which messages are several in one; see transcript.py.
        given: items of the input that the messages do not give back, with their places.
        count: how many items the input has, where the messages give another number.
        truncated: how many messages were left out, since they did not fit.
    """

    model: str
    stream: bool = False
    background: bool = False
    store: bool = True
    instructions: str | None = None
    previous: str | None = None
    conversation: str | None = None
    instead_of: str | None = None
    behind: str | None = None
    metadata: dict[str, str] = {}
    tools: list[dict[str, Any]] = []
    tool_choice: Any = "auto"
    parallel: bool = True
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    truncation: str = "disabled"
    logprobs: int | None = None
    encrypted: bool = False
    inherited: int = 0
    merges: list[tuple[int, list[int]]] = []
    given: list[tuple[int, dict[str, Any]]] = []
    count: int | None = None
    truncated: int = 0


def outline_of(generation: Generation, shape: Shape) -> Outline:
    """The items of a generation's log; it must be in memory."""
    return Outline(generation.switches, events_before(shape))


def events_before(shape: Shape) -> int:
    """How many events come before the first item is opened."""
    return 3 if shape.background else 2


# -- the response -----------------------------------------------------------------------------


def response_of(generation: Generation, shape: Shape) -> dict[str, Any]:
    """A response as it stands; the log must be in memory. Not more than its readers may have."""
    status = _status(generation)
    outline = outline_of(generation, shape)
    output = output_of(generation, shape, outline, generation.visible)
    return members(generation, shape, status, output)


def members(
    generation: Generation, shape: Shape, status: str, output: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The response with this status and output.

    What a later status would have more is left out where this one is of the beginning.
    """
    over = status not in ("queued", "in_progress")
    error = _error(generation) if status == "failed" else None
    ours: dict[str, Any] = {"generation": generation.id}
    if shape.truncated:
        ours["truncated"] = shape.truncated
    if shape.instead_of is not None:
        ours["instead_of"] = shape.instead_of
    if over and generation.outcome.stop is not None:
        ours["stop"] = generation.outcome.stop
    return {
        "id": f"{RESPONSE}{generation.id}",
        "object": "response",
        "created_at": generation.created // 1_000_000_000,
        "status": status,
        "completed_at": _seconds(generation.finished) if status == "completed" else None,
        "background": shape.background,
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": shape.instructions,
        "max_output_tokens": shape.max_tokens,
        "max_tool_calls": None,
        "model": shape.model or str(generation.model.get("name") or ""),
        "output": list(output),
        "parallel_tool_calls": shape.parallel,
        "previous_response_id": shape.previous,
        "conversation": None if shape.conversation is None else {"id": shape.conversation},
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None, **(shape.reasoning or {})},
        "safety_identifier": None,
        "service_tier": service_tier(generation),
        "store": shape.store,
        "temperature": shape.temperature,
        "text": {"format": {"type": "text"}, **(shape.text or {})},
        "tool_choice": shape.tool_choice,
        "tools": shape.tools,
        "top_logprobs": shape.logprobs or 0,
        "top_p": shape.top_p,
        "truncation": shape.truncation,
        "usage": usage_of(generation) if over else None,
        "user": None,
        "metadata": shape.metadata,
        "llcuda": ours,
    }


def _seconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // 1_000_000_000


def final_status(generation: Generation) -> str:
    """How a generation that is over ended, as this API has it."""
    if generation.state is State.DONE:
        return "incomplete" if generation.outcome.reason == "length" else "completed"
    return "cancelled" if generation.state is State.CANCELLED else "failed"


def _status(generation: Generation) -> str:
    if generation.ended:
        return final_status(generation)
    return "queued" if generation.state is State.QUEUED else "in_progress"


def _error(generation: Generation) -> dict[str, Any] | None:
    failure = failure_of(generation)
    return None if failure is None else error_members(failure)


def error_members(error: HttpError) -> dict[str, Any]:
    """What a response that failed says of it."""
    code = error.code if error.code in _CODES else None
    if code is None:
        code = "server_error" if error.type == SERVER else "invalid_prompt"
    return {"code": code, "message": error.message}


def usage_of(generation: Generation) -> dict[str, Any]:
    """The tokens that were read and made.

    Those of reasoning are counted by pieces: what is stored has no other count.
    """
    used = generation.outcome.usage
    prompt, made = used.get("prompt_tokens", 0), used.get("completion_tokens", 0)
    found = parts(generation.switches, generation.count)
    thought = sum(behind - first for first, behind, one in found if one.kind == REASONING)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": used.get("cached_tokens", 0),
            "cache_write_tokens": 0,
        },
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": min(thought, made)},
        "total_tokens": prompt + made,
    }


# -- items ------------------------------------------------------------------------------------


def output_of(
    generation: Generation, shape: Shape, outline: Outline, count: int
) -> list[dict[str, Any]]:
    """The items of the first so many pieces of a log."""
    stretches = [one for one in outline.stretches if one.first < count]
    if not stretches and generation.ended and generation.state is State.DONE:
        stretches = outline.stretches[:1]  # an empty answer is an empty message
    last = stretches[-1].item if stretches else None
    opened = [one for one in stretches if one.opening]
    return [
        item_of(
            generation,
            shape,
            one,
            *content_of(generation, shape, outline, one.item, count),
            last_status(generation) if one.item == last else "completed",
        )
        for one in opened
    ]


def content_of(
    generation: Generation, shape: Shape, outline: Outline, item: int, count: int
) -> tuple[str, list[dict[str, Any]]]:
    """What the first so many pieces of a log have of an item.

    Returns:
        Its text, and the log-probabilities of its tokens, where they are to be written.
    """
    texts: list[str] = []
    tokens: list[dict[str, Any]] = []
    for place, stretch in enumerate(outline.stretches):
        if stretch.item != item:
            continue
        later = outline.stretches[place + 1 : place + 2]
        behind = min(later[0].first if later else count, count)
        texts += generation.pieces[stretch.first : behind]
        if shape.logprobs is None or generation.logprobs is None or stretch.channel.kind != TEXT:
            continue
        for packed in generation.logprobs[stretch.first : behind]:
            tokens += logprobs_of(packed, shape.logprobs)
    return "".join(texts), tokens


def last_status(generation: Generation) -> str:
    """The status of the item that a log ends with."""
    if not generation.ended:
        return "in_progress"
    done = generation.state is State.DONE and generation.outcome.reason != "length"
    return "completed" if done else "incomplete"


def item_id(generation: Generation, stretch: Stretch) -> str:
    """The id of an output item: deterministic, and names the response that it is of."""
    return f"{_PREFIXES.get(stretch.channel.kind, 'fc')}_{generation.id}_{stretch.item}"


def item_of(
    generation: Generation,
    shape: Shape,
    stretch: Stretch,
    text: str | None,
    tokens: Sequence[dict[str, Any]],
    status: str,
) -> dict[str, Any]:
    """An output item.

    Args:
        text: what it holds; None: it has only begun, and has no part yet.
        tokens: log-probabilities.
    """
    channel = stretch.channel
    found: dict[str, Any] = {"id": item_id(generation, stretch)}
    if channel.kind == TEXT:
        content = [] if text is None else [part_of(TEXT, text, tokens)]
        found |= {"type": "message", "status": status, "role": "assistant", "content": content}
    elif channel.kind == REASONING:
        content = [] if text is None else [part_of(REASONING, text, ())]
        found |= {"type": "reasoning", "summary": [], "content": content}
        found["encrypted_content"] = opened(text) if shape.encrypted and text is not None else None
        found["status"] = status
    else:
        found |= {"type": "function_call", "status": status, "arguments": text or ""}
        found |= {"call_id": channel.id, "name": channel.name}
    return found


def part_of(kind: str, text: str, tokens: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The part that an item of text or reasoning has."""
    if kind == REASONING:
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "annotations": [], "logprobs": list(tokens), "text": text}


def opened(text: str) -> str:
    """Reasoning in the form in which clients that keep nothing send it back. It is no secret."""
    return OPEN_REASONING + base64.b64encode(text.encode()).decode()

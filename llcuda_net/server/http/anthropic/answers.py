"""The answer to a message: its content blocks, why it stopped, what it used.

Everything here is a pure function of a generation, so that this server and the next one write the
same.

A block is a run of the log in one channel. A tool call that is taken up again behind another block
is no block of its own: what comes then belongs to the one that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.openai.answers import usage_of
from llcuda_net.storage.channels import REASONING, TOOL_CALL, Switch, parts

#: Why an answer stopped, by our reasons.
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class Run(NamedTuple):
    """Entries of a log that belong to one block, from `first` up to `behind`.

    Attributes:
        block: its number in the answer.
        begins: they are the first ones of their block.
    """

    first: int
    behind: int
    channel: Switch
    block: int
    begins: bool


def runs(switches: Sequence[Switch], count: int) -> Iterator[Run]:
    """The first `count` entries of a log, cut where another block begins or goes on.

    What it says of an entry follows from the switches up to that entry alone.
    """
    found: dict[int, int] = {}  # the blocks of tool calls, by their numbers
    blocks = 0
    run: Run | None = None
    for first, behind, channel in parts(switches, count):
        if run is not None and _same(run.channel, channel):
            run = run._replace(behind=behind)
            continue
        if run is not None:
            yield run
        is_call = channel.kind == TOOL_CALL
        known = found.get(channel.index) if is_call else None
        block = blocks if known is None else known
        if known is None:
            blocks += 1
            if is_call:
                found[channel.index] = block
        run = Run(first, behind, channel, block, known is None)
    if run is not None:
        yield run


def _same(one: Switch, other: Switch) -> bool:
    return (one.kind, one.index) == (other.kind, other.index)


def blocks_of(generation: Generation) -> list[dict[str, Any]]:
    """The content of the answer so far, as JSON values."""
    texts: dict[int, tuple[Switch, list[str]]] = {}
    for first, behind, channel, number, _ in runs(generation.switches, len(generation.pieces)):
        texts.setdefault(number, (channel, []))[1].extend(generation.pieces[first:behind])
    found = []
    for channel, pieces in texts.values():
        text = "".join(pieces)
        block = opened(channel)
        if channel.kind == TOOL_CALL:
            block["input"] = _input(text)
        elif channel.kind == REASONING:
            block |= {"thinking": text, "signature": signature_of(generation)}
        else:
            block["text"] = text
        found.append(block)
    return found


def opened(channel: Switch) -> dict[str, Any]:
    """A block of this channel as it begins, without content."""
    if channel.kind == TOOL_CALL:
        return {"type": "tool_use", "id": channel.id, "name": channel.name, "input": {}}
    if channel.kind == REASONING:
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def signature_of(generation: Generation) -> str:
    """The signature of thinking; it says whose it is, and is not looked at when it comes back."""
    return f"llcuda-{generation.id}"


def _input(arguments: str) -> dict[str, Any]:
    """The arguments of a tool call; empty where they were cut before their end."""
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def stop_of(generation: Generation, max_tokens: int) -> dict[str, Any]:
    """Why a generation that is done came to its end.

    Args:
        max_tokens: the most that its client wants; with fewer, the context was full.
    """
    outcome = generation.outcome
    reason = _STOP_REASONS.get(outcome.reason, "end_turn")
    if reason == "max_tokens" and outcome.usage.get("completion_tokens", 0) < max_tokens:
        reason = "model_context_window_exceeded"
    if outcome.stop is not None and reason == "end_turn":
        reason = "stop_sequence"
    stop = outcome.stop if reason == "stop_sequence" else None
    return {"stop_reason": reason, "stop_sequence": stop}


def used(generation: Generation) -> dict[str, Any]:
    """The tokens that were read and made. Those that a slot held already are counted apart."""
    usage = usage_of([generation])
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    found: dict[str, Any] = {
        "input_tokens": max(0, usage["prompt_tokens"] - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage["completion_tokens"],
    }
    details = usage.get("completion_tokens_details")
    if details is not None:
        found["output_tokens_details"] = {"thinking_tokens": details["reasoning_tokens"]}
    return found

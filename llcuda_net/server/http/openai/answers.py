"""The answer to a chat, and what its chunks have in common with it: ids, usage, log-probabilities.

Everything here is a pure function of generations and of the shape of their answer, so that
this server and the next one write the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llcuda_net.config.users import Priority
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.channels import REASONING, TEXT, parts
from llcuda_net.storage.chat_history import said

#: Our classes of requests, by OpenAI's names.
TIERS = {"priority": Priority.HIGH, "default": Priority.NORMAL, "flex": Priority.LOW}
_TIER_NAMES = {priority: name for name, priority in TIERS.items()}
#: The log-probability of what has none, as OpenAI's API has it.
_UNLIKELY = -9999.0

_tokens: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[Any])


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the answers to a request are written, as far as their generations do not say it.

    Attributes:
        model: the name of the model that answers.
        logprobs: how many alternatives of each token to write; None: no log-probabilities.
        usage: a stream ends with what was used.
        stream: the answer is streamed.
    """

    model: str
    logprobs: int | None = None
    usage: bool = False
    stream: bool = False


def whole(generations: Sequence[Generation], shape: Shape) -> bytes:
    """The body of an answer that is not streamed, of generations that are done."""
    choices = [_choice(one, index, shape) for index, one in enumerate(generations)]
    answer = members(generations[0], shape, "chat.completion")
    answer |= {"choices": choices, "usage": usage_of(generations), "llcuda": ours(generations[0])}
    return msgspec.json.encode(answer)


def _choice(generation: Generation, index: int, shape: Shape) -> dict[str, Any]:
    message = said(generation.pieces, generation.switches).message
    return {
        "index": index,
        "message": {**message, "refusal": None},
        "logprobs": _all_logprobs(generation, shape.logprobs),
        "finish_reason": finish_reason(generation),
    }


def _all_logprobs(generation: Generation, most: int | None) -> dict[str, Any] | None:
    """The tokens of the text; None: they are not wanted."""
    if most is None:
        return None
    tokens: list[dict[str, Any]] = []
    for first, behind, channel in parts(generation.switches, len(generation.pieces)):
        if channel.kind == TEXT and generation.logprobs is not None:
            for packed in generation.logprobs[first:behind]:
                tokens += logprobs_of(packed, most)
    return {"content": tokens, "refusal": None}


def members(first: Generation, shape: Shape, kind: str) -> dict[str, Any]:
    """The members that an answer, or each chunk of one, begins with.

    Args:
        first: the generation of its first choice.
    """
    return {
        "id": f"chatcmpl-{first.id}",
        "object": kind,
        "created": first.created // 1_000_000_000,
        # Where the request named none and none had loaded yet, the shape knows no name.
        "model": shape.model or str(first.model.get("name") or ""),
        "service_tier": service_tier(first),
        "system_fingerprint": system_fingerprint(first),
    }


def service_tier(generation: Generation) -> str:
    """The class in which a generation runs, by OpenAI's name."""
    return _TIER_NAMES[generation.priority]


def system_fingerprint(generation: Generation) -> str | None:
    """Names the model's file, where that is known."""
    known = generation.model.get("hash")
    return f"fp_{str(known)[:12]}" if known else None


def finish_reason(generation: Generation) -> str:
    """Why a generation that is done came to its end: stop, length or tool_calls."""
    return generation.outcome.reason or "stop"


def ours(generation: Generation) -> dict[str, Any]:
    """What we say of a generation beyond OpenAI's API: milliseconds by phase among it."""
    said: dict[str, Any] = {"generation": generation.id, "timings": generation.phases()}
    if generation.outcome.stop is not None:
        said["stop"] = generation.outcome.stop
    if generation.cached_from is not None:
        said["cached_from"] = generation.cached_from
    return said


def usage_of(generations: Sequence[Generation]) -> dict[str, Any]:
    """What the choices of an answer have used together; their prompt counts once."""
    used = [generation.outcome.usage for generation in generations]
    prompt = used[0].get("prompt_tokens", 0)
    made = sum(one.get("completion_tokens", 0) for one in used)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": used[0].get("cached_tokens", 0)},
    }
    if any(generation.switches for generation in generations):
        thought = sum(map(_reasoning_tokens, generations))
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def _reasoning_tokens(generation: Generation) -> int:
    found = parts(generation.switches, len(generation.counts))
    return sum(sum(generation.counts[a:b]) for a, b, one in found if one.kind == REASONING)


def logprobs_of(packed: msgspec.Raw, most: int) -> list[dict[str, Any]]:
    """The tokens of a piece as OpenAI's API has them, with at most so many alternatives each."""
    return [
        _token(bytes_, logprob)
        | {"top_logprobs": [_token(other, found) for _, other, found in top[:most]]}
        for _, bytes_, logprob, top in _tokens.decode(packed)
    ]


def _token(text: bytes, logprob: float | None) -> dict[str, Any]:
    return {
        "token": text.decode("utf-8", "replace"),
        "logprob": _UNLIKELY if logprob is None else logprob,
        "bytes": list(text),
    }

"""Results as JSON, for programs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.units import iso

if TYPE_CHECKING:
    from llcuda_net.storage.records import Result
    from llcuda_net.storage.results.interface import CertaintyStats, Summary


def line(value: Any) -> str:
    """JSON in ASCII on one line: it holds no control characters."""
    return json.dumps(plain(value), allow_nan=False)


def plain(value: Any) -> Any:
    """The value with only JSON's types in it: bytes become lists, NaN and infinity null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def summary(found: Summary) -> dict[str, Any]:
    """A result in a list."""
    return {
        "id": found.id,
        "state": found.state,
        "created": iso(found.created),
        "finished": iso(found.finished),
        "model": found.model,
        "owner": found.owner,
        "completion_tokens": found.tokens,
        "prompt_tokens": found.prompt_tokens,
        "bytes": found.size,
        "preview": found.preview,
    }


def document(found: Result) -> dict[str, Any]:
    """A whole result: everything that is stored of it."""
    return {
        "id": found.id,
        "state": found.state,
        "created": iso(found.created),
        "finished": iso(found.finished),
        "request": found.request,
        "text": found.text,
        "reason": found.reason,
        "stop": found.stop,
        "error": found.error,
        "usage": found.usage,
        "timings": found.timings,
        "model": found.model,
        "upstream": found.upstream,
        "seed": found.seed,
        "splices": [{"position": s.position, "upstream": s.upstream} for s in found.continuations],
        "level": str(found.level),
        "owner": found.owner,
        "idempotency_key": found.key,
        "request_hash": found.request_hash.hex(),
        "on_disconnect": found.on_disconnect,
        "cacheable": found.cacheable,
        "cached_from": found.cached_from,
        "pieces": found.log.pieces,
        "ids": found.log.ids,
        "logprobs": logprobs(found),
        "reasoning": reasoning(found),
        "tool_calls": tool_calls(found),
        "switches": switches(found),
    }


def reasoning(found: Result) -> str | None:
    """What the model thought; null where it did not think aloud."""
    from llcuda_net.storage.channels import REASONING, contents

    texts = [
        content.text
        for content in contents(found.log.pieces, found.switches)
        if content.channel.kind == REASONING
    ]
    return "".join(texts) if texts else None


def tool_calls(found: Result) -> list[dict[str, Any]]:
    """The tools that the model calls."""
    from llcuda_net.storage.channels import TOOL_CALL, contents

    return [
        {"id": channel.id, "name": channel.name, "arguments": arguments}
        for channel, arguments in contents(found.log.pieces, found.switches)
        if channel.kind == TOOL_CALL
    ]


def switches(found: Result) -> list[dict[str, Any]]:
    """From which pieces on the answer is of which channel."""
    return [switch._asdict() for switch in found.switches]


def certainty(figures: CertaintyStats | None) -> dict[str, Any] | None:
    """How certain the model was; null where that is not known."""
    if figures is None:
        return None
    return {
        "tokens": figures.tokens,
        "unknown": figures.unknown,
        "mean_surprisal": figures.mean_surprisal,
        "perplexity": figures.perplexity,
        "mean_entropy": figures.mean_entropy,
        "least_certain": {
            "first": figures.least_certain[0],
            "behind": figures.least_certain[1],
            "surprisal": figures.span_surprisal,
        },
    }


def logprobs(found: Result) -> list[list[dict[str, Any]]] | None:
    """Beside each piece its tokens' log-probabilities, with names; None where none were stored."""
    if found.log.logprobs is None:
        return None
    from llcuda_net.storage.records import unpacked

    return [[_token(*token) for token in unpacked(piece)] for piece in found.log.logprobs]


def _token(
    number: int, raw: bytes, logprob: float | None, top: list[Any] | None = None
) -> dict[str, Any]:
    # The text of one token need not be whole characters; its bytes are exact.
    out: dict[str, Any] = {
        "id": number,
        "text": raw.decode("utf-8", "replace"),
        "bytes": list(raw),
        "logprob": logprob,
    }
    if top is not None:
        out["top"] = [_token(*candidate[:3]) for candidate in top]
    return out

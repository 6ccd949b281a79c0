"""What was asked for a generation, and how it went: beside what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import request_of
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.storage.records import Result, is_continuation

#: Of a request as it is stored, what its API needs to write the answer again.
_INTERNAL = "api"
#: Of a model's fingerprint, what is nobody's path.
_PUBLIC = ("name", "hash", "size", "quantisation", "build")


async def details(exchange: Exchange, generation: Generation) -> dict[str, Any]:
    """Of one that is stored, as the store has it; else as far as is known.

    Raises:
        RequestError: the store cannot be read, or it was deleted just now.
    """
    user = exchange.request.user
    if generation.prompt is None and generation.messages is None:  # it was read from the store
        found = _of_result(await exchange.host.generations.result(generation.id, user))
    else:
        found = _of_generation(generation)
    if user.admin:
        found |= {"owner": generation.owner, "upstream": found["upstream"]}
    else:
        del found["upstream"]
    return found


def _of_result(result: Result) -> dict[str, Any]:
    return {
        "finished": result.finished / 1e9,
        **_asked(result.request),
        "stop": result.stop,
        "timings": result.timings or None,
        "fingerprint": _public(result.model),
        "seed": result.seed,
        "level": str(result.level),
        "transient": result.transient,
        "splices": [{"position": one.position, "epoch": one.epoch} for one in result.continuations],
        "cached_from": result.cached_from,
        "idempotency_key": result.key,
        "upstream": result.upstream,
    }


def _of_generation(generation: Generation) -> dict[str, Any]:
    state = str(generation.state)
    return {
        "finished": None if generation.finished is None else generation.finished / 1e9,
        **_asked(request_of(generation)),
        "stop": generation.outcome.stop if generation.ended else None,
        "timings": timings_of(generation) if generation.ended else None,
        "fingerprint": _public(generation.model),
        "seed": generation.params.get("seed") if generation.seed is None else generation.seed,
        "level": str(generation.level),
        "transient": generation.transient,
        "splices": [
            {"position": position, "epoch": epoch}
            for position, epoch in generation.splices
            if is_continuation(position, generation.visible, state)
        ],
        "cached_from": generation.cached_from,
        "idempotency_key": generation.key,
        "upstream": generation.upstream,
    }


def timings_of(generation: Generation) -> dict[str, float]:
    """Its phases, of which the whole ended when it did."""
    found, times = generation.phases(), generation.times
    if times.over is not None:
        found["total"] = round((times.over - times.received) * 1e3, 3)
    return found


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request, and the answer that it went on from."""
    api = request.get(_INTERNAL) or {}
    shape = api.get("shape") or {}
    hidden = (_INTERNAL, "previous")
    kept = {
        name: value for name, value in request.items() if name not in hidden and value is not None
    }
    return {"request": kept, "previous": request.get("previous") or shape.get("previous")}


def _public(model: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: model[name] for name in _PUBLIC if name in model} or None

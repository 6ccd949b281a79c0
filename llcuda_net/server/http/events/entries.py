"""A generation in the events: while it runs, and when it is over. JSON values."""

from __future__ import annotations

from typing import Any

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.formats import format_of
from llcuda_net.server.http.generations.details import timings_of
from llcuda_net.server.http.openai.answers import usage_of
from llcuda_net.storage.packing.codec import beginning, preview


def run_of(generation: Generation, queued: int, *, with_owner: bool) -> dict[str, Any]:
    """One that waits or runs.

    Args:
        queued: how many wait, of all users.
        with_owner: say whose it is.
    """
    place = generation.place
    queue = None
    if place.position:
        queue = {
            "position": place.position,
            "of": max(queued, place.position),
            "wait": place.wait,
            "reason": place.reason,
        }
    return {
        **_named(generation, with_owner=with_owner),
        "state": str(generation.state),
        "phase": phase_of(generation),
        "text": beginning(generation.text_pieces(generation.visible)),
        "tokens": generation.visible,
        "tokens_per_second": _rate(generation),
        "queue": queue,
    }


def end_of(generation: Generation, *, with_owner: bool) -> dict[str, Any]:
    """One that is over."""
    failure = failure_of(generation)
    outcome = generation.outcome
    finished = generation.finished
    return {
        **_named(generation, with_owner=with_owner),
        "state": str(generation.state),
        "finished": None if finished is None else finished / 1e9,
        "tokens": max(generation.visible, outcome.usage.get("completion_tokens", 0)),
        "finish_reason": outcome.reason if generation.state is State.DONE else None,
        "error": None if failure is None else failure.document()["error"],
        "usage": usage_of([generation]),
        "timings": timings_of(generation),
    }


def phase_of(generation: Generation) -> str:
    """What happens to one that is not over: queue, prompt or answer."""
    if generation.place.position:
        return "queue"
    return "answer" if generation.visible else "prompt"


def _named(generation: Generation, *, with_owner: bool) -> dict[str, Any]:
    api = generation.api or {}
    found = {
        "id": generation.id,
        "conversation": (api.get("shape") or {}).get("conversation"),
        "api": api.get("kind"),
        "created": generation.created / 1e9,
        "model": format_of(generation).model,
        "preview": preview({"prompt": generation.prompt, "messages": generation.messages}),
    }
    return {**found, "owner": generation.owner} if with_owner else found


def _rate(generation: Generation) -> float | None:
    """Tokens per second since the first one, in this process."""
    first, last = generation.times.first_token, generation.times.last_token
    made = generation.made
    if first is None or last is None or made < 2 or last <= first:
        return None
    return round((made - 1) / (last - first), 2)

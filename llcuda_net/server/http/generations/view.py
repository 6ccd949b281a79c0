"""A generation as JSON."""

from __future__ import annotations

from typing import Any

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.formats import format_of
from llcuda_net.server.http.openai.answers import usage_of
from llcuda_net.storage.chat_history import said


def view(generation: Generation) -> dict[str, Any]:
    """A generation as JSON values; its log must be here. Not more than its readers may have."""
    failure = failure_of(generation) if generation.ended else None
    outcome = generation.outcome
    document: dict[str, Any] = {
        "id": generation.id,
        "object": "generation",
        "state": str(generation.state),
        "created": generation.created / 1e9,
        "model": format_of(generation).model,
        "tokens": generation.visible,
        **contents(generation),
        "finish_reason": outcome.reason if generation.state is State.DONE else None,
        "usage": usage_of([generation]) if generation.ended else None,
        "error": None if failure is None else failure.document()["error"],
    }
    if generation.state is State.QUEUED and generation.place.position:
        place = generation.place
        document["queue"] = {"position": place.position, "wait": place.wait}
    api = generation.api or {}
    if "n" in api:
        document |= {"n": api["n"], "index": api["index"]}
    return document


def contents(generation: Generation) -> dict[str, Any]:
    """The text, the reasoning and the tool calls of a log, as far as they may be seen."""
    answer = said(generation.pieces[: generation.visible], generation.switches)
    return {
        "text": answer.text,
        "reasoning": answer.reasoning or None,
        "tool_calls": answer.tool_calls,
    }

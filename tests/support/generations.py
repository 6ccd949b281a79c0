"""Generations as they stand at some point of their lives, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llcuda_net.config.users import Priority
from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import Outcome, State, Times
from llcuda_net.storage.channels import Switch
from llcuda_net.storage.records import packed

GENERATION = "01890000-0000-7000-8000-000000000001"


def generation_of(
    pieces: Sequence[str] = (),
    *,
    switches: Sequence[Switch] = (),
    state: State = State.DONE,
    reason: str = "stop",
    usage: dict[str, int] | None = None,
    logprobs: Sequence[list[Any]] | None = None,
    error: RequestError | None = None,
    priority: Priority = Priority.NORMAL,
    id_: str = GENERATION,
    stop: str | None = None,
) -> Generation:
    """A generation with this log."""
    found = Generation(None, [], {}, 1.0, id=id_, created=1_700_000_000_500_000_000, times=Times(0))
    found.pieces = list(pieces)
    found.ids = [None] * len(pieces)
    found.counts = [1] * len(pieces)
    found.visible = len(pieces)
    found.switches = list(switches)
    found.priority = priority
    if logprobs is not None:
        found.logprobs = [packed(one) for one in logprobs]
    found.accepted = True
    found.finished = found.created + 1_000_000_000
    if usage is None:
        usage = {"prompt_tokens": 5, "completion_tokens": len(pieces)}
    found.conclude(Outcome(reason, stop, "tiny", usage, {"total": 1.5}))
    if state is not State.QUEUED:
        found.end(state, error)
    return found

"""What a trace has of a generation: its phases and numbers; never its prompt or answer.

Attributes have OpenTelemetry's names for generative AI where there are any, else our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State, Times
from llcuda_net.util.time_ids import epoch_time

Value = str | bool | int | float | list[str]

#: Sampling parameters that are in a trace, by llama-server's names: all of them numbers.
_PARAMETERS = {
    "n_predict": "max_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
#: SPEC.md's names of usage.
_USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
}


class Phase(NamedTuple):
    """A phase, on the monotonic clock in seconds.

    Attributes:
        within: the phase that it is a part of; empty: of none.
    """

    name: str
    start: float
    end: float
    within: str = ""


class Splice(NamedTuple):
    """The generation went on after the loss of what ran it.

    Attributes:
        at: nanoseconds since 1970.
        position: the first piece after it.
    """

    at: int
    position: int


def operation(generation: Generation) -> str:
    """The operation, in OpenTelemetry's words."""
    return "text_completion" if generation.messages is None else "chat"


def model(generation: Generation) -> str:
    """The name of the model that ran it, or was to run it; empty where none is known."""
    return str(generation.model.get("name") or generation.outcome.model or "")


def phases(times: Times, prompt_ms: float) -> Iterator[Phase]:
    """The phases that there were, by their beginnings.

    Args:
        prompt_ms: how long the upstream read the prompt, by its own account; 0: not known.
    """
    marks = (
        ("queue", times.received, times.dispatched),
        ("template", times.dispatched, times.rendered),
        ("connect", times.rendered or times.dispatched, times.sent),
        ("first_token", times.sent, times.first_token),
        ("generation", times.first_token, times.last_token),
        ("persist", times.over, times.stored),
    )
    for name, start, end in marks:
        # Sent again, it has the times of its last run beside that of its first token.
        if start is None or end is None or end < start:
            continue
        yield Phase(name, start, end)
        if name == "first_token" and prompt_ms:
            # Reported as a length only: it ends with the first token.
            yield Phase("prompt", max(start, end - prompt_ms / 1e3), end, name)


def splices(generation: Generation) -> list[Splice]:
    """Where it went on after a restart, of all its life: also in servers before this one."""
    found: list[Splice] = []
    last = 0
    for position, epoch in generation.splices:
        if epoch != last:  # a failover keeps the epoch, which is not its time
            found.append(Splice(epoch_time(epoch), position))
            last = epoch
    return found


def attributes(generation: Generation, upstream: str) -> dict[str, Value]:
    """The attributes of a generation that has ended.

    Args:
        upstream: the name of the one that it was last dispatched to; empty: none.
    """
    times = generation.times
    found: dict[str, Value] = {
        "gen_ai.operation.name": operation(generation),
        "gen_ai.provider.name": "llama.cpp",
        "gen_ai.response.id": generation.id,
        "llcuda.state": str(generation.state),
        "llcuda.level": str(generation.level),
        "llcuda.from_store": generation.from_store,
        "llcuda.pieces": generation.count,
    }
    named = {
        "gen_ai.request.model": model(generation),
        "gen_ai.response.model": generation.outcome.model or "",
        "llcuda.upstream": upstream,
        "llcuda.user": generation.owner,
    }
    found |= {name: value for name, value in named.items() if value}
    for parameter, name in _PARAMETERS.items():
        value = generation.params.get(parameter)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[f"gen_ai.request.{name}"] = value
    for noun, count in generation.outcome.usage.items():
        if noun in _USAGE:
            found[_USAGE[noun]] = count
    if generation.state is State.DONE:
        found["gen_ai.response.finish_reasons"] = [generation.outcome.reason]
    if times.first_token is not None:
        found["gen_ai.response.time_to_first_chunk"] = times.first_token - times.received
    if generation.error is not None:
        found["error.type"] = str(generation.error.code)
    return found

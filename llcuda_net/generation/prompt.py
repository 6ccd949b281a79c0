"""The prompt of a generation: what is sent to an upstream, and what its slot holds afterwards."""

from __future__ import annotations

from typing import Any

from llcuda_net.generation import sampling
from llcuda_net.generation.generation import Generation
from llcuda_net.upstream import chat, prefix_cache
from llcuda_net.upstream.backend import Lease
from llcuda_net.upstream.constraints.checks import as_sent


def checked_params(generation: Generation, context: int) -> dict[str, Any]:
    """Its parameters for an upstream: another one may have more context."""
    checked = sampling.check(sampling.within(generation.params, context), context)
    if "json_schema" in checked:
        checked["json_schema"] = as_sent(checked["json_schema"])
    if generation.seed is not None:
        checked["seed"] = generation.seed
    return checked


async def render(messages: list[dict[str, str]], lease: Lease) -> str | list[int]:
    """The prompt that the model's chat template makes of messages; see chat.prompt_of.

    Raises:
        RequestError: it has none, or refuses them.
    """
    await lease.properties()  # and report them
    return await chat.prompt_of(messages, lease.backend.upstream)


def text_so_far(generation: Generation) -> str:
    """Prompt and answer so far, as prefix_cache.py compares them."""
    text = prefix_cache.text_of(generation.prompt, generation.messages)
    if not generation.pieces:
        return text
    answer = "".join(generation.pieces)
    if generation.messages is None:
        return text + answer
    return text + prefix_cache.turn("assistant", answer)

"""The prompt of a generation: what is sent to an upstream, and what its slot holds afterwards."""

from __future__ import annotations

from typing import Any

from llcuda_net.errors import Unsupported
from llcuda_net.generation import sampling
from llcuda_net.generation.generation import Generation
from llcuda_net.upstream.constraints.checks import as_sent
from llcuda_net.upstream.constraints.tools import may_call
from llcuda_net.upstream.interface import Properties
from llcuda_net.upstream.prompts import chat, prefix_cache
from llcuda_net.upstream.prompts.messages import (
    are_plain,
    check_parts,
    check_roles,
    flat,
    senses_of,
)
from llcuda_net.upstream.slots.lease import Lease


def checked_params(generation: Generation, context: int) -> dict[str, Any]:
    """Its parameters for an upstream: another one may have more context."""
    checked = sampling.check(sampling.within(generation.params, context), context)
    checked.pop("input_suffix", None)  # it is part of the prompt
    if "json_schema" in checked:
        checked["json_schema"] = as_sent(checked["json_schema"])
    if generation.seed is not None:
        checked["seed"] = generation.seed
    return checked


def route(generation: Generation, properties: Properties) -> bool:
    """Whether it goes to the upstream's own chat, which alone parses tool calls and reasoning.

    Else it is completed from a rendered prompt, and can be continued token by token.

    Raises:
        Unsupported: the model cannot do what is asked for.
        InvalidRequest: there is something in the messages that no upstream takes.
    """
    messages = generation.messages
    if messages is None or generation.rendered is not None:
        return False  # it has no choice, or has begun
    check_roles(messages)
    check_parts(messages, properties)
    options = generation.chat or {}
    effort = options.get("reasoning_effort")
    needed = bool(
        options.get("tools")
        or options.get("chat_template_kwargs")
        # Nothing is to be turned off where nothing thinks.
        or (effort is not None and effort != "none")
        or not are_plain(messages)
    )
    if needed and not properties.has_template:
        raise Unsupported(
            f"the model {properties.model} has no chat template: it knows no tools, images or "
            "reasoning"
        )
    if may_call(options) and not properties.tools:
        raise Unsupported(
            f"the model {properties.model} knows no tools: its chat template leaves them out"
        )
    return needed or properties.thinks


def abilities_for(generation: Generation) -> frozenset[str]:
    """What a model must have to answer it; see Requirement."""
    tools = {"tools"} if may_call(generation.chat or {}) else set()
    return senses_of(generation.messages) | tools


async def render(generation: Generation, lease: Lease) -> str | list[int]:
    """The prompt, where it is not just that of the request.

    Of messages of plain text it is what the model's chat template makes; see chat.prompt_of. Of a
    text with a gap, it is its two parts with the model's own marks.

    Raises:
        RequestError: the model has no template, or no such marks, or the template refuses them.
    """
    await lease.properties()  # and report them
    upstream = lease.backend.upstream
    if generation.messages is None:
        before, after = generation.prompt, generation.params["input_suffix"]
        assert isinstance(before, str)
        return await upstream.infill(before, after, lease.params)
    return await chat.prompt_of(flat(generation.messages), upstream)


def text_so_far(generation: Generation) -> str:
    """Prompt and answer so far, as prefix_cache.py compares them."""
    text = prefix_cache.text_of(generation.prompt, generation.messages)
    if not generation.pieces:
        return text
    answer = "".join(generation.pieces)
    if generation.messages is None:
        return text + answer
    return text + prefix_cache.turn("assistant", answer)

"""How many tokens a model would read of messages: asked of one of its upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.asking import ask
from llcuda_net.upstream.interface import Upstream
from llcuda_net.upstream.prompts import chat
from llcuda_net.upstream.prompts.messages import are_plain, check_roles, flat

#: Bytes that a token id takes in an upstream's answer, and a text has at least one per token.
_ID = 16


async def count(
    exchange: Exchange,
    model: str | None,
    messages: Sequence[dict[str, Any]],
    options: dict[str, Any] | None,
) -> int:
    """The tokens of the prompt that messages become; those of images and recordings are not in it.

    Args:
        model: its name, as the request has it.
        options: as of llcuda_protocol.Generate.chat.

    Raises:
        HttpError, RequestError: there is no such model, it does not answer, or refuses them.
    """
    texts = [_text(message) for message in messages]

    async def question(upstream: Upstream) -> int:
        prompt = await _prompt(texts, options or {}, upstream)
        if isinstance(prompt, list):
            return len(prompt)
        return len(await upstream.tokenize(prompt, special=True))

    size = (4 + _ID) * (sizes.of(texts) + sizes.of(options))
    return await ask(exchange, model, question, size=size)


async def _prompt(
    messages: list[dict[str, Any]], options: dict[str, Any], upstream: Upstream
) -> str | list[int]:
    """What the model would read, as generation/prompt.py chooses the way there."""
    properties = await upstream.ask()
    rendered = options.get("tools") or properties.thinks or not are_plain(messages)
    if not properties.has_template or not rendered:
        return await chat.prompt_of(flat(messages), upstream)
    check_roles(messages)
    return await upstream.render(messages, options or None)


def _text(message: dict[str, Any]) -> dict[str, Any]:
    """A message without images and recordings: only who reads them knows their tokens."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [part for part in content if part["type"] == "text"]}

"""POST /v1/messages/count_tokens: how many tokens the model would read of a message request."""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.anthropic.body import CountBody, MessageRequest, read
from llcuda_net.server.http.anthropic.errors import REQUEST_ID
from llcuda_net.server.http.anthropic.fields import RULES
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.asking import ask
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.upstream import chat
from llcuda_net.upstream.interface import Upstream
from llcuda_net.upstream.messages import are_plain, check_roles, flat

#: Bytes that a token id takes in an upstream's answer, and a text has at least one per token.
_ID = 16


async def count_tokens(exchange: Exchange) -> None:
    """The tokens of a message request, whose body it takes: nothing is generated."""
    request = exchange.request
    ignored = Ignored(lenient=exchange.host.settings.lenient, rules=RULES)
    message = await strict_json.read(request.body, lambda data: read(data, ignored, CountBody))
    exchange.drop_body()
    messages = _without_images(message, ignored)
    options = message.chat or {}

    async def count(upstream: Upstream) -> int:
        prompt = await _prompt(messages, options, upstream)
        if isinstance(prompt, list):
            return len(prompt)
        return len(await upstream.tokenize(prompt, special=True))

    size = (4 + _ID) * (sizes.of(messages) + sizes.of(message.chat))
    tokens = await ask(exchange, message.model, count, size=size)
    body = msgspec.json.encode({"input_tokens": tokens})
    exchange.respond(200, body, headers={**ignored.headers(), REQUEST_ID: request.id})


async def _prompt(
    messages: list[dict[str, Any]], options: dict[str, Any], upstream: Upstream
) -> str | list[int]:
    """What the model would read, as generation/prompt.py chooses the way there.

    Raises:
        RequestError: the model has no template, or it refuses them.
    """
    properties = await upstream.ask()
    if not properties.has_template or not (
        options.get("tools") or properties.thinks or not are_plain(messages)
    ):
        return await chat.prompt_of(flat(messages), upstream)
    check_roles(messages)
    return await upstream.render(messages, options)


def _without_images(message: MessageRequest, ignored: Ignored) -> list[dict[str, Any]]:
    """The messages with text alone: only the upstream that reads an image knows its tokens."""
    found = []
    for one in message.messages:
        content = one["content"]
        if isinstance(content, list):
            ignored.names["images"] = None
            content = [part for part in content if part["type"] == "text"]
        found.append({**one, "content": content})
    return found

"""POST /apply-template: the prompt that a model's chat template makes of messages."""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.errors import Unsupported
from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.asking import ask
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import wrong
from llcuda_net.server.http.openai.chat_body import Chat, ChatBody, read
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.upstream.interface import Upstream
from llcuda_net.upstream.prompts.messages import are_plain, check_parts, check_roles, flat

#: Fields beside those of a chat, and what is to know of each.
SUPPORTED = {"add_generation_prompt": "false: the prompt does not begin an answer"}


class TemplateBody(ChatBody, kw_only=True):
    """The body of POST /apply-template: that of a chat, and whether the answer begins in it."""

    add_generation_prompt: bool | None = None


async def apply_template(exchange: Exchange) -> None:
    """The prompt of a chat, whose body it takes: nothing is generated."""
    ignored = Ignored(lenient=exchange.host.settings.lenient)

    def take(data: dict[str, Any]) -> tuple[Chat, bool]:
        begins = data.pop("add_generation_prompt", None)
        if begins is not None and type(begins) is not bool:
            raise wrong("add_generation_prompt", "add_generation_prompt must be true or false")
        return read(data, ignored), begins is not False

    chat, begins = await strict_json.read(exchange.request.body, take)
    exchange.drop_body()
    options = dict(chat.chat or {})
    if not begins:
        options["add_generation_prompt"] = False

    async def render(upstream: Upstream) -> str:
        properties = await upstream.ask()
        if not properties.has_template:
            raise Unsupported(
                f"the model {properties.model} has no chat template; send its prompts yourself"
            )
        check_roles(chat.messages)
        check_parts(chat.messages, properties)
        plain = are_plain(chat.messages)
        messages = flat(chat.messages) if plain else chat.messages
        return await upstream.render(messages, options or None)

    size = 4 * (sizes.of(chat.messages) + sizes.of(chat.chat))
    prompt = await ask(exchange, chat.model, render, size=size)
    exchange.respond(200, msgspec.json.encode({"prompt": prompt}), headers=ignored.headers())

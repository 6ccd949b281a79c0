"""POST /v1/messages/count_tokens: how many tokens the model would read of a message request."""

from __future__ import annotations

import msgspec

from llcuda_net.server.http.anthropic.body import CountBody, read
from llcuda_net.server.http.anthropic.errors import REQUEST_ID
from llcuda_net.server.http.anthropic.fields import RULES
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.counting import count
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.upstream.prompts.messages import senses_of


async def count_tokens(exchange: Exchange) -> None:
    """The tokens of a message request, whose body it takes: nothing is generated."""
    request = exchange.request
    ignored = Ignored(lenient=exchange.host.settings.lenient, rules=RULES)
    message = await strict_json.read(request.body, lambda data: read(data, ignored, CountBody))
    exchange.drop_body()
    for sense in senses_of(message.messages):
        ignored.names[sense] = None  # only who reads an image knows its tokens
    tokens = await count(exchange, message.model, message.messages, message.chat)
    body = msgspec.json.encode({"input_tokens": tokens})
    exchange.respond(200, body, headers={**ignored.headers(), REQUEST_ID: request.id})

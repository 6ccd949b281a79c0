"""The paths of Anthropic's API, also those that OpenAI's has, too; POST /v1/messages."""

from __future__ import annotations

from llcuda_net.server.http.anthropic.body import read
from llcuda_net.server.http.anthropic.count_tokens import count_tokens
from llcuda_net.server.http.anthropic.errors import (
    REQUEST_ID,
    anthropic_error,
    error_by_version,
)
from llcuda_net.server.http.anthropic.fields import RULES
from llcuda_net.server.http.anthropic.message_format import MessageFormat
from llcuda_net.server.http.anthropic.models import get_model, list_models
from llcuda_net.server.http.delivery.deliver import deliver
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.chat import limited, options_of
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant
from llcuda_net.server.http.route import Route
from llcuda_protocol import Generate


async def create(exchange: Exchange) -> None:
    """Answer a message, whole or as a stream of events."""
    request, host = exchange.request, exchange.host
    ignored = Ignored(lenient=host.settings.lenient, rules=RULES)
    message = await strict_json.read(request.body, lambda data: read(data, ignored))
    exchange.drop_body()
    options = options_of(request.headers)
    model, told = meant(host, message.model)
    form = MessageFormat(told, message.max_tokens, message.stream)
    asked = Generate(
        0,
        0,
        messages=message.messages,
        params=limited(message.params, model, host),
        chat=message.chat,
        model=model,
        **options,
    )
    headers = {**ignored.headers(), REQUEST_ID: request.id}
    await deliver(exchange, [asked], form, headers=headers)


ROUTES = [
    Route("POST", "/v1/messages", create, errors=anthropic_error),
    Route("POST", "/v1/messages/count_tokens", count_tokens, errors=anthropic_error),
    Route("GET", "/v1/models", list_models, errors=error_by_version),
    Route("GET", "/v1/models/{id}", get_model, errors=error_by_version),
]

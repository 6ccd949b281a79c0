"""POST /v1/chat/completions; what our own options of a request are, which come as headers.

No SDK has fields for those, and all can send headers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llcuda_net.config.users import PRIORITIES
from llcuda_net.server.http.delivery.deliver import deliver
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.chat_body import Chat, read
from llcuda_net.server.http.openai.chat_format import ChatFormat
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant
from llcuda_net.server.http.request import Headers, seconds_of
from llcuda_net.storage.records import Level
from llcuda_protocol import Generate

#: Each header, and what its value may be.
OPTIONS = {
    "x-llcuda-timeout": "seconds for the whole request",
    "x-llcuda-deadline": "seconds within which it must have started to run",
    "x-llcuda-level": f"what it survives: {', '.join(Level)}",
    "x-llcuda-cache": "true: it may be answered with the stored result of the same request",
    "x-llcuda-store": "false: it is erased ten minutes after its end",
    "x-llcuda-priority": f"the class of the request: {', '.join(PRIORITIES)}",
}
_MOST_SECONDS = 1e9


async def chat_completions(exchange: Exchange) -> None:
    """Answer a chat, whole or as a stream of chunks."""
    request, host = exchange.request, exchange.host
    ignored = Ignored(lenient=host.settings.lenient)
    chat = await strict_json.read(request.body, lambda data: read(data, ignored))
    exchange.drop_body()
    options = options_of(request.headers)
    model, told = meant(host, chat.model)
    form = ChatFormat(told, chat.logprobs, chat.usage, chat.stream)
    requests = _requests(chat, model, options, host)
    await deliver(exchange, requests, form, headers=ignored.headers())


def _requests(
    chat: Chat, model: str | None, options: dict[str, Any], host: HttpHost
) -> list[Generate]:
    """A request per choice."""
    params = limited(chat.params, model, host)
    options.setdefault("priority", chat.priority)
    first = Generate(
        0, 0, messages=chat.messages, params=params, chat=chat.chat, model=model, **options
    )
    return [
        first if seed is None else replace(first, params={**params, "seed": seed})
        for seed in chat.seeds
    ]


def limited(params: dict[str, Any], model: str | None, host: HttpHost) -> dict[str, Any]:
    """Parameters that ask for no more tokens than the context of the model holds.

    Clients ask for as many as their largest model makes; more than all are never made.
    """
    wanted = params.get("n_predict")
    context = host.pool.context_of(model)
    if wanted is None or context is None:
        return params
    return {**params, "n_predict": min(wanted, context)}


def options_of(headers: Headers) -> dict[str, Any]:
    """The options that a request's headers give, by the names of llcuda_protocol.Generate.

    Raises:
        HttpError: a value is wrong.
    """
    found: dict[str, Any] = {}
    for header in OPTIONS:
        value = headers.get(header)
        if value is None:
            continue
        name = header.removeprefix("x-llcuda-")
        value = value.strip().lower()
        if name in ("timeout", "deadline"):
            found[name] = _seconds(header, value)
        elif name in ("cache", "store"):
            if value not in ("true", "false", "1", "0"):
                raise _wrong(header, "true or false")
            wanted = value in ("true", "1")
            found |= {"cache": wanted} if name == "cache" else {"transient": not wanted}
        else:
            names = list(Level) if name == "level" else list(PRIORITIES)
            if value not in names:
                raise _wrong(header, f"one of {', '.join(names)}")
            found[name] = value
    return found


def _seconds(header: str, value: str) -> float:
    seconds = seconds_of(value)
    if seconds is None or seconds > _MOST_SECONDS:
        raise _wrong(header, "a number of seconds")
    return seconds


def _wrong(header: str, rule: str) -> HttpError:
    return HttpError(
        400, f"the header {header} must be {rule}", param=header, code="invalid_request"
    )

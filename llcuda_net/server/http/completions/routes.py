"""POST /v1/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llcuda_net.errors import RequestError
from llcuda_net.server.http.completions.body import Completion, read
from llcuda_net.server.http.completions.format import CompletionFormat
from llcuda_net.server.http.delivery.deliver import deliver
from llcuda_net.server.http.errors import of_request_error
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.chat import limited, options_of
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant
from llcuda_net.server.http.route import Route
from llcuda_protocol import Generate


async def completions(exchange: Exchange) -> None:
    """Go on with texts, whole or as a stream of chunks."""
    request, host = exchange.request, exchange.host
    ignored = Ignored(lenient=host.settings.lenient)
    asked = await strict_json.read(request.body, lambda data: read(data, ignored))
    exchange.drop_body()
    options = options_of(request.headers)
    try:
        model, told = meant(host, asked.model)
        echo = await _echo(host, asked, model) if asked.echo else []
    except RequestError as error:
        raise of_request_error(error, "model") from None
    form = CompletionFormat(told, asked.n, asked.logprobs, asked.usage, asked.stream, echo)
    requests = _requests(asked, model, options, host)
    await deliver(exchange, requests, form, headers=ignored.headers())


async def _echo(host: HttpHost, asked: Completion, model: str | None) -> list[str]:
    """The text of each prompt."""
    key = host.pool.key_of(model)
    upstream = max(host.pool.of(key), key=lambda one: one.up).upstream
    return [
        one if isinstance(one, str) else await upstream.detokenize(one) for one in asked.prompts
    ]


def _requests(
    asked: Completion, model: str | None, options: dict[str, Any], host: HttpHost
) -> list[Generate]:
    """A request per choice: all of the first prompt, then all of the next one."""
    params = limited(asked.params, model, host)
    seeds = iter(asked.seeds)
    found = []
    for prompt in asked.prompts:
        first = Generate(0, 0, prompt=prompt, params=params, model=model, **options)
        for _ in range(asked.n):
            seed = next(seeds)
            own = first if seed is None else replace(first, params={**params, "seed": seed})
            found.append(own)
    return found


ROUTES = [Route("POST", "/v1/completions", completions)]

"""POST /v1/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llcuda_net.server.http.completions.body import Completion, read
from llcuda_net.server.http.completions.format import CompletionFormat
from llcuda_net.server.http.delivery.deliver import deliver
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.llama.asking import ask
from llcuda_net.server.http.llama.tokens import size_of_text
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.chat import limited, options_of
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant
from llcuda_net.server.http.route import Route
from llcuda_net.upstream.interface import Upstream
from llcuda_protocol import Generate


async def completions(exchange: Exchange) -> None:
    """Go on with texts, whole or as a stream of chunks."""
    request, host = exchange.request, exchange.host
    ignored = Ignored(lenient=host.settings.lenient)
    asked = await strict_json.read(request.body, lambda data: read(data, ignored))
    exchange.drop_body()
    options = options_of(request.headers)
    model, told = meant(host, asked.model)
    echo = await _echo(exchange, asked, model) if asked.echo else []
    form = CompletionFormat(told, asked.n, asked.logprobs, asked.usage, asked.stream, echo)
    requests = _requests(asked, model, options, host)
    await deliver(exchange, requests, form, headers=ignored.headers())


async def _echo(exchange: Exchange, asked: Completion, model: str | None) -> list[str]:
    """The text of each prompt; of token ids, as an upstream of the model has it."""
    texts = [one for one in asked.prompts if isinstance(one, str)]
    if texts:
        return texts  # all of them are: see `prompts_of`
    ids = [one for one in asked.prompts if not isinstance(one, str)]

    async def question(upstream: Upstream) -> list[str]:
        return [await upstream.detokenize(one) for one in ids]

    return await ask(exchange, model, question, size=sum(map(size_of_text, ids)))


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

"""POST /v1/embeddings: texts, or token ids, to vectors."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

import msgspec
import trio
from msgspec import Meta

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.server.http.errors import of_request_error
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import convert, wrong
from llcuda_net.server.http.openai.chat import options_of
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant
from llcuda_net.upstream.interface import Upstream
from llcuda_net.upstream.prompts.prefix_cache import tokens_in

#: Most inputs of a request, as OpenAI's API has it.
MAX_INPUTS = 2048
#: Texts whose tokens are counted at once.
_AT_ONCE = 8

_Id = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]


class EmbeddingsBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/embeddings."""

    input: str | list[str | _Id | list[_Id]]
    model: Annotated[str, Meta(max_length=1024)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


_KNOWN = EmbeddingsBody.__struct_fields__


async def embeddings(exchange: Exchange) -> None:
    """POST /v1/embeddings."""
    request, host = exchange.request, exchange.host
    ignored = Ignored(lenient=host.settings.lenient)
    body = await strict_json.read(
        request.body, lambda data: convert(ignored.keep(data, _KNOWN), EmbeddingsBody)
    )
    exchange.drop_body()
    priority = options_of(request.headers).get("priority")
    inputs = _inputs(body)
    try:
        wanted, told = meant(host, body.model, EMBEDDINGS)
        serving = host.pool.named(wanted, EMBEDDINGS)
        upstream = max(serving, key=lambda one: one.up).upstream
        vectors = await host.queries.embed(inputs, request.user, wanted, priority)
    except RequestError as error:
        param = "model" if error.code == "unknown_model" else None
        raise of_request_error(error, param) from None
    if body.dimensions is not None and any(len(v) != 4 * body.dimensions for v in vectors):
        given = len(vectors[0]) // 4
        raise wrong("dimensions", f"vectors of this model have {given} dimensions, and no others")
    tokens = await _tokens(inputs, upstream)
    size = sum(map(len, vectors)) * (2 if body.encoding_format == "base64" else 8)
    with host.holding(request.user, size):
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": _written(vector, body)}
                for i, vector in enumerate(vectors)
            ],
            "model": told,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        exchange.respond(200, msgspec.json.encode(answer), headers=ignored.headers())


def _inputs(body: EmbeddingsBody) -> list[str | list[int]]:
    """The inputs: texts, or the token ids of texts."""
    given = body.input
    if isinstance(given, str):
        given = [given]
    kinds = {type(one) for one in given}
    found: list[Any] = [given] if kinds == {int} else given
    if len(kinds) != 1:
        raise wrong("input", "input must be a text, token ids, or a list of one of the two")
    if len(found) > MAX_INPUTS:
        raise wrong("input", f"input must have at most {MAX_INPUTS} texts, not {len(found)}")
    for i, one in enumerate(found):
        if not one:
            raise wrong(f"input[{i}]", f"input[{i}] is empty")
    return found


async def _tokens(inputs: list[str | list[int]], upstream: Upstream) -> int:
    """How many tokens the inputs have; as the upstream counts them, else estimated."""
    counts: list[int] = []
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def count(text: str) -> None:
        try:
            async with limit:
                counts.append(len(await upstream.tokenize(text, special=True)))
        except RequestError:
            counts.append(tokens_in(text))

    async with trio.open_nursery() as nursery:
        for one in inputs:
            if isinstance(one, str):
                nursery.start_soon(count, one)
            else:
                counts.append(len(one))
    return sum(counts)


def _written(vector: bytes, body: EmbeddingsBody) -> str | msgspec.Raw:
    """Little-endian float32 in base64, or as a list of numbers, encoded."""
    if body.encoding_format == "base64":
        return base64.b64encode(vector).decode()
    return msgspec.Raw(msgspec.json.encode(struct.unpack(f"<{len(vector) // 4}f", vector)))

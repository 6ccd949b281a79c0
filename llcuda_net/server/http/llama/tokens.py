"""POST /tokenize and /detokenize: a text to the tokens of a model, and back."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama.asking import ask
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import convert
from llcuda_net.server.http.openai.fields import Ignored

#: Bytes of JSON that a token takes at most: an id; and with its piece.
_ID, _PIECE = 16, 64
#: Bytes of text that a token may have, in nearly all vocabularies.
_LONGEST = 32

Id = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
_Name = Annotated[str, Meta(max_length=1024)]


class TokenizeBody(msgspec.Struct, kw_only=True):
    """The body of POST /tokenize, as llama-server has it; `model` is ours."""

    content: str | list[str | Id]
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None
    model: _Name | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """The body of POST /detokenize, as llama-server has it; `model` is ours."""

    tokens: list[Id]
    model: _Name | None = None


async def tokenize(exchange: Exchange) -> None:
    """The tokens of a text: their ids, and with `with_pieces` the text of each."""
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    body = await strict_json.read(
        exchange.request.body,
        lambda data: convert(ignored.keep(data, TokenizeBody.__struct_fields__), TokenizeBody),
    )
    exchange.drop_body()
    parts = [body.content] if isinstance(body.content, str) else body.content
    most = sum(len(one) if isinstance(one, str) else 1 for one in parts)
    found = await ask(
        exchange,
        body.model,
        lambda upstream: upstream.tokens(
            body.content,
            special=bool(body.add_special),
            literal=body.parse_special is False,
            pieces=bool(body.with_pieces),
        ),
        size=2 * sizes.of(body.content) + most * (_PIECE if body.with_pieces else _ID),
    )
    exchange.respond(200, b'{"tokens":%s}' % found, headers=ignored.headers())


def size_of_text(ids: list[int]) -> int:
    """Bytes of memory that token ids and the text of them take."""
    return 2 * sizes.of(ids) + _LONGEST * len(ids)


async def detokenize(exchange: Exchange) -> None:
    """The text of tokens."""
    ignored = Ignored(lenient=exchange.host.settings.lenient)
    body = await strict_json.read(
        exchange.request.body,
        lambda data: convert(ignored.keep(data, DetokenizeBody.__struct_fields__), DetokenizeBody),
    )
    exchange.drop_body()
    content = await ask(
        exchange,
        body.model,
        lambda upstream: upstream.detokenize(body.tokens),
        size=size_of_text(body.tokens),
    )
    answer = msgspec.json.encode({"content": content})
    exchange.respond(200, answer, headers=ignored.headers())

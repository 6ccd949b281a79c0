"""A tokenizer that is not the server's own: a model's file, a tokenizer.json, or another server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from llcuda_net.batch.targets.opening import in_nursery
from llcuda_net.batch.targets.token_check import Count, Sampled, check, tokens_in
from llcuda_net.config.upstreams import BaseUrl, without_credentials
from llcuda_net.errors import ConfigError
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.llama.transport.origin import Origin, unreachable


def kind_of(where: str) -> str:
    """What a tokenizer is: "url", "gguf" or "json".

    Raises:
        ConfigError: it is none, or there is no such file.
    """
    if where.startswith(("http://", "https://")):
        BaseUrl.parse(where, "tokenizer")
        return "url"
    path = Path(where)
    if path.suffix not in (".gguf", ".json"):
        raise ConfigError(
            f"the tokenizer {where} is no GGUF file, no tokenizer.json and no URL of a llama-server"
        )
    if not path.is_file():
        raise ConfigError(f"there is no file {where}")
    return path.suffix[1:]


@asynccontextmanager
async def open_tokenizer(where: str) -> AsyncIterator[Count]:
    """What counts the tokens of a text, for the length of a block.

    Args:
        where: a GGUF file, which the built-in engine loads; a tokenizer.json, which the package
            `tokenizers` reads; or the URL of a llama-server, whose /tokenize is asked.

    Raises:
        ConfigError: it is none of these, or the package is not there.
        EngineError: the engine does not load the file.
    """
    kind = kind_of(where)
    if kind == "json":
        yield _of_json(Path(where))
    elif kind == "url":
        origin = Origin(BaseUrl.parse(where.removesuffix("/v1"), "tokenizer"))
        try:
            yield _of_server(origin)
        finally:
            await origin.aclose()
    else:
        engine = Engine(EngineOptions(Path(where), slots=1, ctx=512))
        async with in_nursery() as nursery:
            await nursery.start(engine.run)
            origin = Origin(BaseUrl.parse(str(engine.base_url)), engine.api_key)
            yield _of_server(origin)
            await origin.aclose()
            nursery.cancel_scope.cancel()


def _of_server(origin: Origin) -> Count:
    async def count(text: str) -> int:
        with unreachable("the tokenizer cannot be reached"):
            body = {"content": text, "add_special": False}
            return len((await origin.ask("POST", "/tokenize", tokens_in, body)).tokens)

    return count


def _of_json(path: Path) -> Count:
    try:
        tokenizers: Any = import_module("tokenizers")
    except ImportError:
        raise ConfigError("a tokenizer.json needs the package tokenizers") from None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise ConfigError(f"{path} holds no tokenizer: {error}") from None

    async def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


async def learn(target: object, about: dict[str, Any], tokenizer: str | None) -> None:
    """Note what was learned of a target by asking it: how its tokens are counted, and its ways.

    Args:
        about: gets "tokens", as TokenCheck.as_dict has it, and "notes", for the figures' reader.
        tokenizer: see `open_tokenizer`; None: the server's own, where it has one.
    """
    if not isinstance(target, Sampled):
        return
    if tokenizer is None:
        own = target.count if target.tokenizer else None
        found = await check(target.samples, target.by, own, target.tokenizer)
    else:
        async with open_tokenizer(tokenizer) as count:
            url = "://" in tokenizer
            name = without_credentials(tokenizer) if url else Path(tokenizer).name
            found = await check(target.samples, target.by, count, name)
    about["tokens"] = found.as_dict()
    about["notes"] = [*target.notes, *([found.caution] if found.caution is not None else [])]

"""Any server with an OpenAI-compatible /v1/chat/completions as a target.

The stream is read from the socket, without an HTTP client between: what such a client costs per
piece would be counted as the server's. Each request has a connection of its own.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets import facts
from llcuda_net.batch.targets.asking import asking
from llcuda_net.batch.targets.chat_stream import ChatParser, Usage
from llcuda_net.batch.targets.interface import About, Answer, Clock, embedded, overloaded_when_busy
from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError, Unsupported, UpstreamStalled, UpstreamUnavailable
from llcuda_net.upstream.llama.transport.origin import Origin, decoder, unreachable
from llcuda_net.util.numbers import plain

_READ = 64 << 10
#: Pieces for each token that was asked for, and besides, after which an answer is taken for whole.
_PIECES, _MORE_PIECES = 4, 64
#: Who owns the models of a llama-server, which alone knows `cache_prompt`.
_LLAMA = "llamacpp"


class _Model(msgspec.Struct):
    id: str
    owned_by: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Vector(msgspec.Struct):
    embedding: Any


class _Embeddings(msgspec.Struct):
    data: list[_Vector]
    usage: Usage | None = None


_embeddings = decoder(_Embeddings, "/v1/embeddings gave no list of embeddings")
_models = decoder(_Models, "/v1/models gave no list of models")


class OpenAITarget:
    """One server.

    Args:
        base_url: with or without /v1 at its end.
        model: which to ask; None: the first one of the server's list.
        api_key: sent as a bearer token.
        stall_timeout: seconds without a byte before an answer is given up.

    Raises:
        ConfigError: the URL is none, or there are two kinds of credentials.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        stall_timeout: float = 600.0,
    ) -> None:
        base = re.sub(r"(/v1)?(/chat/completions)?/*$", "", base_url)
        url = BaseUrl.parse(base, "server", "http://127.0.0.1:8000")
        self.name = str(url)
        self._origin = Origin(url, api_key)
        self._model = model
        self._stall = stall_timeout
        self._owner = ""

    def __repr__(self) -> str:
        return f"<OpenAITarget {self.name}, model {self._model or 'not known yet'}>"

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._origin.aclose()

    async def choose_model(self) -> None:
        """Look the model up where none was named.

        Raises:
            RequestError: the server cannot be reached, refuses, or lists none.
        """
        try:
            found = await self._models()
        except RequestError:
            if self._model is None:
                raise
            found = []  # a server without a list may serve the model all the same
        named = [each for each in found if self._model in (None, each.id)]
        if named:
            self._model = named[0].id
            self._owner = named[0].owned_by or ""
        elif self._model is None:
            raise Unsupported(f"{self.name} lists no model: name one with --model (--direct-model)")

    async def _models(self) -> list[_Model]:
        with overloaded_when_busy(), unreachable("the server cannot be reached"):
            return (await self._origin.ask("GET", "/v1/models", _models)).data

    async def about(self) -> About:
        """The model, and who says to own it; such a server does not say its slots."""
        told = await facts.of_openai(asking(self._origin), self._model or "")
        owner = f" ({self._owner})" if self._owner else ""
        version = f"OpenAI-compatible server{owner}"
        return About(self._model or "unknown", None, version, "openai", told["context"], told)

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target; a prompt becomes a chat of one message.

        Tokens are those of `usage` where the server sends it, else the pieces that came.
        """
        if not isinstance(prompt, str):
            raise Unsupported("this API takes no token ids")
        if "texts" in more:
            record.sent = now()
            return await self._embed(more["texts"], record)
        messages = more.get("messages") or [{"role": "user", "content": prompt}]
        request = self._request(messages, params)
        record.sent = now()
        parser = ChatParser()
        texts: list[str] = []
        # A piece has a token at least, mostly; a server that goes on and on is not read for ever.
        most = _PIECES * params.get("n_predict", 0) + _MORE_PIECES
        with unreachable("the server cannot be reached"):
            stream = await self._origin.connections.open()
        try:
            with unreachable("the connection was lost"):
                await stream.send_all(request)
            while not parser.finished:
                data = b""
                with (
                    trio.move_on_after(self._stall) as scope,
                    unreachable("the connection was lost"),
                ):
                    data = bytes(await stream.receive_some(_READ))
                if scope.cancelled_caught:
                    raise UpstreamStalled(f"the server sent nothing for {plain(self._stall)} s")
                at = now()
                with overloaded_when_busy():
                    if not data:
                        parser.feed_eof()
                        break
                    parser.feed(data)
                record.chunks.extend([at] * len(parser.pieces))
                texts += parser.pieces
                parser.pieces.clear()
                if "n_predict" in params and len(texts) > most:
                    parser.reason, parser.finished = "length", True
                if parser.complete:
                    break
        finally:
            await trio.aclose_forcefully(stream)
        if not parser.finished:
            raise UpstreamUnavailable("the server ended the answer early", retry=True)
        return self._answer(parser, record, texts)

    async def _embed(self, texts: list[str], record: Record) -> Answer:
        """By /v1/embeddings; its tokens are those of `usage`, where the server sends it."""
        body = {"model": self._model, "input": texts}
        with overloaded_when_busy(), unreachable("the server cannot be reached"):
            found = await self._origin.ask(
                *("POST", "/v1/embeddings", _embeddings, body), timeout=self._stall
            )
        if found.usage is not None:
            record.prompt_tokens = found.usage.prompt_tokens or 0
        return embedded(record, found.data, len(texts))

    def _answer(self, parser: ChatParser, record: Record, texts: list[str]) -> Answer:
        usage = parser.usage
        record.counted = usage is not None and usage.completion_tokens is not None
        record.tokens = len(texts)
        if usage is not None:
            record.tokens = usage.completion_tokens or len(texts)
            record.prompt_tokens = usage.prompt_tokens or 0
            record.cached_tokens = usage.cached_tokens
        return Answer("".join(texts), parser.reason or "stop", parser.model, parser.id)

    def _request(self, messages: list[dict[str, str]], params: dict[str, Any]) -> bytes:
        """The whole HTTP request."""
        own = dict(params)
        if "n_predict" in own:
            own["max_tokens"] = own.pop("n_predict")
        # What is not in OpenAI's own API, where it would be refused, is sent only if it matters.
        if not own.get("ignore_eos"):
            own.pop("ignore_eos", None)
        if self._owner != _LLAMA:
            own.pop("cache_prompt", None)
        body = msgspec.json.encode(
            {
                **own,
                "model": self._model,
                "messages": messages,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        return self._origin.request("/v1/chat/completions", body)

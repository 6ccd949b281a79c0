"""Any server with an OpenAI-compatible /v1/chat/completions as a target.

The stream is read from the socket, without an HTTP client between: what such a client costs per
piece would be counted as the server's. Each request has a connection of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets import facts
from llcuda_net.batch.targets.asking import asking
from llcuda_net.batch.targets.chat_request import Dialect
from llcuda_net.batch.targets.chat_stream import ChatParser, Usage
from llcuda_net.batch.targets.interface import About, Answer, Clock, embedded, overloaded_when_busy
from llcuda_net.batch.targets.software import Card, Software, identify
from llcuda_net.batch.targets.token_check import Sampled, tokens_in
from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError, Unsupported, UpstreamStalled, UpstreamUnavailable
from llcuda_net.upstream.llama.failures import upstream_failure
from llcuda_net.upstream.llama.transport.origin import Origin, decoder, unreachable
from llcuda_net.util.numbers import plain

_READ = 64 << 10
#: Pieces for each token that was asked for, and besides, after which an answer is taken for whole.
_PIECES, _MORE_PIECES = 4, 64
#: Seconds for a server to tell which software it is.
_TELL_ALL = 10.0
#: Tokens that the first request asks for. Some servers refuse fewer than 16.
_FIRST_TOKENS = 16
#: How often it is sent to a server that is busy or fails, and seconds between, if none are named.
_ATTEMPTS, _PAUSE, _LONGEST_PAUSE = 3, 1.0, 10.0
#: Bytes of the answer to the first request.
_MOST_FIRST = 4 << 20


class _Models(msgspec.Struct):
    data: list[Card]


class _Vector(msgspec.Struct):
    embedding: Any


class _Embeddings(msgspec.Struct):
    data: list[_Vector]
    usage: Usage | None = None


_embeddings = decoder(_Embeddings, "its answer is no list of embeddings")
_models = decoder(_Models, "its list of models is none")


class OpenAITarget(Sampled):
    """One server.

    Args:
        base_url: with or without /v1, or /chat/completions, at its end; with any path before.
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
        super().__init__()
        exact = base_url.rstrip("/").endswith("/chat/completions")
        base = re.sub(r"(/chat/completions)?/*$", "", base_url)
        root = re.sub(r"/v1/*$", "", base)
        url = BaseUrl.parse(root, "server", "http://127.0.0.1:8000")
        self.name = str(url)
        self._origin = Origin(url, api_key)
        #: What its paths begin with; where nothing in the URL says so, both are tried.
        self._prefixes = ["/v1"] if root != base else [""] if exact else ["/v1", ""]
        self._model = model
        self._stall = stall_timeout
        self._card = Card(model or "")
        self._headers: dict[str, str] = {}
        self._software: Software | None = None
        self._dialect = Dialect()
        self._listed = 0
        self._done = self._uncounted = self._thought = self._hidden = 0

    def __repr__(self) -> str:
        return f"<OpenAITarget {self.name}, model {self._model or 'not known yet'}>"

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._origin.aclose()

    # -- before the first measured request ----------------------------------------------------

    async def choose_model(self, *, embeds: bool = False) -> None:
        """Look the model up where none was named.

        Args:
            embeds: one that embeds, rather than one that answers.

        Raises:
            RequestError: the server cannot be reached, refuses, or lists none.
        """
        try:
            found = await self._models()
        except RequestError:
            if self._model is None:
                raise
            return  # a server without a list may serve the model all the same
        named = [each for each in found if self._model in (None, each.id)]
        if self._model is None:
            if not named:
                raise Unsupported(f"{self.name} lists no model: name one with --model")
            self._listed = len(named)
            # Servers of several models list those that only embed beside the others.
            named = [each for each in named if ("embed" in each.id.lower()) is embeds] or named
            self._model = named[0].id
        owners = [each.owned_by for each in named or found]
        self._card = named[0] if named else Card(self._model, owners[0] if owners else None)

    async def _models(self) -> list[Card]:
        with _the_server(), unreachable("the server cannot be reached"):
            for prefix in self._prefixes:
                status, headers, content = await self._origin.get("GET", f"{prefix}/models")
                if status == 200:
                    self._headers, self._prefixes = headers, [prefix]
                    return _models(content).data
                if status not in (404, 405) or prefix == self._prefixes[-1]:
                    raise upstream_failure(status, content, headers)
        raise AssertionError("there is a prefix")

    async def prepare(self, *, chat: bool = True) -> None:
        """Ask once, before anything is measured, and find out which software it is.

        A server that loads a model when it is asked has then loaded it, and what it refuses by
        name is left out from then on.

        Args:
            chat: ask for a chat; else only which software it is.

        Raises:
            RequestError: it refuses the request (it has no such model, say), or fails three times.
        """
        if chat:
            with _the_server(), unreachable("the server cannot be reached"):
                await self._ask_first()
        self._software = Software("OpenAI-compatible server", known=False)
        with trio.move_on_after(_TELL_ALL):  # what it does not tell in time stays unknown
            self._software = await identify(self._card, self._headers, asking(self._origin))
        if self._software.text_field is not None:
            self.tokenizer = "its /tokenize"

    async def _ask_first(self) -> None:
        """Send the first request until it is answered."""
        params = {"n_predict": _FIRST_TOKENS, "ignore_eos": True, "seed": 1, "cache_prompt": False}
        messages = [{"role": "user", "content": "Hello"}]
        path = f"{self._prefixes[0]}/chat/completions"
        failures = 0
        while True:
            body = self._dialect.body(messages, params, self._model, self._card.owned_by or "")
            status, headers, content = await self._origin.get(
                "POST", path, msgspec.Raw(body), most=_MOST_FIRST, timeout=self._stall
            )
            if status == 200:
                break
            if self._dialect.learn(status, content, body):
                continue
            failures += 1
            error = upstream_failure(status, content, headers)
            if failures == _ATTEMPTS or not error.retry:
                raise error
            await trio.sleep(min(error.retry_after or _PAUSE, _LONGEST_PAUSE))
        self._dialect.sent_without.clear()
        self._headers |= headers

    async def about(self) -> About:
        """The model, and what the server said of itself."""
        told = await facts.of_openai(asking(self._origin), self._model or "")
        found = self._software
        if found is None:
            owner = f" ({self._card.owned_by})" if self._card.owned_by else ""
            found = Software(f"OpenAI-compatible server{owner}")
        else:
            found.complete(told)
        model = self._model or "unknown"
        return About(model, found.slots, found.name, "openai", told["context"], told)

    # -- a request ----------------------------------------------------------------------------

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target; a prompt becomes a chat of one message.

        Output of any kind counts: text, reasoning, tool calls. Tokens are those of `usage` where
        the server sends it, else the pieces that came.
        """
        if not isinstance(prompt, str):
            raise Unsupported("this API takes no token ids")
        if "texts" in more:
            record.sent = now()
            return await self._embed(more["texts"], record)
        messages = more.get("messages") or [{"role": "user", "content": prompt}]
        body = self._dialect.body(messages, params, self._model, self._card.owned_by or "")
        request = self._origin.request(f"{self._prefixes[0]}/chat/completions", body)
        record.sent = now()
        parser = ChatParser()
        pieces: list[str] = []
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
                with _the_server():
                    if not data:
                        parser.feed_eof()
                        break
                    parser.feed(data)
                record.chunks.extend([at] * len(parser.pieces))
                pieces += parser.pieces
                parser.pieces.clear()
                if "n_predict" in params and len(pieces) > most:
                    parser.reason, parser.finished = "length", True
                if parser.complete:
                    break
        finally:
            await trio.aclose_forcefully(stream)
        if not parser.finished:
            raise UpstreamUnavailable("the server ended the answer early", retry=True)
        return self._answer(parser, record, pieces)

    async def _embed(self, texts: list[str], record: Record) -> Answer:
        """By /v1/embeddings; its tokens are those of `usage`, where the server sends it."""
        body = {"model": self._model, "input": texts}
        path = f"{self._prefixes[0]}/embeddings"
        with _the_server(), unreachable("the server cannot be reached"):
            found = await self._origin.ask("POST", path, _embeddings, body, timeout=self._stall)
        if found.usage is not None:
            record.prompt_tokens = found.usage.prompt_tokens or 0
        return embedded(record, found.data, len(texts))

    def _answer(self, parser: ChatParser, record: Record, pieces: list[str]) -> Answer:
        usage = parser.usage
        tokens = usage.completion_tokens if usage is not None else None
        # Some servers send a usage of zeros.
        record.counted = tokens is not None and (tokens > 0 or not pieces)
        record.tokens = tokens if tokens and record.counted else len(pieces)
        self._done += 1
        self._uncounted += not record.counted
        self._thought += parser.thinks
        if usage is not None:
            record.prompt_tokens = usage.prompt_tokens or 0
            record.cached_tokens = usage.cached_tokens
            self._hidden += usage.reasoning_tokens > 0 and not parser.thinks
        text = "".join(parser.texts)
        answer = Answer(text, parser.reason or "stop", parser.model, parser.id)
        if not parser.calls:  # whose text is not what was generated
            self.keep(record, answer, "".join(pieces))
        return answer

    # -- after them ---------------------------------------------------------------------------

    @property
    def by(self) -> str:  # type: ignore[override]  # of what has come
        """See Sampled."""
        return "pieces" if self._uncounted else "usage"

    async def count(self, text: str) -> int:
        """See Sampled."""
        field = self._software.text_field if self._software is not None else None
        if field is None:
            return await super().count(text)
        body = {field: text, "model": self._model}
        if field == "prompt":
            body["add_special_tokens"] = False  # type: ignore[assignment]
        with _the_server(), unreachable("the server cannot be reached"):
            return len((await self._origin.ask("POST", "/tokenize", tokens_in, body)).tokens)

    @property
    def notes(self) -> list[str]:
        """See Sampled."""
        found = list(self._dialect.notes)
        if self._listed > 1:
            found.append(
                f"the server lists {self._listed} models: {self._model} was asked"
                " (--model names another)"
            )
        if self._thought:
            found.append(
                f"{self._thought} of {self._done} answers had reasoning: it is output, and TTFT is"
                " to the first token of any kind"
            )
        if self._hidden:
            found.append(
                f"{self._hidden} of {self._done} answers had reasoning that was counted and not"
                " streamed: their first token came after it"
            )
        return found


@contextmanager
def _the_server() -> Iterator[None]:
    """Errors of a server that is nobody's upstream, in words for it."""
    try:
        with overloaded_when_busy():
            yield
    except RequestError as error:
        said = error.message.replace(
            "the upstream did not answer as a llama-server",
            "the server did not answer by the chat completions API",
        )
        error.message = said.replace("the upstream", "the server")
        error.args = (error.message,)
        raise

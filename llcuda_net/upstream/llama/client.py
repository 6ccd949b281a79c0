"""One upstream: a llama-server, by base URL.

Short requests: properties, chat templates, embeddings. And token streams, which are read by the
poller (see poller.py for why); with https a task of its own decrypts each, into the same parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import msgspec
import structlog
import trio

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import (
    InvalidRequest,
    RequestError,
    UpstreamError,
    UpstreamNotReady,
    UpstreamUnavailable,
)
from llcuda_net.upstream.interface import OnEvents, Properties, Relevance
from llcuda_net.upstream.llama import short_answers as answers
from llcuda_net.upstream.llama.chat_request import chat_body, one_call
from llcuda_net.upstream.llama.chat_stream import ChatParser
from llcuda_net.upstream.llama.failures import may_lack, nonsense
from llcuda_net.upstream.llama.poller import Poller, TokenStream
from llcuda_net.upstream.llama.properties import properties_of
from llcuda_net.upstream.llama.sse import FINAL_FIELDS, ResponseParser, longest_event
from llcuda_net.upstream.llama.streams import Streams
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.llama.transport.origin import (
    MAX_BODY,
    SHORT_TIMEOUT,
    Origin,
    not_there,
)
from llcuda_net.upstream.prompts import prefix_cache
from llcuda_net.upstream.prompts.rendered import RenderedPrompts
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: What every llama-server has: one that has not is none, or is not there.
_VITAL = frozenset({"/completion", "/health", "/props", "/slots"})
#: Seconds for texts to be embedded, or ranked.
EMBED_TIMEOUT = 600.0
#: Seconds for an upstream to refuse what is empty.
_GLANCE = 2.0
#: What a llama-server answers to a token id that its vocabulary does not have: the words of the C++
#: library that it was built with.
_NO_TOKEN = re.compile(r"answered 500: .*(?:vector|range|map|token)", re.IGNORECASE)
#: Begins with c where the grammar was advanced, and with a where it was not.
_PROBE = {
    "prompt": "ab",
    "generation_prompt": "ab",
    "grammar": 'root ::= "ab" "cd"',
    "grammar_type": "tool_calls",
    "n_predict": 4,
    "temperature": 0,
    "cache_prompt": False,
}
_T = TypeVar("_T")


class LlamaServer:
    """Requests to one llama-server.

    Args:
        base_url: such as http://127.0.0.1:8080; may change later, when an engine restarts. Its user
            and password go with every request, and are never shown.
        poller: reads the token streams.
        api_key: sent as a bearer token, where the upstream wants one.
        timeouts: how long it may be silent while it completes.
        model: which of its models is meant, of one in router mode; None: it has one.

    Raises:
        ConfigError: the URL is none, or there are two kinds of credentials.
    """

    def __init__(
        self,
        base_url: str,
        poller: Poller,
        *,
        api_key: str | None = None,
        timeouts: StreamTimeouts | None = None,
        model: str | None = None,
    ) -> None:
        self._origin = Origin(BaseUrl.parse(base_url), api_key, model)
        self._timeouts = timeouts or StreamTimeouts()
        self._streams = Streams(self._origin, poller, self._timeouts)
        self._properties: Properties | None = None
        self._advances: bool | None = None
        self._rendered = RenderedPrompts()
        self._overran = False
        #: Set while it is our own engine and known not to be there.
        self.starting = False

    @property
    def base_url(self) -> str:
        """Where it is; without a user and password, since it is logged and reported."""
        return str(self._origin)

    @base_url.setter
    def base_url(self, value: str) -> None:
        self._origin.move(BaseUrl.parse(value))
        self.forget()

    @property
    def properties(self) -> Properties | None:
        """What it last said of itself; None while that is not known."""
        return self._properties

    def forget(self) -> None:
        """Ask for the properties again next time: another process may answer then."""
        self._properties = self._advances = None
        self._rendered.clear()
        self._origin.connections.drop()

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._origin.aclose()

    @property
    def origin(self) -> Origin:
        """Where short requests go, for those of which this class knows nothing."""
        return self._origin

    # -- short requests -----------------------------------------------------------------------

    async def ask(self) -> Properties:
        """Its properties, from memory where they are known.

        Raises:
            RequestError: it cannot be reached, is still loading, or is no llama-server.
        """
        if self._properties is None:
            self._properties = await self._short("GET", "/props", properties_of)
            self._origin.connections.slots = self._properties.slots
        return self._properties

    async def reranks(self) -> bool:
        """Whether it ranks documents; see Upstream.reranks. Its properties do not say so.

        One that does misses the query in an empty request; any other refuses it before. Nothing is
        computed for that.
        """
        try:
            await self._origin.ask("POST", "/rerank", answers.nothing, {}, timeout=_GLANCE)
        except InvalidRequest as error:
            return "query" in error.message
        except RequestError:
            pass
        return False

    async def check(self) -> None:
        """Return if it answers, and takes work, now. Closes connections that nobody has needed, and
        forgets prompts that were rendered too long ago.

        Raises:
            RequestError: as `ask`.
        """
        self._rendered.expire(trio.current_time())
        await self._short("GET", "/health", answers.health)

    async def slots(self) -> list[bool] | None:
        """Whether each slot works, by number; None where the upstream does not tell.

        Raises:
            RequestError: as `ask`.
        """
        try:
            answer = await self._short("GET", "/slots", answers.slots)
        except RequestError as error:
            if error.code == ErrorCode.UPSTREAM_UNAVAILABLE:
                raise
            return None  # it was started without them
        found = {slot.id: slot.is_processing for slot in answer}
        if sorted(found) != list(range(len(found))):
            return None
        return [found[number] for number in range(len(found))]

    async def render(
        self, messages: list[dict[str, Any]], options: dict[str, Any] | None = None
    ) -> str:
        """The prompt that the model's chat template makes of the messages; see Upstream.render.

        Raises:
            RequestError: as `ask`, or the template refuses them.
        """
        body = {"messages": messages} if options is None else chat_body(messages, options, {})
        steady = self._properties is not None and self._properties.steady
        asked = msgspec.json.encode(body) if steady else b""
        now = trio.current_time()
        if steady and (known := self._rendered.find(asked, now)) is not None:
            return known
        prompt = (await self._short("POST", "/apply-template", answers.prompt, body)).prompt
        if steady:
            self._rendered.keep(asked, prompt, now)
        return prompt

    async def infill(self, before: str, after: str, params: dict[str, Any]) -> list[int]:
        """The ids of a prompt for the gap between two texts; see Upstream.infill.

        Raises:
            RequestError: as `ask`, or the model has no marks for that.
        """
        # Only /infill knows the marks, and how much of a text fits. It makes one token at least,
        # which is thrown away; what it has read stays in the slot.
        body = {
            "input_prefix": before,
            "input_suffix": after,
            "n_predict": 0,
            "response_fields": ["prompt"],
            **params,
        }
        most = MAX_BODY + 6 * len(before + after)  # characters, escaped
        answer = await self._short(
            "POST", "/infill", answers.prompt, body, most=most, timeout=EMBED_TIMEOUT
        )
        return await self.tokenize(answer.prompt, special=False)

    async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]:
        """The ids of a text; see Upstream.tokenize.

        Raises:
            RequestError: as `ask`.
        """
        body = {"content": text, "add_special": special, "parse_special": not literal}
        # A token is a byte of the text at least, and its id some digits and a comma.
        most = (64 << 10) + 16 * len(text.encode("utf-8", "surrogatepass"))
        return (await self._short("POST", "/tokenize", answers.tokens, body, most=most)).tokens

    async def tokens(
        self, content: str | list[str | int], *, special: bool, literal: bool, pieces: bool
    ) -> bytes:
        """The tokens of a text as JSON; see Upstream.tokens.

        Raises:
            RequestError: as `ask`.
        """
        body = {
            "content": content,
            "add_special": special,
            "parse_special": not literal,
            "with_pieces": pieces,
        }
        size = sum(_size(one) for one in ([content] if isinstance(content, str) else content))
        most = (64 << 10) + (64 if pieces else 16) * size
        return await self._short("POST", "/tokenize", answers.tokens_as_json, body, most=most)

    async def detokenize(self, ids: list[int]) -> str:
        """The text of ids; see Upstream.detokenize.

        Raises:
            RequestError: as `ask`, or the model has no such token.
        """
        try:
            answer = await self._short("POST", "/detokenize", answers.content, {"tokens": ids})
        except UpstreamError as error:
            if not _NO_TOKEN.search(error.message):
                raise
            raise InvalidRequest(
                "the vocabulary of the model does not have all of these token ids"
            ) from None
        return answer.content

    async def rerank(self, query: str, documents: list[str]) -> Relevance:
        """How well each document answers a query; see Upstream.rerank.

        Raises:
            RequestError: as `ask`, or the upstream was started without reranking.
        """
        body = {"query": query, "documents": documents}
        return await self._short(
            "POST",
            "/rerank",
            lambda data: answers.relevance(data, len(documents)),
            body,
            timeout=EMBED_TIMEOUT,
        )

    async def embed(self, texts: list[Any]) -> list[list[list[float]]]:
        """For each text its rows; see Upstream.embed.

        Raises:
            RequestError: as `ask`, or the upstream was started without embeddings.
        """
        found = await self._short(
            "POST",
            "/embedding",
            answers.rows,
            {"content": texts},
            most=answers.MAX_VECTORS,
            timeout=EMBED_TIMEOUT,
        )
        if len(found) != len(texts):
            raise nonsense(f"/embedding gave no vectors for {len(texts)} texts, but {len(found)}")
        return found

    async def _short(
        self,
        method: str,
        path: str,
        decode: Callable[[bytes], _T],
        body: Any = None,
        *,
        most: int = MAX_BODY,
        timeout: float = SHORT_TIMEOUT,
    ) -> _T:
        with self._reached(), nullcontext() if path in _VITAL else may_lack(path):
            return await self._origin.ask(method, path, decode, body, most=most, timeout=timeout)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Encloses requests: where the upstream is not there, another process may answer next."""
        if self.starting:
            raise not_there("the engine is starting again")
        try:
            yield
        except UpstreamNotReady:
            raise
        except UpstreamUnavailable:
            self.forget()
            raise

    async def advances_grammars(self) -> bool:
        """Whether it takes up a grammar behind a text; see Upstream.advances_grammars.

        Raises:
            RequestError: as `ask`.
        """
        if self._advances is None:
            answer = await self._short("POST", "/completion", answers.content, _PROBE)
            self._advances = answer.content.startswith("c")
        return self._advances

    # -- token streams ------------------------------------------------------------------------

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> str | None:
        """Stream a completion; returns after the last event.

        See `Upstream.complete`.

        Raises:
            RequestError: the upstream cannot be reached, refuses, fails, stalls, or is nonsense.
        """
        body = msgspec.json.encode(
            {
                **params,
                "prompt": prompt,
                "stream": True,
                "return_tokens": True,
                "response_fields": FINAL_FIELDS,
            }
        )
        longest = longest_event(len(body), int(params.get("n_probs") or 0))

        def make_sink() -> TokenStream:
            return TokenStream(on_events, _most(params), ResponseParser(longest))

        request = self._origin.request("/completion", body)
        first = self._timeouts.for_first(prompt)
        return self._note(await self._stream(request, make_sink, first, on_sent))

    async def chat(
        self,
        messages: list[dict[str, Any]],
        options: dict[str, Any],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> str | None:
        """Stream the answer to a chat; returns after the last event.

        See `Upstream.chat`.

        Raises:
            RequestError: as `complete`.
        """
        body = msgspec.json.encode(chat_body(messages, options, params))
        longest = longest_event(len(body), int(params.get("n_probs") or 0))
        stops, alone = params.get("stop") or (), one_call(options)

        def make_sink() -> TokenStream:
            parser = ChatParser(longest, stops=stops, one_call=alone)
            return TokenStream(on_events, _most(params), parser)

        path = "/v1/chat/completions"
        request = self._origin.request(path, body)
        first = self._timeouts.for_first(prefix_cache.text_of(None, messages))
        with may_lack(path):
            sink = await self._stream(request, make_sink, first, on_sent)
        if isinstance(sink.parser, ChatParser) and sink.parser.cut:
            return "the upstream made a second tool call, where one was asked for: stopped"
        return self._note(sink)

    async def _stream(
        self,
        request: bytes,
        make_sink: Callable[[], TokenStream],
        first: float,
        on_sent: Callable[[], None],
    ) -> TokenStream:
        with self._reached():
            return await self._streams.run(request, make_sink, first, on_sent)

    def _note(self, sink: TokenStream) -> str | None:
        """What is to be said of an answer that was cut off."""
        if not sink.limit.exceeded:
            return None
        note = f"the upstream made more tokens than n_predict: stopped at {sink.limit.most}"
        if not self._overran:
            self._overran = True
            log.warning("upstream_ignores_n_predict", upstream=self.base_url, note=note)
        return note


def _size(part: str | int) -> int:
    """How many tokens a part of a content may have, at most: one per byte of a text."""
    return 1 if isinstance(part, int) else len(part.encode("utf-8", "surrogatepass"))


def _most(params: dict[str, Any]) -> int | None:
    """Tokens that an answer may have; None: any number."""
    most = params.get("n_predict")
    return most if isinstance(most, int) and most >= 0 else None

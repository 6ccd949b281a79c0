"""One upstream: a llama-server, by base URL.

Short requests: properties, chat templates, embeddings. And token streams, which are read by the
poller (see poller.py for why); with https a task of its own decrypts each, into the same parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
import trio
from msgspec import Meta

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import RequestError, UpstreamNotReady, UpstreamUnavailable
from llcuda_net.upstream import prefix_cache
from llcuda_net.upstream.interface import OnEvents, Properties
from llcuda_net.upstream.llama.chat_request import chat_body, one_call
from llcuda_net.upstream.llama.chat_stream import ChatParser
from llcuda_net.upstream.llama.failures import nonsense
from llcuda_net.upstream.llama.poller import Poller, TokenStream
from llcuda_net.upstream.llama.properties import properties_of
from llcuda_net.upstream.llama.sse import FINAL_FIELDS, ResponseParser, longest_event
from llcuda_net.upstream.llama.streams import Streams
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.llama.transport.origin import (
    MAX_BODY,
    SHORT_TIMEOUT,
    Origin,
    decoder,
    not_there,
)
from llcuda_net.upstream.rendered import RenderedPrompts
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Most bytes of vectors in one answer, and most numbers: each takes 32 bytes here.
MAX_VECTORS, MOST_NUMBERS = 64 << 20, 4 << 20
#: Seconds for texts to be embedded.
EMBED_TIMEOUT = 600.0
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


# What is needed of each answer: the rest is passed over, and takes no memory.


class _Slot(msgspec.Struct):
    id: int
    is_processing: bool


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[Annotated[int, Meta(ge=0)]]


class _Content(msgspec.Struct):
    content: str


class _Row(msgspec.Struct):
    embedding: Annotated[list[float | list[float]], Meta(min_length=1)]


_health = decoder(msgspec.Raw, "/health is not JSON")
_slots = decoder(list[_Slot], "/slots gave no slots")
_prompt = decoder(_Prompt, "/apply-template gave no prompt")
_tokens = decoder(_Tokens, "/tokenize gave no tokens")
_content = decoder(_Content, "/detokenize gave no text")
_rows = decoder(list[_Row], "/embedding gave no vectors")


class LlamaServer:
    """Requests to one llama-server.

    Args:
        base_url: such as http://127.0.0.1:8080; may change later, when an engine restarts. Its user
            and password go with every request, and are never shown.
        poller: reads the token streams.
        api_key: sent as a bearer token, where the upstream wants one.
        timeouts: how long it may be silent while it completes.

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
    ) -> None:
        self._origin = Origin(BaseUrl.parse(base_url), api_key)
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
        return str(self._origin.url)

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

    async def check(self) -> None:
        """Return if it answers, and takes work, now. Closes connections that nobody has needed.

        Raises:
            RequestError: as `ask`.
        """
        await self._short("GET", "/health", _health)

    async def slots(self) -> list[bool] | None:
        """Whether each slot works, by number; None where the upstream does not tell.

        Raises:
            RequestError: as `ask`.
        """
        try:
            answer = await self._short("GET", "/slots", _slots)
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
        prompt = (await self._short("POST", "/apply-template", _prompt, body)).prompt
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
            "POST", "/infill", _prompt, body, most=most, timeout=EMBED_TIMEOUT
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
        return (await self._short("POST", "/tokenize", _tokens, body, most=most)).tokens

    async def detokenize(self, ids: list[int]) -> str:
        """The text of ids; see Upstream.detokenize.

        Raises:
            RequestError: as `ask`.
        """
        return (await self._short("POST", "/detokenize", _content, {"tokens": ids})).content

    async def embed(self, texts: list[Any]) -> list[list[list[float]]]:
        """For each text its rows; see Upstream.embed.

        Raises:
            RequestError: as `ask`, or the upstream was started without embeddings.
        """

        def decode(data: bytes) -> list[_Row]:
            if data.count(b",") > MOST_NUMBERS:
                raise nonsense(f"/embedding gave more than {MOST_NUMBERS} numbers")
            return _rows(data)

        answer = await self._short(
            "POST",
            "/embedding",
            decode,
            {"content": texts},
            most=MAX_VECTORS,
            timeout=EMBED_TIMEOUT,
        )
        found = [_rows_of(entry.embedding) for entry in answer]
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
        with self._reached():
            return await self._origin.ask(method, path, decode, body, most=most, timeout=timeout)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Encloses requests: where the upstream is not there, another process may answer next."""
        if self.starting:
            raise not_there("the built-in engine is starting again")
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
            answer = await self._short("POST", "/completion", _content, _PROBE)
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

        request = self._origin.request("/v1/chat/completions", body)
        first = self._timeouts.for_first(prefix_cache.text_of(None, messages))
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


def _most(params: dict[str, Any]) -> int | None:
    """Tokens that an answer may have; None: any number."""
    most = params.get("n_predict")
    return most if isinstance(most, int) and most >= 0 else None


def _rows_of(values: list[float | list[float]]) -> list[list[float]]:
    """The rows of a text: a vector that is not in a list is the only one."""
    rows = [value for value in values if isinstance(value, list)]
    if not rows:
        return [[value for value in values if not isinstance(value, list)]]
    if len(rows) < len(values):
        raise nonsense("/embedding gave no vectors (but numbers beside them)")
    return rows

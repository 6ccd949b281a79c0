"""One upstream: a llama-server, by base URL.

httpx carries everything but the token stream: properties, chat templates, embeddings. The token
stream of a plain http upstream is read by the hub (see hub.py for why); with https it comes
through httpx, too.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import httpx
import msgspec
import structlog
import trio

from llcuda_net.errors import ConfigError, RequestError, UpstreamUnavailable
from llcuda_net.upstream.interface import OnEvents, Properties
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.sse import FINAL_FIELDS, EventParser, nonsense, upstream_failure
from llcuda_net.upstream.llama.token_stream import (
    LeanStream,
    StreamTimeouts,
    send_now,
    stalled,
    unwind,
)
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds for a connection to be made, and for a short request to be answered.
CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 30.0
#: Seconds to wait before a client tries again when the upstream is not there.
RETRY_AFTER = 1.0
#: Slots that one upstream may have: each takes memory here, whatever it says.
MOST_SLOTS = 4096
#: Seconds for the body's end after the last event.
_BODY_END = 1.0


class LlamaServer:
    """Requests to one llama-server.

    Args:
        base_url: such as http://127.0.0.1:8080; may change later, when an engine restarts.
        hub: reads the token streams.
        api_key: sent as a bearer token, where the upstream wants one.
        patience: how long it may say nothing while it completes.
    """

    def __init__(
        self,
        base_url: str,
        poller: Poller,
        *,
        api_key: str | None = None,
        patience: StreamTimeouts | None = None,
    ) -> None:
        self._poller = poller
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._patience = patience or StreamTimeouts()
        self._properties: Properties | None = None
        #: Set while it is our own engine and known not to be there.
        self.starting = False
        self.base_url = base_url
        secure = self._url.scheme == "https"
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(SHORT_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers=self._headers,
            # HTTP_PROXY and netrc are not for a server next door, whose token stream ignores them;
            # and certificates take a while to load.
            trust_env=secure,
            verify=secure,
        )

    @property
    def base_url(self) -> str:
        """Where it is; without a user and password, since it is logged and reported."""
        return _without_user(self._base_url)

    @base_url.setter
    def base_url(self, value: str) -> None:
        base = value.rstrip("/")
        try:
            url = httpx.URL(base)
            url.host.encode("idna")
        except (httpx.InvalidURL, UnicodeError):
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigError(
                f"upstream {_without_user(value)!r} is not a URL such as http://127.0.0.1:8080; "
                "correct it"
            )
        self._base_url = base
        self._url = url
        self._properties = None

    @property
    def properties(self) -> Properties | None:
        """What it last said of itself; None while that is not known."""
        return self._properties

    def forget(self) -> None:
        """Ask for the properties again next time: another process may answer then."""
        self._properties = None

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._http.aclose()

    # -- short requests -----------------------------------------------------------------------

    async def ask(self) -> Properties:
        """Its properties, from memory where they are known.

        Raises:
            RequestError: it cannot be reached, is still loading, or is no llama-server.
        """
        if self._properties is None:
            answer = await self._short("GET", "/props", None)
            try:
                settings = answer["default_generation_settings"]
                path = str(answer.get("model_path") or "")
                self._properties = Properties(
                    model=str(answer.get("model_alias") or PurePath(path).name or "unknown")[:256],
                    slots=min(max(1, int(answer["total_slots"])), MOST_SLOTS),
                    context=max(1, int(settings["n_ctx"])),
                    has_template=bool(answer.get("chat_template")),
                    build=str(answer.get("build_info", "")),
                    path=path,
                    quantisation=str(answer.get("model_ftype") or ""),
                )
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise nonsense(f"/props lacks {error}") from None
        return self._properties

    async def check(self) -> None:
        """Return if it answers, and takes work, now.

        Raises:
            RequestError: as `ask`.
        """
        await self._short("GET", "/health", None)

    async def slots(self) -> list[bool] | None:
        """Whether each slot works, by number; None where the upstream does not tell.

        Raises:
            RequestError: as `ask`.
        """
        try:
            answer = await self._short("GET", "/slots", None)
            found = {int(slot["id"]): bool(slot["is_processing"]) for slot in answer}
            return [found[number] for number in range(len(found))]
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        except RequestError as error:
            if error.code == ErrorCode.UPSTREAM_UNAVAILABLE:
                raise
            return None  # it was started without them

    async def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the model's chat template makes of the messages.

        Raises:
            RequestError: as `ask`, or the template refuses them.
        """
        answer = await self._short("POST", "/apply-template", {"messages": messages})
        prompt = answer.get("prompt") if isinstance(answer, dict) else None
        if not isinstance(prompt, str):
            raise nonsense("/apply-template gave no prompt")
        return prompt

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The ids of a text; see Upstream.tokenize.

        Raises:
            RequestError: as `ask`.
        """
        body = {"content": text, "add_special": special, "parse_special": True}
        answer = await self._short("POST", "/tokenize", body)
        ids = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
            raise nonsense("/tokenize gave no tokens")
        return ids

    async def detokenize(self, ids: list[int]) -> str:
        """The text of ids; see Upstream.detokenize.

        Raises:
            RequestError: as `ask`.
        """
        answer = await self._short("POST", "/detokenize", {"tokens": ids})
        text = answer.get("content") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise nonsense("/detokenize gave no text")
        return text

    async def embed(self, texts: list[str]) -> list[list[list[float]]]:
        """For each text its rows: one where the upstream pools, else one a token.

        Raises:
            RequestError: as `ask`, or the upstream was started without embeddings.
        """
        answer = await self._short("POST", "/embedding", {"content": texts}, timeout=600.0)
        try:
            found = [entry["embedding"] for entry in answer]
            rows = [row if isinstance(row[0], list) else [row] for row in found]
            if len(rows) == len(texts):
                return rows
        except (KeyError, TypeError, IndexError):
            pass
        raise nonsense("/embedding gave no vectors")

    async def _short(
        self, method: str, path: str, body: Any, timeout: float = SHORT_TIMEOUT
    ) -> Any:
        with self._unreachable():
            reply = await self._http.request(
                method, self._base_url + path, json=body, timeout=timeout
            )
        if reply.status_code != 200:
            raise upstream_failure(reply.status_code, reply.content)
        try:
            return msgspec.json.decode(reply.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise nonsense(f"{path} is not JSON") from None

    @contextlib.contextmanager
    def _unreachable(self) -> Any:
        """Turns every failure of the transport into the one error that clients see."""
        if self.starting:
            raise _not_there("the built-in engine is starting again")
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, OSError, trio.BrokenResourceError) as error:
            self.forget()
            raise self._lost(f"cannot be reached: {_reason(error)}") from None

    def _lost(self, what: str) -> RequestError:
        return _not_there(f"the upstream {what}")

    # -- the token stream ---------------------------------------------------------------------

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
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
        first = self._patience.for_first(prompt)
        if self._url.scheme == "http":
            await self._complete_lean(body, on_events, on_sent, first)
        else:
            await self._complete_httpx(body, on_events, on_sent, first)

    async def _complete_lean(
        self, body: bytes, on_events: OnEvents, on_sent: Callable[[], None], first: float
    ) -> None:
        sock = await self._request(body, on_sent)
        stream = LeanStream(on_events)
        try:
            self._poller.add(sock, stream)
            await stream.watch(self._patience, first)
        finally:
            self._poller.remove(sock)
            sock.close()
        if stream.failure is not None:
            raise stream.failure
        if not stream.parser.finished:
            self.forget()
            raise self._lost(f"was lost in the middle of the answer: {stream.lost}")

    async def _request(self, body: bytes, on_sent: Callable[[], None]) -> socket.socket:
        """A connected socket on which the request was sent."""
        host, port = self._url.host, self._url.port or 80
        path = self._url.raw_path.decode("ascii").rstrip("/")
        lines = [
            f"POST {path}/completion HTTP/1.1",
            f"Host: {self._url.netloc.decode('ascii')}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self._headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode()
        with self._unreachable():
            try:
                with trio.fail_after(CONNECT_TIMEOUT):
                    stream = await trio.open_tcp_stream(host, port)
            except trio.TooSlowError:
                raise OSError(f"no connection within {CONNECT_TIMEOUT:g} s") from None
            try:
                await send_now(stream, head + body, on_sent)
                sock = socket.socket(fileno=stream.socket.detach())
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        sock.setblocking(False)
        return sock

    async def _complete_httpx(
        self, body: bytes, on_events: OnEvents, on_sent: Callable[[], None], first: float
    ) -> None:
        parser = EventParser()
        # Not compressed: the body is read as it comes.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        url = self._base_url + "/completion"

        async def trace(event: str, info: dict[str, Any]) -> None:
            # The headers of the answer come with its first token, too late to tell this.
            if event.endswith("send_request_body.complete"):
                on_sent()

        with self._unreachable(), _in_time(first):
            # The headers come with the first token: the prompt is read before.
            with trio.fail_after(first) as waiting:
                async with self._http.stream(
                    "POST",
                    url,
                    content=body,
                    headers=headers,
                    timeout=timeout,
                    extensions={"trace": trace},
                ) as reply:
                    waiting.deadline = math.inf
                    if reply.status_code != 200:
                        raise upstream_failure(reply.status_code, await reply.aread())
                    await self._read_events(reply, parser, on_events, first)
        if not parser.finished:
            self.forget()
            raise self._lost("was lost in the middle of the answer")

    def _pass_on(self, parser: EventParser, on_events: OnEvents) -> None:
        if parser.events:
            events, parser.events = parser.events, []
            on_events(events)
            self._poller.after_batch()

    async def _read_events(
        self, reply: httpx.Response, parser: EventParser, on_events: OnEvents, first: float
    ) -> None:
        limit = first
        chunks = reply.aiter_raw()
        while True:
            chunk = None
            with trio.move_on_after(limit) as scope:
                chunk = await anext(chunks, None)
            if scope.cancelled_caught and not parser.finished:
                raise stalled(limit)
            if chunk is None:
                return
            try:
                parser.feed(chunk)
            except RequestError:
                self._pass_on(parser, on_events)
                await unwind(chunks)
                raise
            self._pass_on(parser, on_events)
            # What is left then is the end of the body, by which the connection can be kept.
            limit = _BODY_END if parser.finished else self._patience.stall


@contextlib.contextmanager
def _in_time(seconds: float) -> Any:
    try:
        yield
    except trio.TooSlowError:
        raise stalled(seconds, "first token") from None


def _not_there(message: str) -> RequestError:
    return UpstreamUnavailable(message, retry=True, retry_after=RETRY_AFTER)


def _without_user(url: str) -> str:
    return re.sub(r"//.*@", "//", url)


def _reason(error: BaseException) -> str:
    """Why there is no connection: the system's words, or else the first in the chain.

    httpx's own words are often empty, and trio's are that all attempts failed.
    """
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None:
        chain.append(found)
        if isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        else:
            found = found.__cause__ or found.__context__
    for each in chain:
        if isinstance(each, ssl.SSLError | socket.gaierror) and each.strerror:
            return each.strerror
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno).lower()
    return next(
        (text[:300] for e in chain if (text := " ".join(str(e).split()))), "no reason given"
    )

"""One upstream: a llama-server, by base URL.

httpx carries everything but the token stream: properties, chat templates, embeddings. The token
stream of a plain http upstream is read by the hub (see hub.py for why); with https it comes
through httpx, too.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import PurePath
from typing import Any

import httpx
import msgspec
import structlog
import trio

from llcuda_net.errors import ConfigError, RequestError
from llcuda_net.upstream.completion import (
    FINAL_FIELDS,
    EventParser,
    ResponseParser,
    nonsense,
    upstream_failure,
)
from llcuda_net.upstream.hub import StreamHub
from llcuda_net.upstream.interface import OnEvents, Properties
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds for a connection to be made, and for a short request to be answered.
CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 30.0
#: Seconds to wait before a client tries again when the upstream is not there.
RETRY_AFTER = 1.0

class LlamaServer:
    """Requests to one llama-server.

    Args:
        base_url: such as http://127.0.0.1:8080; may change later, when an engine restarts.
        hub: reads the token streams.
        api_key: sent as a bearer token, where the upstream wants one.
        stall_timeout: seconds without a token, once tokens flow, before the stream is given up.
    """

    def __init__(
        self,
        base_url: str,
        hub: StreamHub,
        *,
        api_key: str | None = None,
        stall_timeout: float = 60.0,
    ) -> None:
        self._hub = hub
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._stall_timeout = stall_timeout
        self._properties: Properties | None = None
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(SHORT_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers=self._headers,
        )
        self.base_url = base_url

    @property
    def base_url(self) -> str:
        """Where it is."""
        return self._base_url

    @base_url.setter
    def base_url(self, value: str) -> None:
        self._base_url = value.rstrip("/")
        url = httpx.URL(self._base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(
                f"upstream {value!r} is not a URL such as http://127.0.0.1:8080; correct it"
            )
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
                    model=str(answer.get("model_alias") or PurePath(path).name or "unknown"),
                    slots=max(1, int(answer["total_slots"])),
                    context=int(settings["n_ctx"]),
                    has_template=bool(answer.get("chat_template")),
                    build=str(answer.get("build_info", "")),
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise nonsense(f"/props lacks {error}") from None
        return self._properties

    async def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the model's chat template makes of the messages.

        Raises:
            RequestError: as `ask`, or the template refuses them.
        """
        answer = await self._short("POST", "/apply-template", {"messages": messages})
        prompt = answer.get("prompt")
        if not isinstance(prompt, str):
            raise nonsense("/apply-template gave no prompt")
        return prompt

    async def embed(self, texts: list[str]) -> list[list[list[float]]]:
        """For each text its rows: one where the upstream pools, else one a token.

        Raises:
            RequestError: as `ask`, or the upstream was started without embeddings.
        """
        answer = await self._short("POST", "/embedding", {"content": texts}, timeout=600.0)
        try:
            rows = [entry["embedding"] for entry in answer]
            if len(rows) == len(texts) and all(row and row[0] for row in rows):
                return [row if isinstance(row[0], list) else [row] for row in rows]
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
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise nonsense(f"{path} is not JSON") from None

    @contextlib.contextmanager
    def _unreachable(self) -> Any:
        """Turns every failure of the transport into the one error that clients see."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, OSError, trio.BrokenResourceError) as error:
            self.forget()
            reason = str(error) or type(error).__name__
            raise self._lost(f"cannot be reached: {reason}") from None

    def _lost(self, what: str) -> RequestError:
        return RequestError(
            ErrorCode.UPSTREAM_UNAVAILABLE,
            f"the upstream {what}",
            retry=True,
            retry_after=RETRY_AFTER,
        )

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
        if self._url.scheme == "http":
            await self._complete_lean(body, on_events, on_sent)
        else:
            await self._complete_httpx(body, on_events, on_sent)

    async def _complete_lean(
        self, body: bytes, on_events: OnEvents, on_sent: Callable[[], None]
    ) -> None:
        sock = await self._request(body)
        stream = _LeanStream(on_events)
        try:
            on_sent()
            self._hub.add(sock, stream)
            await self._watch(stream)
        finally:
            self._hub.remove(sock)
            sock.close()
        if stream.failure is not None:
            raise stream.failure
        if not stream.parser.finished:
            self.forget()
            raise self._lost(f"was lost in the middle of the answer: {stream.lost}")

    async def _request(self, body: bytes) -> socket.socket:
        """A connected socket on which the request was sent."""
        host, port = self._url.host, self._url.port or 80
        authority = f"[{host}]" if ":" in host else host
        lines = [
            f"POST {self._url.path.rstrip('/')}/completion HTTP/1.1",
            f"Host: {authority}:{port}",
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
                await stream.send_all(head + body)
                sock = socket.socket(fileno=stream.socket.detach())
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        sock.setblocking(False)
        return sock

    async def _watch(self, stream: _LeanStream) -> None:
        """Wait for the end, looking now and then whether tokens still come."""
        while True:
            seen = stream.batches
            with trio.move_on_after(self._stall_timeout) as scope:
                await stream.ended.wait()
            if not scope.cancelled_caught:
                return
            if seen and seen == stream.batches:
                raise self._stalled()

    def _stalled(self) -> RequestError:
        return RequestError(
            ErrorCode.UPSTREAM_STALLED,
            f"the upstream sent no token for {self._stall_timeout:g} s",
            retry=True,
        )

    async def _complete_httpx(
        self, body: bytes, on_events: OnEvents, on_sent: Callable[[], None]
    ) -> None:
        parser = EventParser()
        headers = {"Content-Type": "application/json"}
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        url = self._base_url + "/completion"
        with self._unreachable():
            async with self._http.stream(
                "POST", url, content=body, headers=headers, timeout=timeout
            ) as reply:
                on_sent()
                if reply.status_code != 200:
                    raise upstream_failure(reply.status_code, await reply.aread())
                chunks = reply.aiter_raw()
                async for chunk in self._unless_stalled(chunks):
                    parser.feed(chunk)
                    if parser.events:
                        events, parser.events = parser.events, []
                        on_events(events)
                        self._hub.after_batch()
        if not parser.finished:
            self.forget()
            raise self._lost("was lost in the middle of the answer")

    async def _unless_stalled(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        limit = float("inf")  # the first token may take long: the prompt is read before it
        while True:
            try:
                with trio.fail_after(limit):
                    chunk = await anext(chunks, None)
            except trio.TooSlowError:
                raise self._stalled() from None
            if chunk is None:
                return
            limit = self._stall_timeout
            yield chunk


class _LeanStream:
    """Sink of one token stream: parses what the hub reads."""

    def __init__(self, on_events: OnEvents) -> None:
        self.parser = ResponseParser()
        self.ended = trio.Event()
        self.failure: RequestError | None = None
        self.lost = ""
        self.batches = 0
        self._on_events = on_events

    def data_received(self, data: bytes) -> None:
        if self.ended.is_set():
            return
        parser = self.parser
        try:
            parser.feed_response(data)
        except RequestError as error:
            self.failure = error
        if parser.events:
            events, parser.events = parser.events, []
            self.batches += 1
            self._on_events(events)
        if self.failure is not None or parser.finished or parser.complete:
            self.lost = "it ended the answer early"
            self.ended.set()

    def connection_lost(self, reason: str) -> None:
        self.lost = reason
        self.ended.set()

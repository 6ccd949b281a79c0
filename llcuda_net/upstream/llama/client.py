"""One upstream: a llama-server, by base URL.

httpx carries everything but the token stream: properties, chat templates, embeddings. The token
stream is read by the poller (see poller.py for why); with https a task of its own decrypts it, into
the same parser.
"""

from __future__ import annotations

import base64
import contextlib
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
from llcuda_net.upstream.llama.poller import Poller, TokenStream
from llcuda_net.upstream.llama.sse import FINAL_FIELDS, nonsense, upstream_failure
from llcuda_net.upstream.llama.token_stream import StreamTimeouts, send_now
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds for a connection to be made, and for a short request to be answered.
CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 30.0
#: Seconds to wait before a client tries again when the upstream is not there.
RETRY_AFTER = 1.0
#: Slots that one upstream may have: each takes memory here, whatever it says.
MOST_SLOTS = 4096
_READ = 64 << 10


class LlamaServer:
    """Requests to one llama-server.

    Args:
        base_url: such as http://127.0.0.1:8080; may change later, when an engine restarts.
        poller: reads the token streams.
        api_key: sent as a bearer token, where the upstream wants one.
        timeouts: how long it may be silent while it completes.
    """

    def __init__(
        self,
        base_url: str,
        poller: Poller,
        *,
        api_key: str | None = None,
        timeouts: StreamTimeouts | None = None,
    ) -> None:
        self._poller = poller
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeouts = timeouts or StreamTimeouts()
        self._properties: Properties | None = None
        #: Set while it is our own engine and known not to be there.
        self.starting = False
        self.base_url = base_url
        secure = self._url.scheme == "https"
        self._default_port = 443 if secure else 80
        # SSL_CERT_FILE and SSL_CERT_DIR hold for both ways.
        self._tls = httpx.create_ssl_context() if secure else None
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(SHORT_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers=self._headers,
            # HTTP_PROXY and netrc are not for a server next door, whose token stream ignores them;
            # and certificates take a while to load.
            trust_env=secure,
            verify=False if self._tls is None else self._tls,
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

    async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]:
        """The ids of a text; see Upstream.tokenize.

        Raises:
            RequestError: as `ask`.
        """
        body = {"content": text, "add_special": special, "parse_special": not literal}
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
        first = self._timeouts.for_first(prompt)
        sink = TokenStream(on_events)
        with self._unreachable():
            stream = await self._connect()
            try:
                await send_now(stream, self._head(len(body)) + body, on_sent)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        if isinstance(stream, trio.SSLStream):
            await self._read_tls(stream, sink, first)
        else:
            await self._read_plain(stream, sink, first)
        if sink.failure is not None:
            raise sink.failure
        if not sink.parser.finished:
            self.forget()
            raise self._lost(f"was lost in the middle of the answer: {sink.lost}")

    async def _connect(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        """A connection for one token stream."""
        host = self._url.host
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                stream = await trio.open_tcp_stream(host, self._url.port or self._default_port)
                if self._tls is None:
                    return stream
                tls = trio.SSLStream(stream, self._tls, server_hostname=host, https_compatible=True)
                try:
                    await tls.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(tls)
                    raise
                return tls
        except trio.TooSlowError:
            raise OSError(f"no connection within {CONNECT_TIMEOUT:g} s") from None

    def _head(self, length: int) -> bytes:
        """The request's line and headers; not compressed, since the body is read as it comes."""
        path = self._url.raw_path.decode("ascii").rstrip("/")
        headers = dict(self._headers)
        if self._url.userinfo and "Authorization" not in headers:
            given = f"{self._url.username}:{self._url.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(given).decode('ascii')}"
        lines = [
            f"POST {path}/completion HTTP/1.1",
            f"Host: {self._url.netloc.decode('ascii')}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _read_plain(self, stream: trio.SocketStream, sink: TokenStream, first: float) -> None:
        """Have the poller read it, together with all others."""
        sock = socket.socket(fileno=stream.socket.detach())
        try:
            sock.setblocking(False)
            self._poller.add(sock, sink)
            await sink.watch(self._timeouts, first)
        finally:
            self._poller.remove(sock)
            sock.close()

    async def _read_tls(
        self, stream: trio.SSLStream[trio.SocketStream], sink: TokenStream, first: float
    ) -> None:
        """Read it in a task of its own, into the same sink."""

        async def read() -> None:
            try:
                while data := await stream.receive_some(_READ):
                    sink.data_received(bytes(data))
                    self._poller.end_batch()
                sink.connection_lost("it closed the connection")
            except (trio.BrokenResourceError, OSError) as error:
                sink.connection_lost(_reason(error))
            self._poller.end_batch()

        failure: RequestError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                try:
                    await sink.watch(self._timeouts, first)
                except RequestError as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)
        if failure is not None:
            raise failure


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

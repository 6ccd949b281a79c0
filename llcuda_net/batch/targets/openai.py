"""Any server with an OpenAI-compatible /v1/chat/completions as a target.

The stream is read from the socket, without an HTTP client between: what such a client costs per
piece would be counted as the server's. Each request has a connection of its own.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import msgspec
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.chat_stream import ChatParser
from llcuda_net.batch.targets.interface import About, Answer, Clock
from llcuda_net.errors import (
    ConfigError,
    RequestError,
    Unsupported,
    UpstreamStalled,
    UpstreamUnavailable,
)
from llcuda_net.upstream.llama.sse import upstream_failure

#: Seconds for a connection to be made, and for the list of models.
CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 30.0
_READ = 64 << 10
#: Who owns the models of a llama-server, which alone knows `cache_prompt`.
_LLAMA = "llamacpp"


class OpenAITarget:
    """One server.

    Args:
        base_url: with or without /v1 at its end.
        model: which to ask; None: the first one of the server's list.
        api_key: sent as a bearer token.
        stall_timeout: seconds without a byte before an answer is given up.

    Raises:
        ConfigError: the URL is none.
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
        try:
            self._url = httpx.URL(base)
        except httpx.InvalidURL:
            self._url = httpx.URL()
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ConfigError(f"{base_url!r} is not a URL such as http://127.0.0.1:8000")
        self.name = base_url
        self._base = base
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._stall = stall_timeout
        self._tls = httpx.create_ssl_context() if self._url.scheme == "https" else None
        self._owner = ""

    def __repr__(self) -> str:
        return f"<OpenAITarget {self._base}, model {self._model or 'not known yet'}>"

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
        named = [each for each in found if self._model in (None, each["id"])]
        if named:
            self._model = str(named[0]["id"])
            self._owner = str(named[0].get("owned_by") or "")
        elif self._model is None:
            raise Unsupported(f"{self.name} lists no model: name one with --direct-model")

    async def _models(self) -> list[dict[str, Any]]:
        try:
            async with httpx.AsyncClient(
                timeout=httpx.Timeout(SHORT_TIMEOUT, connect=CONNECT_TIMEOUT),
                verify=self._tls or False,
                trust_env=False,
                headers=self._headers,
            ) as http:
                reply = await http.get(f"{self._base}/v1/models")
        except (httpx.HTTPError, OSError) as error:
            raise _unreachable(error) from None
        if reply.status_code != 200:
            raise upstream_failure(reply.status_code, reply.content)
        with suppress(msgspec.MsgspecError, TypeError, KeyError):
            found = msgspec.json.decode(reply.content)["data"]
            return [each for each in found if isinstance(each, dict) and "id" in each]
        raise Unsupported(f"{self.name} does not list its models: name one with --direct-model")

    async def about(self) -> About:
        """The model, and who says to own it; such a server does not say its slots."""
        await trio.lowlevel.checkpoint()
        owner = f" ({self._owner})" if self._owner else ""
        return About(self._model or "unknown", None, f"OpenAI-compatible server{owner}")

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
        messages = more.get("messages") or [{"role": "user", "content": prompt}]
        request = self._request(messages, params)
        record.sent = now()
        parser = ChatParser()
        texts: list[str] = []
        stream = await self._connect()
        try:
            with _lost():
                await stream.send_all(request)
            while not parser.finished:
                data = b""
                with trio.move_on_after(self._stall) as scope, _lost():
                    data = bytes(await stream.receive_some(_READ))
                if scope.cancelled_caught:
                    raise UpstreamStalled(f"the server sent nothing for {self._stall:g} s")
                at = now()
                if not data:
                    parser.feed_eof()
                    break
                parser.feed(data)
                record.chunks.extend([at] * len(parser.pieces))
                texts += parser.pieces
                parser.pieces.clear()
        finally:
            await trio.aclose_forcefully(stream)
        if not parser.finished:
            raise UpstreamUnavailable("the server ended the answer early", retry=True)
        return self._answer(parser, record, texts)

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
        path = self._url.raw_path.decode("ascii").rstrip("/")
        lines = [
            f"POST {path}/v1/chat/completions HTTP/1.1",
            f"Host: {self._url.netloc.decode('ascii')}",
            "Content-Type: application/json",
            "Accept: text/event-stream",
            "Accept-Encoding: identity",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self._headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def _connect(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        host = self._url.host
        port = self._url.port or (443 if self._tls else 80)
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                if self._tls is None:
                    return await trio.open_tcp_stream(host, port)
                secure = await trio.open_ssl_over_tcp_stream(
                    host, port, ssl_context=self._tls, https_compatible=True
                )
                await secure.do_handshake()
                return secure
        except trio.TooSlowError:
            raise _unreachable(OSError(f"no connection within {CONNECT_TIMEOUT:g} s")) from None
        except (OSError, ssl.SSLError, trio.BrokenResourceError) as error:
            raise _unreachable(error) from None


@contextmanager
def _lost() -> Iterator[None]:
    """Turns the failure of a connection into the error that a run records."""
    try:
        yield
    except (OSError, ssl.SSLError, trio.BrokenResourceError) as error:
        raise UpstreamUnavailable(
            f"the connection was lost: {_reason(error)}", retry=True
        ) from None


def _unreachable(error: BaseException) -> RequestError:
    return UpstreamUnavailable(f"the server cannot be reached: {_reason(error)}", retry=True)


def _reason(error: BaseException) -> str:
    """The system's own words, which trio and httpx hide behind theirs."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        elif isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
        else:
            found = found.__cause__ or found.__context__
    return str(error) or type(error).__name__

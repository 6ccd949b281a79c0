"""A server that is asked by HTTP: what all requests to it have in common, made in one place.

Short requests, and the connections of token streams, which are read elsewhere. Both send the same
headers, with the same credentials, to the same address, and never through a proxy of the
environment: the server is next door. Every answer is bounded in bytes and in time.

A request on a connection that has waited may meet a server that is just closing it. Where such a
connection is lost soon, without a byte of an answer, the request is sent once more, on a new one.
"""

from __future__ import annotations

import os
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import trio

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import ConfigError, RequestError, UpstreamUnavailable
from llcuda_net.upstream.llama.failures import (
    NOT_JSON,
    RETRY_AFTER,
    error_in,
    nonsense,
    page_title,
    upstream_failure,
)
from llcuda_net.upstream.llama.transport.answer import Answer
from llcuda_net.upstream.llama.transport.connections import Connection, Connections
from llcuda_net.util.version import package_version

#: Seconds for a short request to be answered.
SHORT_TIMEOUT = 30.0
#: Seconds after sending in which the loss of a connection that had waited says nothing of the
#: request.
STALE = 1.0
#: Longest body of an answer to a short request, in bytes, where no other bound is given.
MAX_BODY = 16 << 20

_READ = 64 << 10
#: Else a router loads what is asked, if need be in the place of another model.
_NO_LOAD = "autoload=false"
_T = TypeVar("_T")


class Origin:
    """Makes requests to one server.

    Args:
        url: where it is; its user and password go with every request.
        api_key: sent as a bearer token, where the server wants one.
        model: for which of its models every request is, of a llama-server in router mode, which
            must not load it because of that; None: it has one.

    Raises:
        ConfigError: the URL has a user, and there is an API key, too.
    """

    def __init__(self, url: BaseUrl, api_key: str | None = None, model: str | None = None) -> None:
        if api_key and url.authorization is not None:
            raise ConfigError(
                f"the URL {url} holds a user, and there is an API key; only one of them can be "
                "sent: remove the other"
            )
        self.url = url
        self._model = model
        authorization = f"Bearer {api_key}" if api_key else url.authorization
        self._headers = {
            "User-Agent": f"llcuda/{package_version()}",
            # Encoded bodies may be bombs, and an event stream is read as it comes.
            "Accept-Encoding": "identity",
            **({"Authorization": authorization} if authorization else {}),
        }
        self.connections = Connections(url, _tls_context() if url.secure else None)

    def __repr__(self) -> str:
        return f"<Origin {self}>"

    def __str__(self) -> str:
        return f"{self.url}{'' if self._model is None else self._named()}"

    def _named(self) -> str:
        return f"?model={urllib.parse.quote(self._model or '', safe='')}"

    def move(self, url: BaseUrl) -> None:
        """The server is at another address now, as an engine that was started again."""
        self.url = url
        self.connections.move(url)

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        self.connections.close()

    # -- short requests -----------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str,
        decode: Callable[[bytes], _T],
        body: Any = None,
        *,
        most: int = MAX_BODY,
        timeout: float = SHORT_TIMEOUT,
    ) -> _T:
        """The answer to a short request.

        Args:
            decode: takes from it what is needed; see `decoder`.
            body: sent as JSON; None: no body.
            most: bytes that its body may have.
            timeout: seconds until all of it must be there.

        Raises:
            RequestError: the server cannot be reached, refuses, fails, or is nonsense.
        """
        status, headers, content = await self.get(method, path, body, most=most, timeout=timeout)
        if status != 200:
            raise upstream_failure(status, content, headers)
        if (error := error_in(content, headers)) is not None:
            raise error
        if (page := page_title(content, headers)) is not None:
            raise nonsense(f"{path} gave {page}")
        return decode(content)

    async def get(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        most: int = MAX_BODY,
        timeout: float = SHORT_TIMEOUT,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of an answer, whatever its status.

        Raises:
            RequestError: the server cannot be reached, or its answer is too long or encoded.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        request = self.request(path, content, method=method, accept="*/*", last=False)
        with unreachable():
            with trio.move_on_after(timeout):
                stream = await self.connections.idle()
                if stream is not None:
                    sent = trio.current_time()
                    answer = await self._exchange(stream, request, Answer(path, most))
                    if answer.begun or trio.current_time() > sent + STALE:
                        return _whole(answer)
                stream = await self.connections.open()
                return _whole(await self._exchange(stream, request, Answer(path, most)))
            raise OSError(f"no whole answer to {path} within {timeout:g} s")

    async def _exchange(self, stream: Connection, request: bytes, answer: Answer) -> Answer:
        """Send a request, and read what comes; the connection is kept if it can be used again."""
        try:
            try:
                await stream.send_all(request)
                while not answer.complete:
                    data = await stream.receive_some(_READ)
                    if not data:
                        answer.feed_eof()
                        break
                    answer.feed(bytes(data))
            except (OSError, trio.BrokenResourceError):
                if answer.begun:
                    raise
        finally:
            answer.close()
            if answer.complete and answer.reusable:
                self.connections.keep(stream)
            else:
                await trio.aclose_forcefully(stream)
        return answer

    def request(
        self,
        path: str,
        body: bytes,
        *,
        method: str = "POST",
        accept: str = "text/event-stream",
        last: bool = True,
    ) -> bytes:
        """A whole request.

        Args:
            body: of JSON; empty: none.
            last: the connection ends with its answer.
        """
        if self._model is not None:
            path, body = self._routed(path, body, method)
        lines = [
            f"{method} {self.url.path}{path} HTTP/1.1",
            f"Host: {self.url.authority}",
            *(f"{name}: {value}" for name, value in self._headers.items()),
            f"Accept: {accept}",
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if last:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _routed(self, path: str, body: bytes, method: str) -> tuple[str, bytes]:
        """Name the model: in the body, which is an object, of a POST, else in the query."""
        if method != "POST":
            return f"{path}{self._named()}&{_NO_LOAD}", body
        name = msgspec.json.encode({"model": self._model})
        rest = body[1:] if len(body) > len(b"{}") else b"}"
        return f"{path}?{_NO_LOAD}", name[:-1] + (b"," if rest != b"}" else b"") + rest


def _tls_context() -> ssl.SSLContext:
    """Trusts what httpx does: SSL_CERT_FILE and SSL_CERT_DIR, else the usual authorities."""
    import httpx

    return httpx.create_ssl_context()


def _whole(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What an answer says.

    Raises:
        OSError: its connection was lost before its end.
    """
    if not answer.complete:
        raise OSError("the connection was closed before the end of the answer")
    return answer.status, answer.headers, bytes(answer.body)


def decoder(kind: type[_T], what: str) -> Callable[[bytes], _T]:
    """Returns what decodes the JSON of an answer; fields that are not in `kind` take no memory.

    What that raises is a RequestError.

    Args:
        what: said of an answer that is not of this kind, as "/tokenize gave no tokens".
    """
    decode = msgspec.json.Decoder(kind).decode

    def take(data: bytes) -> _T:
        try:
            return decode(data)
        except NOT_JSON as error:
            raise nonsense(f"{what} ({error})") from None

    return take


@contextmanager
def unreachable(what: str = "the upstream cannot be reached") -> Iterator[None]:
    """Turns every failure of the transport into the one error that clients see."""
    try:
        yield
    except (OSError, trio.BrokenResourceError) as error:
        raise not_there(f"{what}: {reason_of(error)}") from None


def not_there(message: str) -> RequestError:
    """The error for a server that cannot be reached, or was lost."""
    return UpstreamUnavailable(message, retry=True, retry_after=RETRY_AFTER)


def reason_of(error: BaseException) -> str:
    """Why there is no connection: the system's words, or else the first in the chain.

    Trio's own words are often empty, or that all attempts failed.
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

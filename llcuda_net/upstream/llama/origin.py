"""A server that is asked by HTTP: what all requests to it have in common, made in one place.

Both ways to an upstream are here: short requests through httpx, and connections for token streams,
which are read without it. Both send the same headers, with the same credentials, to the same
address, and never through a proxy of the environment: the server is next door. Every answer is
bounded in bytes and in time.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import msgspec
import trio

from llcuda_net.config.upstreams import BaseUrl
from llcuda_net.errors import ConfigError, RequestError, UpstreamUnavailable
from llcuda_net.upstream.llama.failures import (
    MAX_ERROR_BODY,
    NOT_JSON,
    RETRY_AFTER,
    error_in,
    nonsense,
    refused_encoding,
    upstream_failure,
)
from llcuda_net.util.version import package_version

#: Seconds for a connection to be made, and for a short request to be answered.
CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 30.0
#: Longest body of an answer to a short request, in bytes, where no other bound is given.
MAX_BODY = 16 << 20

Connection = trio.SocketStream | trio.SSLStream[trio.SocketStream]
_T = TypeVar("_T")


class Origin:
    """Makes requests to one server.

    Args:
        url: where it is; its user and password go with every request.
        api_key: sent as a bearer token, where the server wants one.

    Raises:
        ConfigError: the URL has a user, and there is an API key, too.
    """

    def __init__(self, url: BaseUrl, api_key: str | None = None) -> None:
        if api_key and url.authorization is not None:
            raise ConfigError(
                f"the URL {url} holds a user, and there is an API key; only one of them can be "
                "sent: remove the other"
            )
        self.url = url
        authorization = f"Bearer {api_key}" if api_key else url.authorization
        self._headers = {
            "Host": url.authority,
            "User-Agent": f"llcuda/{package_version()}",
            # Encoded bodies may be bombs, and an event stream is read as it comes.
            "Accept-Encoding": "identity",
            **({"Authorization": authorization} if authorization else {}),
        }
        # SSL_CERT_FILE and SSL_CERT_DIR hold for both ways.
        self._tls = httpx.create_ssl_context() if url.secure else None
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
            verify=False if self._tls is None else self._tls,  # certificates take a while to load
        )

    def __repr__(self) -> str:
        return f"<Origin {self.url}>"

    def move(self, url: BaseUrl) -> None:
        """The server is at another address now, as an engine that was started again."""
        self.url = url
        self._headers["Host"] = url.authority

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._http.aclose()

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
        with unreachable():
            with trio.move_on_after(timeout):
                return await self._get(method, path, body, most)
            raise httpx.ReadTimeout(f"no whole answer to {path} within {timeout:g} s")

    async def _get(
        self, method: str, path: str, body: Any, most: int
    ) -> tuple[int, dict[str, str], bytes]:
        url = self.url
        # From its parts: what was parsed in one place is not parsed again.
        target = httpx.URL(
            scheme=url.scheme, host=url.host, port=url.port, raw_path=(url.path + path).encode()
        )
        headers = dict(self._headers)
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = msgspec.json.encode(body)
        request = self._http.stream(method, target, headers=headers, content=content)
        async with request as reply:
            found = {name.lower(): value for name, value in reply.headers.items()}
            refused = refused_encoding(reply.status_code, found)
            if refused is not None:
                raise refused
            whole = reply.status_code == 200
            limit = most if whole else MAX_ERROR_BODY
            data = bytearray()
            # Cancelled rather than left, so that httpx's generators end, and the connection with
            # them.
            with trio.CancelScope() as scope:
                async for part in reply.aiter_raw():
                    data += part[: limit - len(data) + 1]
                    if len(data) > limit:
                        scope.cancel()
            if len(data) > limit and whole:
                raise nonsense(f"{path} has more than {limit} bytes")
            return reply.status_code, found, bytes(data[:limit])

    # -- token streams ------------------------------------------------------------------------

    async def connect(self) -> Connection:
        """A connection for one token stream.

        Raises:
            OSError, trio.BrokenResourceError: there is none.
        """
        url = self.url
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                stream = await trio.open_tcp_stream(url.host, url.port)
                if self._tls is None:
                    return stream
                tls = trio.SSLStream(
                    stream, self._tls, server_hostname=url.host, https_compatible=True
                )
                try:
                    await tls.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(tls)
                    raise
                return tls
        except trio.TooSlowError:
            raise OSError(f"no connection within {CONNECT_TIMEOUT:g} s") from None

    def request(self, path: str, body: bytes) -> bytes:
        """A whole request with a body of JSON, whose answer is an event stream."""
        lines = [
            f"POST {self.url.path}{path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in self._headers.items()),
            "Accept: text/event-stream",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


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
    except (httpx.HTTPError, httpx.InvalidURL, OSError, trio.BrokenResourceError) as error:
        raise not_there(f"{what}: {reason_of(error)}") from None


def not_there(message: str) -> RequestError:
    """The error for a server that cannot be reached, or was lost."""
    return UpstreamUnavailable(message, retry=True, retry_after=RETRY_AFTER)


def reason_of(error: BaseException) -> str:
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

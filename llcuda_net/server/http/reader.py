"""Reads requests from a connection: h11 parses them, and what it lets pass is refused here.

Two programs that read one request differently are what request smuggling lives on (RFC 9112,
section 11.2). So everything is refused that a proxy might read otherwise: bare line feeds, folded
lines, two lengths, a length beside chunks, a coding other than chunked, trailers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import h11
import trio

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.limits import BODY_GRACE, BODY_RATE, MAX_FIELDS, MAX_HEAD, READ

_END = b"\r\n\r\n"
#: A line feed or carriage return that stands alone.
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Fields of which two would contradict each other.
_SINGLE = (b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect")


class Head:
    """The head of a request.

    Attributes:
        method: as it came.
        target: as it came.
        headers: names in lower case, and values.
        http10: the client speaks HTTP/1.0.
        keep_alive: whether it will ask again on this connection.
        has_body: whether bytes of a body follow.
        length: of the body, where it is given.
    """

    def __init__(self, request: h11.Request) -> None:
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii")
        self.headers: list[tuple[bytes, bytes]] = list(request.headers)
        self.http10 = request.http_version < b"1.1"
        options = {
            word.strip().lower()
            for name, value in self.headers
            if name == b"connection"
            for word in value.split(b",")
        }
        self.keep_alive = not self.http10 and b"close" not in options
        self.has_body = False
        self.length = 0

    def __repr__(self) -> str:
        return f"<Head {self.method} {'with' if self.has_body else 'without'} body>"


class RequestReader:
    """The requests of one connection, one after the other.

    Args:
        stream: the connection.
        received: what was read of it already.
    """

    def __init__(self, stream: trio.abc.ReceiveStream, received: bytes) -> None:
        self._stream = stream
        self._received = bytearray(received)
        self._parser = h11.Connection(h11.SERVER)
        self._chunked = False

    def __repr__(self) -> str:
        return f"<RequestReader {len(self._received)} bytes>"

    @property
    def empty(self) -> bool:
        """Whether nothing of a next request has come."""
        return not self._received

    def keep(self, data: bytes) -> None:
        """Bytes of the next request that somebody else has read."""
        self._received += data

    async def wait(self) -> bool:
        """Until a next request begins; False if the client has closed."""
        if not self._received:
            self._received += await self._stream.receive_some(READ)
        return bool(self._received)

    async def head(self) -> Head | None:
        """The head of the next request; None if the client has closed before its end.

        Raises:
            HttpError: it is none, or is too large.
        """
        received, seen = self._received, 0
        while True:
            start = max(0, seen - len(_END))
            end = received.find(_END, start)
            _check_line_ends(received, start, len(received) if end < 0 else end)
            if (len(received) if end < 0 else end) > MAX_HEAD:
                raise HttpError(431, f"the header fields take more than {MAX_HEAD:,} bytes")
            if end >= 0:
                break
            seen = len(received)
            data = await self._stream.receive_some(READ)
            if not data:
                return None
            received += data
        head = bytes(received[: end + len(_END)])
        del received[: len(head)]
        return self._parse(head)

    def _parse(self, text: bytes) -> Head:
        _check_fields(text)
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD + len(_END))
        try:
            self._parser.receive_data(text)
            event = self._parser.next_event()
            if not isinstance(event, h11.Request):
                raise HttpError(400, "this is no HTTP/1.1 request")
            if event.http_version not in (b"1.0", b"1.1"):
                raise HttpError(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
            head = Head(event)
            _check_framing(head)
            following = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _broken(error) from None
        self._chunked = any(name == b"transfer-encoding" for name, _ in head.headers)
        head.length = int(dict(head.headers).get(b"content-length", b"0"))
        head.has_body = not isinstance(following, h11.EndOfMessage)
        return head

    async def body(
        self, most: int, on_bytes: Callable[[int], None], proceed: Callable[[bytes], None] | None
    ) -> bytes | None:
        """The body of the request whose head was read; None if the client closes before its end.

        Args:
            most: bytes that are taken.
            on_bytes: called with the bytes so far whenever some have come; may raise.
            proceed: sends bytes to a client that waits to hear that it may send its body.

        Raises:
            HttpError: it is too large, too slow, or not what its head says.
        """
        body = bytearray()

        async def take(data: bytes) -> None:
            body.extend(data)
            on_bytes(len(body))

        whole = await self.parts(take, most, too_large(most), proceed)
        return bytes(body) if whole else None

    async def parts(
        self,
        take: Callable[[bytes], Awaitable[None]],
        most: int,
        too_many: HttpError,
        proceed: Callable[[bytes], None] | None,
    ) -> bool:
        """Give the body of the request whose head was read to `take`, part by part.

        Nothing more is read while it takes one.

        Args:
            most: bytes that are taken.
            too_many: raised where there are more.
            proceed: as of `body`.

        Returns:
            Whether all of it came; False if the client closes before its end.

        Raises:
            HttpError: it is too large, too slow, or not what its head says.
        """
        parser, taken = self._parser, 0
        last = bytes(self._received)  # the last bytes that h11 was given
        if last:  # to h11, nothing is the end
            parser.receive_data(last)
            self._received.clear()
        begun = trio.current_time()
        scope = trio.CancelScope(deadline=begun + BODY_GRACE)
        with scope:
            while True:
                try:
                    event = parser.next_event()
                except h11.RemoteProtocolError as error:
                    raise _broken(error) from None
                if isinstance(event, h11.Data):
                    taken += len(event.data)
                    if taken > most:
                        raise too_many
                    await take(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    rest = parser.trailing_data[0]
                    if self._chunked:
                        _check_end(event, last[: len(last) - len(rest)])
                    self._received += rest
                    return True
                else:
                    if proceed is not None and parser.they_are_waiting_for_100_continue:
                        proceed(_CONTINUE)
                        proceed = None
                    scope.deadline = begun + BODY_GRACE + taken / BODY_RATE
                    data = bytes(await self._stream.receive_some(READ))
                    if not data:
                        return False
                    parser.receive_data(data)
                    last = last[-len(_END) :] + data
        raise HttpError(408, "the body did not come in time")


def too_large(most: int) -> HttpError:
    """The answer to a body of more bytes than that."""
    return HttpError(413, f"a body may take {most:,} bytes here (--max-body)")


def _check_line_ends(received: bytearray, start: int, end: int) -> None:
    if _BARE.search(received, start, end):
        raise HttpError(400, "lines of a request end with CR LF")


def _check_fields(head: bytes) -> None:
    """Refuse heads of which h11 would make the best.

    Raises:
        HttpError: as said.
    """
    lines = head[: -len(_END)].split(b"\r\n")[1:]
    if len(lines) > MAX_FIELDS:
        raise HttpError(431, f"a request may have {MAX_FIELDS} header fields")
    if any(line[:1] in (b" ", b"\t") for line in lines):
        raise HttpError(400, "a header field is folded over two lines")
    names = [line.partition(b":")[0].lower() for line in lines]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise HttpError(400, f"there are two header fields {name.decode()}")

    if b"content-length" in names and b"," in lines[names.index(b"content-length")]:
        raise HttpError(400, "a Content-Length is one number")


def _check_framing(head: Head) -> None:
    headers = dict(head.headers)
    if b"transfer-encoding" in headers:
        if b"content-length" in headers:
            raise HttpError(400, "a body has a Content-Length or a Transfer-Encoding, not both")
        if head.http10:
            raise HttpError(400, "HTTP/1.0 has no Transfer-Encoding")
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise HttpError(417, "only 100-continue can be expected")


def _check_end(end: h11.EndOfMessage, received: bytes) -> None:
    """Refuse what h11 takes for the end of chunks, and others may not: no client needs trailers."""
    if end.headers or not received.endswith(_END):
        raise HttpError(400, "chunks end with an empty one, and nothing follows it")


def _broken(error: h11.RemoteProtocolError) -> HttpError:
    return HttpError(error.error_status_hint or 400, f"this is no HTTP/1.1 request: {error!s:.200}")

"""The answer to a short request: HTTP bytes in, status, headers and body out. No I/O.

All of it is bounded: the head, with the informational answers before it, and the body.
"""

from __future__ import annotations

import httptools

from llcuda_net.upstream.llama.failures import (
    MAX_ERROR_BODY,
    MAX_HEAD,
    nonsense,
    refused_encoding,
)


class Answer:
    """Parses one answer.

    Args:
        path: what was asked for, named in errors.
        most: bytes that a body with status 200 may have. Of others it is cut off.

    Attributes:
        begun: something has come.
        complete: all that is wanted has come.
        reusable: the connection can take another request.
        status: 0 until the head is complete.
        headers: names in lower case.
        body: so far.
    """

    def __init__(self, path: str, most: int) -> None:
        self.begun = self.complete = self.reusable = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self._path = path
        self._most = most
        self._before_body = 0
        self._parser = httptools.HttpResponseParser(self)

    def __repr__(self) -> str:
        return f"<Answer to {self._path}: {self.status}, {len(self.body)} bytes>"

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection.

        Raises:
            RequestError: it is no HTTP, encoded or too long.
        """
        self.begun = True
        if not self.status:
            self._before_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise nonsense(f"not HTTP: {error}") from None
            self.reusable = False
        if not self.status:
            if self._before_body > MAX_HEAD:
                raise nonsense("headers without an end")
            return
        if (refused := refused_encoding(self.status, self.headers)) is not None:
            raise refused
        if len(self.body) > self._limit:
            if self.status == 200:
                raise nonsense(f"{self._path} has more than {self._most} bytes")
            del self.body[self._limit :]
            self.complete, self.reusable = True, False

    def feed_eof(self) -> None:
        """The connection was closed: that ends a body of which nothing says how long it is."""
        framed = {"content-length", "transfer-encoding"} & self.headers.keys()
        if self.status and not framed:
            self.complete = True

    def close(self) -> None:
        """Take no more. The parser refers to this as this does to it, and is freed at once so."""
        del self._parser

    @property
    def _limit(self) -> int:
        return self._most if self.status == 200 else MAX_ERROR_BODY

    # -- httptools' callbacks ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Forget the headers of an informational answer; behind the final one nothing may come."""
        if self.complete:
            self.reusable = False
        else:
            self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; trailers are of no interest."""
        if not self.status:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note the status of the final answer."""
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self.status = status

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self.complete:
            self.body += body[: self._limit - len(self.body) + 1]

    def on_message_complete(self) -> None:
        """Note the end of the final answer."""
        if self.status and not self.complete:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

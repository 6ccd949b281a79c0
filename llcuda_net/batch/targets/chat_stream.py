"""What a server streams from /v1/chat/completions: HTTP bytes in, parsed pieces out. No I/O.

Servers differ in what they leave out, so everything but the text is optional here: usage, the
reason to stop, the closing `[DONE]`. Events follow the rules of server-sent events (lines that end
with LF or CRLF, comments, `data` over several lines). https://html.spec.whatwg.org, 9.2.
"""

from __future__ import annotations

from typing import Any

import httptools
import msgspec

from llcuda_net.errors import Overloaded, RequestError, UpstreamError
from llcuda_net.upstream.llama.sse import MAX_ERROR_BODY, MAX_EVENT, upstream_failure


class _Delta(msgspec.Struct):
    content: str | None = None
    #: Of reasoning models: vLLM and llama-server, and others.
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as the server counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int:
        """Of the prompt's tokens, those that were taken from a cache."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details is not None else 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class ChatParser:
    """The response to one request.

    Attributes:
        pieces: text that has come; the owner takes the list and empties it.
        reason: why the answer ended; empty while it has not.
        usage: None where the server sent none.
        finished: `[DONE]` has come, or the response is complete.
        model, id: as the server says.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.reason = ""
        self.usage: Usage | None = None
        self.finished = False
        self.model: str | None = None
        self.id: str | None = None
        self._http = httptools.HttpResponseParser(self)
        self._status = 0
        self._received = 0
        self._error_body = b""
        self._failure: RequestError | None = None
        self._rest = b""
        self._data: list[bytes] = []

    def __repr__(self) -> str:
        state = self.reason or ("finished" if self.finished else "open")
        return f"<ChatParser status {self._status or '-'}, {state}, {len(self.pieces)} pieces>"

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection.

        Raises:
            RequestError: the server answered an error, or not by this API.
        """
        if self.finished:
            return  # what follows the answer is of no interest
        try:
            self._http.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.finished:
                raise self._failure or _nonsense(f"not HTTP: {error}") from None
        if self._failure is not None:
            raise self._failure
        if not self._status:
            self._received += len(data)
            if self._received > MAX_ERROR_BODY:
                raise _nonsense("headers without an end")

    def feed_eof(self) -> None:
        """The server closed the connection, which also ends a body without a length.

        Raises:
            RequestError: the status was not 200.
        """
        if self._status not in (0, 200):
            raise _failed(self._status, self._error_body)
        self.finished = self.finished or bool(self.reason)

    # -- httptools' callbacks -----------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Note the status."""
        self._status = self._http.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self._failure is not None or self.finished:
            return
        if self._status != 200:
            self._error_body += body[: MAX_ERROR_BODY - len(self._error_body)]
            return
        try:
            self._lines(body)
        except RequestError as error:
            self._failure = error  # httptools would wrap it in an error of its own

    def on_message_complete(self) -> None:
        """Note the end of the response."""
        if self._status != 200 and self._failure is None:
            self._failure = _failed(self._status, self._error_body)
        self.finished = self.finished or bool(self.reason)

    # -- server-sent events -------------------------------------------------------------------

    def _lines(self, body: bytes) -> None:
        *lines, self._rest = (self._rest + body).split(b"\n")
        if len(self._rest) > MAX_EVENT:
            raise _nonsense(f"an event of more than {MAX_EVENT} bytes")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                self._event(data)

    def _event(self, data: bytes) -> None:
        if self.finished:
            return
        if data.strip() == b"[DONE]":
            self.finished = True
            return
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _nonsense(f"not a chat completion chunk ({error})") from None
        if chunk.error is not None:
            raise _failed(500, data)
        self.model, self.id = chunk.model or self.model, chunk.id or self.id
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None:
                text = delta.content or delta.reasoning_content or delta.reasoning
                if text:
                    self.pieces.append(text)
            self.reason = choice.finish_reason or self.reason


def _nonsense(what: str) -> RequestError:
    return UpstreamError(f"the server did not answer by the chat completions API: {what}")


def _failed(status: int, body: bytes) -> RequestError:
    error = upstream_failure(status, body)
    if status == 429:
        return Overloaded(error.message, retry=True)
    return error

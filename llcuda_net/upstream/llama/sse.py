"""What a llama-server says while it completes a prompt: HTTP bytes in, parsed events out.

Pure parsing, no I/O. `EventParser` takes the body, a text/event-stream; `ResponseParser` takes the
whole HTTP response and feeds it. Both raise RequestError when the upstream answers an error or
something that is not llama-server's.
"""

from __future__ import annotations

import re

import httptools
import msgspec

from llcuda_net.errors import (
    ContextExceeded,
    InvalidRequest,
    RequestError,
    Unsupported,
    UpstreamError,
    UpstreamUnavailable,
)
from llcuda_net.upstream.interface import CompletionEvent

#: Longest single event, in bytes: a token with a thousand log-probabilities is under 1 MiB.
MAX_EVENT = 8 << 20
#: Longest body of an error answer that is kept, in bytes.
MAX_ERROR_BODY = 64 << 10

#: What the last event shall hold: without this it also echoes the prompt and every setting.
FINAL_FIELDS = [
    "content",
    "tokens",
    "stop",
    "model",
    "tokens_predicted",
    "tokens_evaluated",
    "truncated",
    "stop_type",
    "stopping_word",
    "timings",
    "completion_probabilities",
]

_decode = msgspec.json.Decoder(CompletionEvent).decode
#: What decoding raises; RecursionError at a thousand opening brackets.
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class EventParser:
    """Splits a text/event-stream into completion events, several per call where they came together.

    After each `feed`, `events` holds what has come; the owner takes the list and empties it.
    """

    def __init__(self) -> None:
        self.events: list[CompletionEvent] = []
        self.finished = False
        self._rest: bytes | bytearray = b""

    def feed(self, data: bytes) -> None:
        """Take bytes of the body.

        Raises:
            RequestError: the upstream reported an error, or the bytes are not its events.
        """
        text: bytes | bytearray = data
        start = searched = 0
        if self._rest:
            if len(self._rest) + len(data) > MAX_EVENT:
                raise nonsense(f"an event of more than {MAX_EVENT} bytes")
            # Grown in place, and searched only where it is new: an event may come in many bits.
            searched = len(self._rest) - 1
            text = self._rest if isinstance(self._rest, bytearray) else bytearray(self._rest)
            text += data
        while not self.finished and (end := text.find(b"\n\n", searched)) >= 0:
            if text.startswith(b"data: {", start):
                try:
                    event = _decode(text[start + 6 : end])
                except _NOT_JSON as error:
                    raise nonsense(f"not a completion event ({error})") from None
                if event.error is not None:
                    raise upstream_failure(500, text[start + 6 : end])
                if event.stop:
                    self.finished = True
                self.events.append(event)
            elif end > start:
                self._rare(text, start, end)
            start = searched = end + 2
        self._rest = text[start:] if start else text

    def _rare(self, data: bytes | bytearray, start: int, end: int) -> None:
        """What is no event of the completion: a comment, the mark of the end, or an error."""
        if data.startswith((b":", b"data: [DONE]"), start):
            return  # a comment keeps the connection alive
        if data.startswith(b"error: ", start):
            raise upstream_failure(500, data[start + 7 : end])
        if data.startswith(b"data: ", start):
            raise nonsense(
                f"not a completion event: {bytes(data[start + 6 : min(end, start + 66)])!r}"
            )
        raise nonsense(f"not an event: {bytes(data[start : min(end, start + 60)])!r}")


class ResponseParser(EventParser):
    """The same from the bytes of a whole HTTP/1.1 response."""

    def __init__(self) -> None:
        super().__init__()
        self.complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._error_body = b""
        self._failure: RequestError | None = None
        self._received = 0

    def feed_response(self, data: bytes) -> None:
        """Take bytes from the socket.

        Raises:
            RequestError: as `feed`, or the response is not HTTP, or its status is not 200.
        """
        if self.finished or self.complete:
            return  # what follows the answer is of no interest
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.finished:
                raise self._failure or nonsense(f"not HTTP: {error}") from None
        if self._failure is not None and not self.finished:
            raise self._failure
        if not self._status:
            # Only now: the first bytes may hold much of the answer behind the headers.
            self._received += len(data)
            if self._received > MAX_ERROR_BODY:
                raise nonsense("headers without an end")

    def feed_eof(self) -> None:
        """The upstream closed the connection, which also ends an error's body without a length.

        Raises:
            RequestError: the status was not 200.
        """
        if self._status not in (0, 200) and not self.complete:
            raise upstream_failure(self._status, self._error_body)

    def on_headers_complete(self) -> None:
        """Note the status."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self._failure is not None or self.finished:
            return
        if self._status != 200:
            self._error_body += body[: MAX_ERROR_BODY - len(self._error_body)]
            return
        try:
            self.feed(body)
        except RequestError as error:
            # httptools would wrap it in an error of its own.
            self._failure = error

    def on_message_complete(self) -> None:
        """Note the end of the response."""
        self.complete = True
        if self._status != 200 and self._failure is None:
            self._failure = upstream_failure(self._status, self._error_body)


def nonsense(what: str) -> RequestError:
    """The error for an upstream that does not speak as a llama-server does."""
    return UpstreamError(f"the upstream did not answer as a llama-server: {what}")


#: More than llama-server embeds at once; its advice is for whoever started it.
_TOO_LARGE = re.compile(
    r"input \((\d+) tokens\) is too large to process\..*batch size: (\d+)", re.IGNORECASE
)


def upstream_failure(status: int, body: bytes | bytearray) -> RequestError:
    """The error for a failure that the upstream reported, in our words where they are known."""
    kind, message = "", ""
    try:
        answer = msgspec.json.decode(body)
        found = answer.get("error", answer)
        if isinstance(found, dict):
            kind, message = str(found.get("type", "")), str(found.get("message", ""))
            status = found["code"] if isinstance(found.get("code"), int) else status
        else:
            message = str(found)
    except (*_NOT_JSON, AttributeError):
        message = body[:200].decode("utf-8", "replace")
    message = " ".join(message.split())[:500] or "no reason given"
    if kind == "exceed_context_size_error":
        return ContextExceeded(f"the prompt is too long: {message}")
    if found := _TOO_LARGE.search(message):
        return ContextExceeded(
            f"a text to embed is too long: {found[1]} tokens, where the upstream takes {found[2]}",
        )
    if kind == "not_supported_error" or status == 501:
        return Unsupported(f"the upstream cannot do that: {message}")
    if status == 503:
        return UpstreamUnavailable(
            f"the upstream is not ready: {message}",
            retry=True,
            retry_after=1.0,
        )
    if status == 400:
        return InvalidRequest(f"the upstream refused it: {message}")
    if status in (401, 403):
        return UpstreamError(f"the upstream wants another API key: {message}")
    return UpstreamError(f"the upstream answered {status}: {message}", retry=status >= 500)

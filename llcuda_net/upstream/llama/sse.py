"""What an upstream streams: HTTP bytes in, events out. No I/O.

`EventStream` splits a body into events by the WHATWG standard for server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6): lines end with CR,
LF or CRLF; a line is a comment, or a field with or without a value; a blank line ends an event. An
event that no blank line ends is not one. `id` and `retry` are for clients that connect again by
themselves, and change nothing here. Nearly all events of a llama-server are one line, `data: …`,
and a blank line that comes with it: those are taken in one pass over the bytes.

`EventResponse` is the HTTP answer around it: informational answers (1xx) are passed over, and what
is no event stream is named as what it is: a status that is not 200, an encoded body, a JSON error
that came with status 200. All that an upstream sends is bounded: the head, each event, and the body
of an error. `ResponseParser` takes the events of a completion from it.
"""

from __future__ import annotations

import abc
import re

import httptools
import msgspec

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.failures import (
    MAX_ERROR_BODY,
    MAX_HEAD,
    NOT_JSON,
    error_in,
    nonsense,
    page_title,
    refused_encoding,
    upstream_failure,
)

#: Longest single event, in bytes: a token with a thousand log-probabilities is under 1 MiB.
MAX_EVENT = 8 << 20
#: Bytes of an event of the completion, for each byte of the request (some servers send the prompt
#: back, token ids as text), for each log-probability, and besides.
_PER_BYTE, _PER_PROBABILITY, _BESIDES = 16, 8 << 10, 256 << 10

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

#: The size of a chunk, and the JSON of the event that is all of it.
_one_event = re.compile(rb"([1-9a-f][0-9a-f]{0,5})\r\ndata: (\{[^\r\n]*\})\n\n\r\n").match
#: What is around that JSON in its chunk.
_AROUND = len("data: \n\n")
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n?|\n")

#: The type of an event, empty where it has none, and its data.
Event = tuple[str, bytes | bytearray]


def _whole_events(data: bytes) -> list[bytes]:
    """The JSON of each event, if these are events of the common form, each in a chunk of its own.

    Nearly all reads of a token stream are, and need no parser of HTTP. Of anything else: none.
    """
    events = []
    position, behind = 0, len(data)
    while position < behind:
        found = _one_event(data, position)
        if found is None:
            return []
        size, event = found.groups()
        if int(size, 16) != len(event) + _AROUND:
            return []
        events.append(event)
        position = found.end()
    return events


class EventStream:
    """Splits a text/event-stream into events.

    Args:
        longest: bytes that an event may have.
        error_field: take the field `error` for data of an event of the type error: older
            llama-servers report errors so, though the standard knows no such field.
    """

    def __init__(self, longest: int = MAX_EVENT, *, error_field: bool = False) -> None:
        self._longest = longest
        self._error_field = error_field
        self.clean = False  # all that has come was whole events
        self._begun = False
        self._skip_lf = False  # a CR has ended a line: an LF that follows belongs to it
        self._rest: bytes | bytearray = b""  # of a line that has not ended; holds no CR or LF
        self._data: list[bytes | bytearray] = []  # of an event that has not ended
        self._type = ""
        self._held = 0  # bytes in _data

    def __repr__(self) -> str:
        return f"<EventStream, {len(self._rest) + self._held} bytes of an event without an end>"

    @property
    def unfinished(self) -> bytes:
        """Data of an event that has not ended; if the stream ends here, it is lost."""
        line = bytes(self._rest)
        last = [line.partition(b":")[2].removeprefix(b" ")] if line.startswith(b"data:") else []
        return b"\n".join([*self._data, *last]) or (b"" if line.startswith(b":") else line)

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of the body; returns the events that they end.

        Raises:
            RequestError: an event is too long.
        """
        if (
            self.clean
            and data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2
            and data[-1] == 10
            and b"\r" not in data
        ):
            return [("", data[6:-2])]  # one event of the common form, and nothing else
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        text: bytes | bytearray = data
        start = searched = 0
        if self._rest or self._held:
            if len(self._rest) + self._held + len(data) > self._longest:
                raise nonsense(f"an event of more than {self._longest} bytes")
            # Grown in place, and searched only where it is new: an event may come in many bits.
            searched = len(self._rest)
            text = self._rest if isinstance(self._rest, bytearray) else bytearray(self._rest)
            text += data
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return []
            self._begun = True
            if text.startswith(_BOM):
                start = searched = len(_BOM)
        found: list[Event] = []
        plain = b"\r" not in data
        while True:
            if plain:
                if (end := text.find(b"\n", searched)) < 0:
                    break
                following = end + 1
            else:
                if (match := _LINE_END.search(text, searched)) is None:
                    break
                end, following = match.span()
                self._skip_lf = following == len(text) and text[-1] == 13
            if end == start:
                self._end_event(found)
            elif text.startswith(b"data: ", start):
                line = text[start + 6 : end]
                if text.startswith(b"\n", following) and not self._data and not self._type:
                    found.append(("", line))  # the common form
                    following += 1
                else:
                    self._data.append(line)
                    self._held += len(line)
            else:
                self._field(bytes(text[start:end]))
            start = searched = following
        self._rest = text[start:] if start else text
        self.clean = not (self._rest or self._data or self._type or self._skip_lf)
        return found

    def _field(self, line: bytes) -> None:
        """Take a line that is not blank."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._type = value.decode("utf-8", "replace")
            return
        if name == b"error" and self._error_field:
            self._type = "error"
        elif name != b"data":
            return  # a comment, id, retry, or what nobody knows
        self._data.append(value)
        self._held += len(value)

    def _end_event(self, found: list[Event]) -> None:
        """Take a blank line."""
        if self._data:
            found.append((self._type, b"\n".join(self._data)))
            self._data, self._held = [], 0
        self._type = ""


class EventResponse(abc.ABC):
    """Parses one answer; who knows the events derives from it and takes them in `on_event`.

    Args:
        longest: bytes that an event may have.

    Attributes:
        finished: the last event has come: what follows is of no interest. Set by `on_event`.
        complete: the answer has ended, as HTTP knows its end.
    """

    def __init__(self, longest: int = MAX_EVENT) -> None:
        self.finished = False
        self.complete = False
        self._stream = EventStream(longest, error_field=True)
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0  # of the final answer; 0 until its head is complete
        self._headers: dict[str, str] = {}
        self._kind = ""  # the media type of the body
        self._events = False  # the body is an event stream, and more of it is of interest
        self._kept: bytearray | None = None  # a body that is no event stream, as far as it is kept
        self._failure: RequestError | None = None
        self._in_chunk = True  # or the body has no chunks
        self._aligned = False  # all that has come was whole chunks of whole events
        self._without_body = 0  # bytes since the last part of a body: of a head, of trailers

    @abc.abstractmethod
    def on_event(self, data: bytes | bytearray) -> None:
        """Take the data of an event that is no error and not empty.

        Raises:
            RequestError: it is not what was asked for.
        """

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection.

        Raises:
            RequestError: the upstream answered an error, or not as it should.
        """
        if self.finished or self.complete:
            return  # what follows the answer is of no interest
        if self._aligned and (events := _whole_events(data)):
            try:
                for event in events:
                    self.on_event(event)
                    if self.finished:
                        break
            except RequestError as error:
                self._failure = error
                self._events = False
                raise
            return
        self._without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.finished:
                raise self._failure or nonsense(f"not HTTP: {error}") from None
        if self._failure is not None and not self.finished:
            raise self._failure
        if self._without_body > MAX_HEAD and not (self.finished or self.complete):
            raise nonsense("headers without an end")
        self._aligned = (
            self._events and not self._in_chunk and self._stream.clean and data.endswith(b"\r\n")
        )

    def feed_eof(self) -> None:
        """The connection was closed, which also ends a body without a length.

        Raises:
            RequestError: the answer is an error.
        """
        if not self.finished and not self.complete:
            self._over()
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Take no more. The parser refers to this as this does to it, and is freed at once so."""
        del self._parser

    @property
    def begun(self) -> bool:
        """Whether anything has come, of a head at least."""
        return self._status != 0 or self._without_body > 0

    @property
    def unfinished(self) -> bytes:
        """Data of an event that no blank line has ended."""
        return self._stream.unfinished

    # -- httptools' callbacks; what they raise it would wrap in an error of its own ---------------

    def on_message_begin(self) -> None:
        """Forget the headers of an informational answer."""
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; trailers are of no interest."""
        if not self._status:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note the status, and what the body is."""
        status = self._parser.get_status_code()
        if 100 <= status <= 199 and status != 101:
            return
        self._status = status
        self._kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        self._failure = refused_encoding(status, self._headers)
        if status != 200 or self._kind.endswith(("/json", "+json")):
            self._kept = bytearray()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._without_body = 0
        if not self._events and not self._begin(body):
            return
        try:
            for kind, data in self._stream.feed(body):
                # Without data it keeps the connection alive.
                if data and not (kind and self._is_special(kind, data)):
                    self.on_event(data)
                    if self.finished:
                        break
        except RequestError as error:
            self._failure = error
            self._events = False
        if self.finished:
            self._events = False

    def _begin(self, body: bytes) -> bool:
        """Take a part of a body of which it is not known that it is an event stream; if it is."""
        if self._failure is not None or self.finished:
            return False
        if self._kept is None:
            first = body.lstrip()[:1]
            if self._kind == "text/event-stream" or first not in (b"{", b"[", b"<"):
                self._events = first != b""
                return True
            self._kept = bytearray()  # no field of an event begins so
        self._kept += body[: MAX_ERROR_BODY - len(self._kept)]
        if len(self._kept) == MAX_ERROR_BODY:
            self._over()
        return False

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._in_chunk = True

    def on_chunk_complete(self) -> None:
        """It has come, with the end of its last line."""
        self._in_chunk = False

    def on_message_complete(self) -> None:
        """Note the end of the answer, if it is the final one."""
        if self._status:
            self._over()
            self.complete = True

    # -- what came ----------------------------------------------------------------------------

    def _is_special(self, kind: str, data: bytes | bytearray) -> bool:
        """Whether an event of a type is of one that nobody here has asked for.

        Raises:
            RequestError: it is an error.
        """
        if kind == "error":
            raise upstream_failure(500, data, self._headers)
        # Some servers give their events types of their own.
        return kind != "message" and not data.lstrip().startswith(b"{")

    def _over(self) -> None:
        """Nothing more comes."""
        if self._failure is not None or self._kept is None:
            return
        if self._status != 200:
            self._failure = upstream_failure(self._status, self._kept, self._headers)
            return
        page = page_title(self._kept, self._headers)
        said = page or bytes(self._kept[:100]).decode("utf-8", "replace")
        self._failure = error_in(self._kept, self._headers) or nonsense(
            f"{self._kind or 'something'} in place of an event stream: {' '.join(said.split())}"
        )


def longest_event(request: int, probabilities: int) -> int:
    """Bytes that an event may have: a thousand streams with all of MAX_EVENT are too much.

    Args:
        request: bytes of the request's body.
        probabilities: that it asks for, per token.
    """
    return min(MAX_EVENT, _BESIDES + request * _PER_BYTE + probabilities * _PER_PROBABILITY)


class ResponseParser(EventResponse):
    """The answer to /completion.

    After each `feed`, `events` holds what has come; the owner takes the list and empties it.
    """

    def __init__(self, longest: int = MAX_EVENT) -> None:
        super().__init__(longest)
        self.events: list[CompletionEvent] = []

    def on_event(self, data: bytes | bytearray) -> None:
        """See EventResponse; the last event has `stop` set."""
        try:
            event = _decode(data)
        except NOT_JSON as error:
            if data.strip() == b"[DONE]":
                return  # the mark of the end
            said = bytes(data[:60]).decode("utf-8", "replace")
            raise nonsense(f"not a completion event ({error}): {said!r}") from None
        if event.error is not None:
            raise upstream_failure(500, data)
        if event.stop:
            self.finished = True
        self.events.append(event)

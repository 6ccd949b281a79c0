"""The protocol core: bytes in, events out, and events in, bytes out. It does no I/O.

Rules of this file:
- `receive_data` only stores; `next_event` takes one frame at a time, so memory is bounded by what
  the caller feeds in between plus one frame of at most the limit.
- Any input results in events or RemoteProtocolError, never in another exception.
- A mistake of the caller raises LocalProtocolError, and then nothing has changed.
- The tables in `states.py` decide what is allowed, `streams.py` counts credit and sequence, and
  this file adds limits.
- Both directions pass the same checks: the other side's `next_event` accepts what `send` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import events as ev
from .errors import ErrorCode, FrameTooLargeError, LocalProtocolError, RemoteProtocolError
from .frames import BadValueError, FrameError, decode, encode, encode_pieces, encode_tokens
from .kinds import (
    HANDSHAKE_MAX_FRAME,
    HEADER,
    MAX_CREDIT,
    MAX_SEQUENCE,
    MAX_STREAM,
    PREFACE,
    VERSIONS,
    Kind,
    Limits,
    Role,
    may_send,
)
from .reader import Reader
from .states import (
    CONNECTION_TABLE,
    MAY_ARRIVE_LATE,
    OPENING,
    STREAM_TABLE,
    STREAMS_LIVE,
    ConnectionState,
    StreamState,
)
from .streams import Stream, gap

# On the way of each token: members of enums are found slowly.
_RUNNING = StreamState.RUNNING
_CLIENT = Role.CLIENT


class Connection:
    """One end of a connection.

    A client sends `Hello` first (the preface goes with it); a server waits for that event, checks
    the token, and sends `Welcome` or an `Error` on stream 0.

    Args:
        role: which end this is.
        limits: what this end is ready to receive. The limits announced in the handshake replace
            them.

    Attributes:
        limits: what this end accepts.
        peer_limits, version: the other side's limits and the version, known after the handshake.
        state: see `states.py`.
    """

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        self.role = role
        self.limits = limits if limits is not None else Limits()
        self.peer_limits: Limits | None = None
        self.version: int | None = None
        self.state = ConnectionState.NEW
        self._peer = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        self._reader = Reader()
        self._preface_sent = False
        self._versions: list[int] = list(VERSIONS)  # those that the client offers
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._failure: RemoteProtocolError | None = None
        #: Most bytes of a frame that may be sent, its length included. The other side's limit holds
        #: once the handshake is over; Welcome itself comes before.
        self._max_frame_out = HEADER + HANDSHAKE_MAX_FRAME

    def __repr__(self) -> str:
        streams, held = len(self._streams), len(self._reader)
        return f"<Connection {self.role} {self.state}, {streams} streams, {held} bytes buffered>"

    # -- receiving ----------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that arrived; b"" means that the other side has closed its end.

        Raises:
            LocalProtocolError: bytes after b"".
        """
        if not data:
            self._reader.ended = True
        elif self._reader.ended:
            raise LocalProtocolError("data after the end of the data")
        elif self.state is not ConnectionState.CLOSED:
            self._reader.feed(data)

    def next_event(self) -> ev.Event | None:
        """The next event, or None when more data is needed.

        ConnectionClosed is the last event, and every later call returns it again.

        Raises:
            RemoteProtocolError: the other side broke the protocol. The connection is then closed;
                every later call raises the same error.
        """
        while True:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self.state is ConnectionState.CLOSED:
                return ev.ConnectionClosed() if self._reader.ended else None
            event: ev.Frame | ev.Invalid | None
            body = None
            try:
                body = self._reader.next_body()
                event = None if body is None else decode(body)
            except BadValueError as error:
                event = self._invalid(error)
            except FrameError as error:
                raise self._fail(error.code, error.message) from None
            if event is None:
                if body is not None:
                    self._ignore()
                    continue
                if self._reader.ended:
                    self._close()
                    continue
                return None
            received = self._receive(event)
            if received is not None:
                return received

    def _ignore(self) -> None:
        """A frame of a kind that is reserved for hints: there are none before the handshake."""
        if self.state not in STREAMS_LIVE:
            raise self._fail(ErrorCode.UNKNOWN_KIND, f"a hint while {self.state}")

    def _invalid(self, error: BadValueError) -> ev.Invalid:
        """What a client asks for wrongly ends its stream; anything else wrong, the connection."""
        kind, number = error.kind, error.stream
        by_client = self.role is Role.SERVER and number and may_send(self._peer, kind, number)
        if not by_client or self.state not in STREAMS_LIVE:
            raise self._fail(error.code, error.message) from None
        return ev.Invalid(number, kind, error.message)

    def _receive(self, event: ev.Frame | ev.Invalid) -> ev.Event | None:
        """Apply an event of the other side; returns what it means, None if it is dropped."""
        kind = event.request if isinstance(event, ev.Invalid) else event.KIND
        name = kind.name.lower()
        number: int = getattr(event, "stream", 0)
        if not may_send(self._peer, kind, number):
            raise self._fail(
                ErrorCode.UNEXPECTED_FRAME, f"a {self._peer} does not send {name} here"
            )
        if number == 0:
            state = CONNECTION_TABLE[self.state].get(kind)
            if state is None:
                raise self._fail(ErrorCode.UNEXPECTED_FRAME, f"{name} while {self.state}")
            if isinstance(event, ev.Hello | ev.Welcome):
                self._greeted(event)
            self._become(state)
            return event
        if self.state not in STREAMS_LIVE:
            raise self._fail(ErrorCode.UNEXPECTED_FRAME, f"{name} while {self.state}")
        return self._receive_on_stream(event, kind, number)

    def _receive_on_stream(
        self, event: ev.Frame | ev.Invalid, kind: Kind, number: int
    ) -> ev.Event | None:
        stream = self._streams.get(number)
        if stream is None:
            if kind in OPENING and number > self._last_stream:
                if len(self._streams) >= self.limits.max_streams:
                    raise self._fail(
                        ErrorCode.TOO_MANY_STREAMS,
                        f"at most {self.limits.max_streams} streams may be open",
                    )
                self._open(event, kind, number)
                return event
            if kind in MAY_ARRIVE_LATE and number <= self._last_stream:
                return None
            raise self._fail(
                ErrorCode.UNEXPECTED_FRAME, f"{kind.name.lower()} on stream {number}, not open"
            )
        state = STREAM_TABLE[stream.state].get(kind)
        if state is None:
            raise self._fail(
                ErrorCode.UNEXPECTED_FRAME,
                f"{kind.name.lower()} on stream {number}, which is {stream.state}",
            )
        if isinstance(event, ev.Tokens | ev.Vectors):
            self._receive_part(event, stream)
        elif isinstance(event, ev.Credit):
            if stream.credit + event.add > MAX_CREDIT:
                return ev.Invalid(number, kind, f"the credit would be over {MAX_CREDIT}")
            stream.credit += event.add
        self._move(number, stream, state)
        return event

    def _receive_part(self, event: ev.Tokens | ev.Vectors, stream: Stream) -> None:
        size = self._reader.frame_size
        if isinstance(event, ev.Tokens) and not stream.fits(event, size):
            raise self._fail(
                ErrorCode.FLOW_CONTROL,
                f"{size} bytes of tokens on stream {event.stream}, whose credit is {stream.credit}",
            )
        if event.first != stream.sequence:
            raise self._fail(ErrorCode.UNEXPECTED_FRAME, gap(event, stream.sequence))
        stream.advance(event, size)

    def _greeted(self, event: ev.Hello | ev.Welcome) -> None:
        self.peer_limits = Limits(event.max_frame, event.max_streams)
        if isinstance(event, ev.Hello):
            self.version = next((v for v in VERSIONS if v in event.versions), None)
            wrong = f"{event.versions[:16]}; this server speaks {list(VERSIONS)}"
        else:
            self.version = event.version if event.version in self._versions else None
            wrong = f"{event.version}; this client offered {self._versions}"
        if self.version is None:
            raise self._fail(ErrorCode.UNSUPPORTED_VERSION, f"no common version: {wrong}")
        if isinstance(event, ev.Welcome):
            self._reader.max_frame = self.limits.max_frame

    def _fail(self, code: ErrorCode, message: str) -> RemoteProtocolError:
        """Close the connection; the error carries what to send before closing the socket."""
        reply = encode(ev.Error(0, code, message))
        if not self._preface_sent:
            reply = PREFACE + reply
        self._failure = RemoteProtocolError(code, message, reply)
        self._close()
        return self._failure

    # -- sending ------------------------------------------------------------------------------

    def send(self, event: ev.Frame) -> bytes:
        """The bytes of `event`, after checking that it may be sent now.

        Raises:
            LocalProtocolError: it may not. Nothing has changed.
            FrameTooLargeError: it is larger than the peer's largest frame.
        """
        kind = event.KIND
        name = kind.name.lower()
        number: int = getattr(event, "stream", 0)
        if type(number) is not int or not 0 <= number <= MAX_STREAM:
            raise LocalProtocolError(f"a stream number is 0 to {MAX_STREAM}, not {number!r}")
        if not may_send(self.role, kind, number):
            raise LocalProtocolError(f"a {self.role} does not send {name} on stream {number}")
        if number == 0:
            return self._send_on_connection(event, kind)
        stream = self._streams.get(number)
        if self.state not in STREAMS_LIVE or (
            stream is None and kind in OPENING and self.state is ConnectionState.DRAINING
        ):
            raise LocalProtocolError(f"{name} while the connection is {self.state}")
        if stream is None:
            self._check_opening(kind, number)
            data = self._encode(event)
            self._open(event, kind, number)
            return data
        state = STREAM_TABLE[stream.state].get(kind)
        if state is None:
            raise LocalProtocolError(f"{name} on stream {number}, which is {stream.state}")
        data = self._encode(event)
        if isinstance(event, ev.Tokens | ev.Vectors):
            if isinstance(event, ev.Tokens):
                self._check_tokens(event, stream, data)
            self._charge(event, stream, data)
        elif isinstance(event, ev.Credit):
            if stream.credit + event.add > MAX_CREDIT:
                raise LocalProtocolError(f"the credit of stream {number} is over {MAX_CREDIT}")
            stream.credit += event.add
        self._move(number, stream, state)
        return data

    def send_tokens(
        self, event: ev.Tokens, packed: Sequence[Any] | None = None
    ) -> tuple[bytes, int]:
        """The bytes of as many pieces of `event` as credit and the peer's limit allow now.

        Args:
            packed: as in `encode_tokens`.

        Returns:
            the bytes and the number of pieces in them; (b"", 0) while the stream has no credit.
            One piece is always sent while any credit is left, so that no piece can block a stream.

        Raises:
            LocalProtocolError: the stream cannot carry tokens now.
            FrameTooLargeError: one piece alone is larger than the peer's largest frame.
        """
        stream = self._streams.get(event.stream)
        if stream is None or stream.state is not StreamState.RUNNING or self.role is Role.CLIENT:
            raise LocalProtocolError(f"tokens on stream {event.stream}, which is not running")
        credit = stream.credit
        if credit <= 0:
            return b"", 0
        if event.first != stream.sequence:
            raise LocalProtocolError(gap(event, stream.sequence))
        most = self._max_frame_out
        count = len(event.pieces)
        try:
            data = encode_tokens(event, packed)
            while len(data) > most or (count > 1 and len(data) > credit):
                if count == 1:
                    raise FrameTooLargeError(f"piece {event.first}: {self._too_large(len(data))}")
                # Pieces are of similar size, so aim for the room that there is.
                count = max(1, min(count - 1, count * min(credit, most) // len(data)))
                event = ev.Tokens(
                    event.stream,
                    event.first,
                    event.pieces[:count],
                    None if event.ids is None else event.ids[:count],
                    None if event.logprobs is None else event.logprobs[:count],
                )
                packed = None if packed is None else packed[:count]
                data = encode_tokens(event, packed)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from None
        stream.credit = credit - len(data)
        stream.sequence += count
        return data, count

    def send_pieces(self, number: int, first: int, pieces: list[str]) -> bytes:
        """The bytes of pieces of text alone, as `send_tokens` of all of them: nearly every token
        goes this way.

        Returns:
            b"" where `send_tokens` is to say what goes: nothing has changed.
        """
        stream = self._streams.get(number)
        if (
            stream is None
            or stream.state is not _RUNNING
            or first != stream.sequence
            or first > MAX_SEQUENCE
            or self.role is _CLIENT
        ):
            return b""
        data = encode_pieces(number, first, pieces)
        size = len(data)
        credit = stream.credit
        if size > self._max_frame_out or credit <= 0 or (size > credit and len(pieces) > 1):
            return b""
        stream.credit = credit - size
        stream.sequence = first + len(pieces)
        return data

    def credit(self, stream: int) -> int:
        """Bytes of tokens frames still allowed on a stream; 0 if it is not open."""
        found = self._streams.get(stream)
        return 0 if found is None else max(0, found.credit)

    def is_open(self, stream: int) -> bool:
        """Whether the stream has begun and not ended."""
        return stream in self._streams

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def buffered(self) -> int:
        """Bytes received and not yet taken: less than one frame, after next_event returned None."""
        return len(self._reader)

    def _send_on_connection(self, event: ev.Frame, kind: Kind) -> bytes:
        state = CONNECTION_TABLE[self.state].get(kind)
        if state is None:
            raise LocalProtocolError(f"{kind.name.lower()} while the connection is {self.state}")
        if isinstance(event, ev.Welcome) and event.version != self.version:
            raise LocalProtocolError(f"version {event.version}; {self.version} was agreed")
        data = self._encode(event)
        if isinstance(event, ev.Hello | ev.Welcome):
            self.limits = Limits(event.max_frame, event.max_streams)
        if isinstance(event, ev.Hello):
            self._versions = list(event.versions)
        if isinstance(event, ev.Welcome):
            self._reader.max_frame = self.limits.max_frame
        if not self._preface_sent:
            data = PREFACE + data
            self._preface_sent = True
        self._become(state)
        return data

    def _check_opening(self, kind: Kind, number: int) -> None:
        name = kind.name.lower()
        if kind not in OPENING:
            raise LocalProtocolError(f"{name} on stream {number}, which is not open")
        if number <= self._last_stream:
            raise LocalProtocolError(f"stream numbers only grow; {number} was used before")
        most = self.peer_limits.max_streams if self.peer_limits else 0
        if len(self._streams) >= most:
            raise LocalProtocolError(f"the server allows at most {most} streams at once")

    def _encode(self, event: ev.Frame) -> bytes:
        try:
            data = encode_tokens(event) if isinstance(event, ev.Tokens) else encode(event)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from None
        if len(data) > self._max_frame_out and not isinstance(event, ev.Tokens):
            raise FrameTooLargeError(self._too_large(len(data)))
        return data

    def _too_large(self, size: int) -> str:
        most = self._max_frame_out - HEADER
        return f"a frame of {size - HEADER} bytes is over the other side's max_frame of {most}"

    def _check_tokens(self, event: ev.Tokens, stream: Stream, data: bytes) -> None:
        if not stream.fits(event, len(data)):
            raise LocalProtocolError(f"{len(data)} bytes of tokens; the credit is {stream.credit}")
        if len(data) > self._max_frame_out:
            raise FrameTooLargeError(self._too_large(len(data)))

    def _charge(self, event: ev.Tokens | ev.Vectors, stream: Stream, data: bytes) -> None:
        if event.first != stream.sequence:
            raise LocalProtocolError(gap(event, stream.sequence))
        stream.advance(event, len(data))

    # -- both ---------------------------------------------------------------------------------

    def _become(self, state: ConnectionState) -> None:
        if state is ConnectionState.CLOSED:
            self._close()
        else:
            self.state = state
            if state in STREAMS_LIVE and self.peer_limits is not None:
                self._max_frame_out = HEADER + self.peer_limits.max_frame

    def _close(self) -> None:
        """Nothing more is sent or taken, and no stream is open."""
        self.state = ConnectionState.CLOSED
        self._streams.clear()
        self._reader.clear()

    def _open(self, event: ev.Frame | ev.Invalid, kind: Kind, number: int) -> None:
        credit = event.credit if isinstance(event, ev.Generate | ev.Attach) else 0
        sequence = event.first if isinstance(event, ev.Attach) else 0
        self._streams[number] = Stream(STREAM_TABLE[StreamState.IDLE][kind], credit, sequence)
        self._last_stream = number

    def _move(self, number: int, stream: Stream, state: StreamState) -> None:
        if state is StreamState.CLOSED:
            del self._streams[number]
        else:
            stream.state = state

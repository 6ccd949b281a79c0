"""Frames to bytes and back: a big-endian u32 length, then one msgpack array [kind, stream, …].

Hot and tiny frames are positional, the others carry one map. Decoding raises FrameError and no
other exception, for any bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

import msgpack

from . import events as ev
from .errors import ErrorCode
from .guard import declares_too_much
from .kinds import (
    FIRST_IGNORED,
    LAST_IGNORED,
    MAX_CREDIT,
    MAX_FACTS,
    MAX_PING,
    MAX_SEQUENCE,
    MAX_STREAM,
    MAX_TOKEN_ID,
    MAX_UPLOAD_PIECE,
    Kind,
)
from .schema import Check, blob, boolean, integer, list_of, number, record
from .states import OPENING

_STREAM = integer(1, MAX_STREAM)
_ANY_STREAM = integer(0, MAX_STREAM)
_FIRST = integer(0, MAX_SEQUENCE)
_ADD = integer(1, MAX_CREDIT)
_PAYLOAD = blob(MAX_PING)
_PIECE = blob(MAX_UPLOAD_PIECE)
_FACTS = blob(MAX_FACTS)
_TOKEN_ID = integer(0, MAX_TOKEN_ID)
_TOKEN_BYTES = blob(65_536)
_LOGPROB = number(-3.5e38, 3.5e38)
#: msgpack's own, which packs lists in one call; `packb` makes a new packer for each.
_pack = msgpack.Packer().pack
_array_header = msgpack.Packer().pack_array_header
_TEXT = {str}
_VECTOR_LIST = list_of(blob(1 << 24), 65_536, 1)

#: Frames with a map that a client sends on a stream.
REQUESTS = OPENING - {Kind.UPLOAD} | {Kind.CANCEL}
#: Frames about the connection: their stream number is 0.
ON_CONNECTION = frozenset({Kind.HELLO, Kind.WELCOME, Kind.PING, Kind.PONG, Kind.GO_AWAY})

_COLD: dict[Kind, tuple[type[Any], Check]] = {
    # A client says what it wants on its streams, so what the server does not know is refused there.
    cls.KIND: (cls, record(cls.FIELDS, closed=cls.KIND in REQUESTS))
    for cls in (
        ev.Hello,
        ev.Welcome,
        ev.Generate,
        ev.Attach,
        ev.Embed,
        ev.Search,
        ev.ListGenerations,
        ev.Delete,
        ev.Status,
        ev.Cancel,
        ev.Accepted,
        ev.Queue,
        ev.Splice,
        ev.Channel,
        ev.Hits,
        ev.Listing,
        ev.Deleted,
        ev.Done,
        ev.Error,
        ev.GoAway,
        ev.Report,
    )
}
#: The value of a key that is left out.
_DEFAULTS: dict[Kind, dict[str, Any]] = {
    kind: {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(cls)
        if f.name in cls.FIELDS and not cls.FIELDS[f.name].required
    }
    for kind, (cls, _) in _COLD.items()
}


class FrameError(Exception):
    """The bytes are not a frame of this protocol."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= 500 else message[:497] + "..."


class BadValueError(FrameError):
    """The kind and the stream can be read, and what follows them is wrong.

    Attributes:
        kind, stream: of the frame.
    """

    def __init__(self, kind: Kind, stream: int, message: str) -> None:
        super().__init__(ErrorCode.MALFORMED_FRAME, message)
        self.kind = kind
        self.stream = stream


def _refuse_extension(code: int, data: bytes) -> object:
    raise ValueError("msgpack extension types are not used")


def _map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map, each of whose keys is there once."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"a map has the key {twice[:64]!r} twice")
    return found


# -- encoding ---------------------------------------------------------------------------------


def encode(event: ev.Frame) -> bytes:
    """The frame's bytes, its length included.

    Raises:
        ValueError: a value is outside what the protocol allows.
    """
    if isinstance(event, ev.Tokens):
        return encode_tokens(event)
    kind = event.KIND
    if isinstance(event, ev.Ping | ev.Pong):
        return _finish([int(kind), 0, _PAYLOAD(event.payload, "payload")])
    if isinstance(event, ev.Credit):
        return _finish([int(kind), event.stream, _ADD(event.add, "add")])
    if isinstance(event, ev.Durable):
        return _finish([int(kind), event.stream, _FIRST(event.count, "count")])
    if isinstance(event, ev.Upload):
        piece = _PIECE(event.data, "data")
        return _finish([int(kind), event.stream, piece, boolean(event.more, "more")])
    if isinstance(event, ev.Facts):
        facts = _FACTS(event.data, "data")
        return _finish([int(kind), event.stream, facts, boolean(event.more, "more")])
    if isinstance(event, ev.Vectors):
        vectors = _vectors(event.vectors)
        return _finish([int(kind), event.stream, _FIRST(event.first, "first"), vectors])
    cls, check = _COLD[kind]
    values = check({key: getattr(event, key) for key in cls.FIELDS}, kind.name.lower())
    defaults = _DEFAULTS[kind]
    body = {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}
    return _finish([int(kind), getattr(event, "stream", 0), body])


def encode_tokens(event: ev.Tokens, packed: Sequence[Any] | None = None) -> bytes:
    """The bytes of a tokens frame: the path of every token, so it checks only what it must.

    Args:
        packed: the log-probabilities as they are in the frame, in place of the event's: the bytes
            of one entry per piece. They are not checked.

    Raises:
        ValueError: the pieces, ids or log-probabilities are not what the protocol allows.
    """
    pieces = event.pieces
    if type(pieces) is not list or {*map(type, pieces)} != _TEXT:
        _check_pieces(pieces)  # says what is wrong
    if event.first > MAX_SEQUENCE:  # what the other side would refuse; attach may begin there
        raise ValueError(f"first must be at most {MAX_SEQUENCE}")
    body: list[Any] = [19, event.stream, event.first, pieces]
    if packed is not None:
        return _with_packed(body, event, packed)
    if event.ids is not None or event.logprobs is not None:
        body.append(_columns(event))
    try:
        data: bytes = _pack(body)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return len(data).to_bytes(4, "big") + data


def encode_pieces(number: int, first: int, pieces: list[str]) -> bytes:
    """The bytes of a tokens frame of text alone; b"" where it is not, or is not UTF-8."""
    if {*map(type, pieces)} != _TEXT:
        return b""
    try:
        data: bytes = _pack([19, number, first, pieces])
    except (TypeError, ValueError, OverflowError):
        return b""
    return len(data).to_bytes(4, "big") + data


def _with_packed(body: list[Any], event: ev.Tokens, packed: Sequence[Any]) -> bytes:
    """A frame with log-probabilities that are encoded already, as `_columns` would have them."""
    if len(packed) != len(event.pieces):
        raise ValueError("logprobs must hold one entry per piece")
    extra: dict[str, Any] = {}
    if event.ids is not None:
        extra["ids"] = _ids(event.ids, event.pieces)
    # An array of five and a map of one entry more: of so few, the first byte holds the number.
    parts = [b"\x95", _pack(body)[1:], bytes([0x81 + len(extra)])]
    parts += [_pack(value) for entry in extra.items() for value in entry]
    parts += [_pack("logprobs"), _array_header(len(packed)), *packed]
    size = sum(map(len, parts))
    return b"".join([size.to_bytes(4, "big"), *parts])


def _columns(event: ev.Tokens) -> dict[str, Any]:
    """What goes beside the pieces."""
    extra: dict[str, Any] = {}
    if event.ids is not None:
        extra["ids"] = _ids(event.ids, event.pieces)
    if event.logprobs is not None:
        plain = [
            [[t.id, t.bytes, t.logprob, [[c.id, c.bytes, c.logprob] for c in t.top]] for t in piece]
            for piece in event.logprobs
        ]
        _logprobs(plain, event.pieces)
        extra["logprobs"] = plain
    return extra


def _finish(body: list[Any]) -> bytes:
    try:
        data: bytes = msgpack.packb(body)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return len(data).to_bytes(4, "big") + data


# -- decoding ---------------------------------------------------------------------------------


def decode(body: bytes | bytearray) -> ev.Frame | None:
    """The event in a frame's body (without its length); None: its kind is one that is ignored.

    Raises:
        FrameError: not msgpack, of an unknown kind, or of the wrong shape.
    """
    if declares_too_much(body):
        raise FrameError(ErrorCode.MALFORMED_FRAME, "arrays declare more items than there are")
    try:
        frame = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_map,
            ext_hook=_refuse_extension,
            timestamp=0,
        )
    except Exception as error:
        # Mostly ValueError, but also MemoryError: no exception of msgpack may pass this boundary.
        frame = _outline(body, error)
        wrong = _cause(error)
    else:
        wrong = ""
    if type(frame) is not list or len(frame) < 2:
        raise FrameError(ErrorCode.MALFORMED_FRAME, "a frame is an array [kind, stream, ...]")
    number_, stream = frame[0], frame[1]
    try:
        if type(number_) is not int:
            raise ValueError("kind must be an integer")
        if FIRST_IGNORED <= number_ <= LAST_IGNORED:
            _ANY_STREAM.apply(stream, "stream")
            return None
        try:
            kind = Kind(number_)
        except ValueError:
            raise FrameError(ErrorCode.UNKNOWN_KIND, f"there is no kind {number_}") from None
        if kind in ON_CONNECTION:
            if type(stream) is not int or stream != 0:
                raise ValueError(f"{kind.name.lower()} belongs on stream 0")
        elif not (kind is Kind.ERROR and type(stream) is int and stream == 0):
            _STREAM.apply(stream, "stream")
    except ValueError as error:
        raise FrameError(ErrorCode.MALFORMED_FRAME, str(error)) from None
    try:
        if wrong:
            raise ValueError(wrong)
        return _event(kind, stream, frame)
    except ValueError as error:
        raise BadValueError(kind, stream, str(error)) from None


def _outline(body: bytes | bytearray, error: Exception) -> Any:
    """A frame that is msgpack, and holds what this protocol does not allow: its scalars alone.

    Such are a key that is there twice or no string, a string that is not UTF-8, an extension. No
    map is built, since the keys are not checked here.

    Raises:
        FrameError: it is not msgpack; the message is that of the error.
    """
    try:
        return msgpack.unpackb(
            body,
            raw=True,
            strict_map_key=False,
            object_pairs_hook=lambda pairs: None,
            ext_hook=lambda code, data: None,
            timestamp=0,
        )
    except Exception:
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"not msgpack: {_cause(error)}") from None


def _event(kind: Kind, stream: int, frame: list[Any]) -> ev.Frame:
    name = kind.name.lower()
    if kind is Kind.TOKENS:
        return _tokens(stream, frame)
    if kind is Kind.VECTORS:
        _length(frame, 4, name)
        return ev.Vectors(stream, _FIRST(frame[2], "first"), _vectors(frame[3]))
    if kind is Kind.UPLOAD:
        _length(frame, 4, name)
        return ev.Upload(stream, _PIECE(frame[2], "data"), boolean(frame[3], "more"))
    if kind is Kind.FACTS:
        _length(frame, 4, name)
        return ev.Facts(stream, _FACTS(frame[2], "data"), boolean(frame[3], "more"))
    _length(frame, 3, name)
    if kind is Kind.CREDIT:
        return ev.Credit(stream, _ADD(frame[2], "add"))
    if kind is Kind.DURABLE:
        return ev.Durable(stream, _FIRST(frame[2], "count"))
    if kind is Kind.PING:
        return ev.Ping(_PAYLOAD(frame[2], "payload"))
    if kind is Kind.PONG:
        return ev.Pong(_PAYLOAD(frame[2], "payload"))
    cls, check = _COLD[kind]
    values = check(frame[2], name)
    event: ev.Frame = cls(**values) if kind in ON_CONNECTION else cls(stream=stream, **values)
    return event


def _length(frame: list[Any], length: int, name: str) -> None:
    if len(frame) != length:
        raise ValueError(f"{name} is an array of {length}, not of {len(frame)}")


def _tokens(stream: int, frame: list[Any]) -> ev.Tokens:
    if len(frame) not in (4, 5):
        raise ValueError(f"tokens is an array of 4 or 5, not of {len(frame)}")
    first = _FIRST.apply(frame[2], "first")
    pieces = frame[3]
    _check_pieces(pieces)
    if len(frame) == 4:
        return ev.Tokens(stream, first, pieces)
    extra = frame[4]
    if type(extra) is not dict:
        raise ValueError("the fifth element of tokens must be a map")
    ids, logprobs = extra.get("ids"), extra.get("logprobs")
    return ev.Tokens(
        stream,
        first,
        pieces,
        None if ids is None else _ids(ids, pieces),
        None if logprobs is None else _logprobs(logprobs, pieces),
    )


# -- checks of both directions ----------------------------------------------------------------


def _check_pieces(pieces: Any) -> None:
    if type(pieces) is not list or not pieces:
        raise ValueError("pieces must be a list of at least one string")
    for piece in pieces:
        if type(piece) is not str:
            raise ValueError(f"a piece must be a string, not {type(piece).__name__}")


def _column(column: Any, pieces: list[str], name: str) -> list[Any]:
    if type(column) is not list or len(column) != len(pieces):
        raise ValueError(f"{name} must hold one entry per piece")
    return column


def _ids(column: Any, pieces: list[str]) -> list[int | None]:
    ids = _column(column, pieces, "ids")
    return [None if i is None else _TOKEN_ID(i, "ids") for i in ids]


def _logprobs(column: Any, pieces: list[str]) -> list[list[ev.TokenLogprob]]:
    found = []
    for piece in _column(column, pieces, "logprobs"):
        if type(piece) is not list:
            raise ValueError("logprobs must be lists of tokens")
        found.append([_token_logprob(token) for token in piece])
    return found


def _token_logprob(token: Any) -> ev.TokenLogprob:
    if type(token) is not list or len(token) != 4 or type(token[3]) is not list:
        raise ValueError("a token's log-probability is [id, bytes, logprob, top]")
    if any(type(c) is not list or len(c) != 3 for c in token[3]):
        raise ValueError("a candidate is [id, bytes, logprob]")
    top = tuple(ev.TopToken(*_candidate(c)) for c in token[3])
    return ev.TokenLogprob(*_candidate(token[:3]), top)


def _candidate(entry: list[Any]) -> tuple[int, bytes, float | None]:
    logprob = entry[2]
    return (
        _TOKEN_ID(entry[0], "id"),
        _TOKEN_BYTES(entry[1], "bytes"),
        None if logprob is None else _LOGPROB(logprob, "logprob"),
    )


def _vectors(value: Any) -> list[bytes]:
    vectors: list[bytes] = _VECTOR_LIST(value, "vectors")
    if any(len(v) % 4 or len(v) != len(vectors[0]) for v in vectors):
        raise ValueError("vectors must be float32 and of one dimension")
    return vectors


def _cause(error: Exception) -> str:
    text_ = str(error).splitlines()
    return (text_[0] if text_ else "") or type(error).__name__

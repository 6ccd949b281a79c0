"""Frames to bytes and back: a big-endian u32 length, then one msgpack array [kind, stream, …].

Hot and tiny frames are positional, the others carry one map. Decoding raises FrameError and nothing
else, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from . import events as ev
from .errors import ErrorCode
from .kinds import MAX_CREDIT, MAX_PING, MAX_SEQUENCE, MAX_STREAM, Kind
from .schema import blob, integer, list_of, number, record

_STREAM = integer(1, MAX_STREAM)
_FIRST = integer(0, MAX_SEQUENCE)
_ADD = integer(1, MAX_CREDIT)
_PAYLOAD = blob(MAX_PING)
_TOKEN_ID = integer(0, (1 << 31) - 1)
_TOKEN_BYTES = blob(65_536)
_LOGPROB = number(-3.5e38, 3.5e38)
_VECTORS = list_of(blob(1 << 24), 65_536, 1)

#: Frames about the connection: their stream number is 0.
ON_CONNECTION = frozenset({Kind.HELLO, Kind.WELCOME, Kind.PING, Kind.PONG, Kind.GO_AWAY})

_COLD: dict[Kind, tuple[type[Any], Callable[[Any, str], dict[str, Any]]]] = {
    cls.KIND: (cls, record(cls.FIELDS))
    for cls in (
        ev.Hello,
        ev.Welcome,
        ev.Generate,
        ev.Embed,
        ev.Status,
        ev.Cancel,
        ev.Accepted,
        ev.Queue,
        ev.Done,
        ev.Error,
        ev.GoAway,
        ev.Report,
    )
}


class FrameError(Exception):
    """The bytes are not a frame of this protocol."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= 500 else message[:497] + "..."


def _refuse_extension(code: int, data: bytes) -> object:
    raise ValueError("msgpack extension types are not used")


# -- encoding ---------------------------------------------------------------------------------


def encode(event: ev.Frame) -> bytes:
    """The frame's bytes, its length included.

    Raises:
        ValueError: a value is outside what the protocol allows.
    """
    kind = event.KIND
    if type(event) is ev.Tokens:
        return encode_tokens(event)
    if kind in _COLD:
        cls, check = _COLD[kind]
        values = {key: getattr(event, key) for key in cls.FIELDS}
        body = {
            key: value
            for key, value in values.items()
            if cls.FIELDS[key].required
            or not (value is None or value is False or value == [] or value == {})
        }
        stream = getattr(event, "stream", 0)
        check(body, kind.name.lower())
        return _finish([int(kind), stream, body])
    if isinstance(event, ev.Ping | ev.Pong):
        return _finish([int(kind), 0, _PAYLOAD(event.payload, "payload")])
    if isinstance(event, ev.Credit):
        return _finish([int(kind), event.stream, _ADD(event.add, "add")])
    assert isinstance(event, ev.Vectors)
    return _finish([int(kind), event.stream, event.first, _VECTORS(event.vectors, "vectors")])


def encode_tokens(event: ev.Tokens) -> bytes:
    """The bytes of a tokens frame; the path of every token, so it checks nothing."""
    body: list[Any] = [19, event.stream, event.first, event.pieces]
    if event.ids is not None or event.logprobs is not None:
        extra: dict[str, Any] = {}
        if event.ids is not None:
            extra["ids"] = event.ids
        if event.logprobs is not None:
            extra["logprobs"] = [
                [
                    [t.id, t.bytes, t.logprob, [[c.id, c.bytes, c.logprob] for c in t.top]]
                    for t in piece
                ]
                for piece in event.logprobs
            ]
        body.append(extra)
    return _finish(body)


def _finish(body: list[Any]) -> bytes:
    try:
        data: bytes = msgpack.packb(body)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return len(data).to_bytes(4, "big") + data


# -- decoding ---------------------------------------------------------------------------------


def decode(body: bytes | bytearray | memoryview) -> ev.Frame:
    """The event in a frame's body (without its length).

    Raises:
        FrameError: not msgpack, of an unknown kind, or of the wrong shape.
    """
    try:
        frame = msgpack.unpackb(
            body, raw=False, strict_map_key=True, ext_hook=_refuse_extension, timestamp=0
        )
    except Exception as error:
        # msgpack raises half a dozen unrelated classes; none may pass this boundary.
        raise FrameError(ErrorCode.MALFORMED_FRAME, f"not msgpack: {_cause(error)}") from None
    if type(frame) is not list or len(frame) < 2:
        raise FrameError(ErrorCode.MALFORMED_FRAME, "a frame is an array [kind, stream, ...]")
    number_, stream = frame[0], frame[1]
    try:
        if type(number_) is not int:
            raise ValueError("kind must be an integer")
        try:
            kind = Kind(number_)
        except ValueError:
            raise FrameError(ErrorCode.UNKNOWN_KIND, f"there is no kind {number_}") from None
        if kind in ON_CONNECTION:
            if type(stream) is not int or stream != 0:
                raise ValueError(f"{kind.name.lower()} goes on stream 0")
        elif not (kind is Kind.ERROR and type(stream) is int and stream == 0):
            _STREAM(stream, "stream")
        return _event(kind, stream, frame)
    except ValueError as error:
        raise FrameError(ErrorCode.MALFORMED_FRAME, str(error)) from None


def _event(kind: Kind, stream: int, frame: list[Any]) -> ev.Frame:
    name = kind.name.lower()
    if kind is Kind.TOKENS:
        return _tokens(stream, frame)
    if kind is Kind.VECTORS:
        _length(frame, 4, name)
        vectors = _VECTORS(frame[3], "vectors")
        if any(len(v) % 4 or len(v) != len(vectors[0]) for v in vectors):
            raise ValueError("vectors must be float32 and of one dimension")
        return ev.Vectors(stream, _FIRST(frame[2], "first"), vectors)
    _length(frame, 3, name)
    if kind is Kind.CREDIT:
        return ev.Credit(stream, _ADD(frame[2], "add"))
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
    first = _FIRST(frame[2], "first")
    pieces = frame[3]
    if type(pieces) is not list or not pieces:
        raise ValueError("pieces must be a list of at least one string")
    for piece in pieces:
        if type(piece) is not str:
            raise ValueError(f"a piece must be a string, not {type(piece).__name__}")
    if len(frame) == 4:
        return ev.Tokens(stream, first, pieces)
    extra = frame[4]
    if type(extra) is not dict:
        raise ValueError("the fifth element of tokens must be a map")
    ids, logprobs = extra.get("ids"), extra.get("logprobs")
    for name, column in (("ids", ids), ("logprobs", logprobs)):
        if column is not None and (type(column) is not list or len(column) != len(pieces)):
            raise ValueError(f"{name} must hold one entry a piece")
    if ids is not None:
        ids = [None if i is None else _TOKEN_ID(i, "ids") for i in ids]
    if logprobs is not None:
        logprobs = [_logprobs(piece) for piece in logprobs]
    return ev.Tokens(stream, first, pieces, ids, logprobs)


def _logprobs(piece: Any) -> list[ev.TokenLogprob]:
    if type(piece) is not list:
        raise ValueError("logprobs must be lists of tokens")
    found = []
    for token in piece:
        if type(token) is not list or len(token) != 4 or type(token[3]) is not list:
            raise ValueError("a token's log-probability is [id, bytes, logprob, top]")
        if any(type(c) is not list or len(c) != 3 for c in token[3]):
            raise ValueError("a candidate is [id, bytes, logprob]")
        top = tuple(ev.TopToken(*_candidate(c)) for c in token[3])
        found.append(ev.TokenLogprob(*_candidate(token[:3]), top))
    return found


def _candidate(entry: list[Any]) -> tuple[int, bytes, float]:
    return (
        _TOKEN_ID(entry[0], "id"),
        _TOKEN_BYTES(entry[1], "bytes"),
        _LOGPROB(entry[2], "logprob"),
    )


def _cause(error: Exception) -> str:
    text_ = str(error).splitlines()
    return (text_[0] if text_ else "") or type(error).__name__

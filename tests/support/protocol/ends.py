"""Two ends of a connection for tests, and what passes between them."""

from __future__ import annotations

import pickle

import pytest

from llcuda_protocol import (
    Connection,
    Frame,
    Hello,
    RemoteProtocolError,
    Role,
)
from llcuda_protocol.frames import encode
from tools.protocol_starts import LIMITS, begin

HELLO = Hello([1], LIMITS.max_frame, LIMITS.max_streams)


def pair(start: str = "open") -> tuple[Connection, Connection]:
    return begin(Role.CLIENT, start), begin(Role.SERVER, start)


def pass_on(source: Connection, target: Connection, frame: Frame) -> None:
    target.receive_data(source.send(frame))
    assert target.next_event() == frame


def refused(connection: Connection, *frames: Frame | bytes) -> RemoteProtocolError:
    """The error that these cause: whole, byte by byte, and with what follows, the same."""
    data = b"".join(f if isinstance(f, bytes) else encode(f) for f in frames)
    frozen = pickle.dumps(connection)
    first = _failure(connection, [data])
    for chunks in ([data[i : i + 1] for i in range(len(data))], [data + b"what follows"]):
        other = _failure(pickle.loads(frozen), chunks)
        assert (other.code, other.message, other.reply) == (first.code, first.message, first.reply)
    return first


def _failure(connection: Connection, chunks: list[bytes]) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        for chunk in chunks:
            connection.receive_data(chunk)
            while connection.next_event() is not None:
                pass
    return caught.value

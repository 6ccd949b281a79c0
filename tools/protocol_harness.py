"""What must hold of the protocol core for any input at all: the check that fuzzing runs.

The first byte of an input says how it arrives: bit 7, as one frame whose length is made right; bit
6, with more zeros after it than a frame may hold; bits 0 to 5, the size of the chunks, 0 for all at
once. The rest is what arrives, and then the end.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

from llcuda_protocol import (
    PREFACE,
    Connection,
    ConnectionClosed,
    Error,
    ErrorCode,
    Invalid,
    RemoteProtocolError,
    Role,
)
from llcuda_protocol.frames import decode, encode
from llcuda_protocol.kinds import HEADER
from tools.protocol_starts import LIMITS, begin

ZEROS = bytes(LIMITS.max_frame)


def make_check(role: Role, start: str) -> Callable[[bytes], None]:
    """The function that takes one input and fails on whatever must not happen.

    An input must give events that may be sent again, or can be answered by an error on their
    stream, or RemoteProtocolError with a reply that the other side can read; no other exception,
    and never more than one frame kept in memory.
    """
    frozen = pickle.dumps(begin(role, start))  # thawing it is quicker than a handshake

    def check(data: bytes) -> None:
        how, arriving = (data[0], data[1:]) if data else (0, b"")
        if how & 0x80:
            arriving = len(arriving).to_bytes(HEADER, "big") + arriving
            if start == "new":
                arriving = PREFACE + arriving
        size = how & 0x3F or len(arriving) or 1
        chunks = [arriving[at : at + size] for at in range(0, len(arriving), size)]
        if how & 0x40:
            chunks += [ZEROS, ZEROS]
        connection = pickle.loads(frozen)
        for chunk in chunks:
            connection.receive_data(chunk)
            if _is_over(connection):
                return
        connection.receive_data(b"")
        assert _is_over(connection)

    return check


def _is_over(connection: Connection) -> bool:
    """Take every event that there is, and look at each."""
    while True:
        try:
            event = connection.next_event()
        except RemoteProtocolError as error:
            _check_failure(connection, error)
            return True
        assert connection.open_streams <= LIMITS.max_streams
        if event is None:
            assert connection.buffered < HEADER + LIMITS.max_frame
            return connection.state == "closed"
        if isinstance(event, ConnectionClosed):
            return True
        if isinstance(event, Invalid):
            assert connection.role is Role.SERVER
            assert connection.is_open(event.stream)
            connection.send(Error(event.stream, ErrorCode.INVALID_REQUEST, event.message))
            assert not connection.is_open(event.stream)
            continue
        assert decode(encode(event)[HEADER:]) == event


def _check_failure(connection: Connection, error: RemoteProtocolError) -> None:
    assert error.code in ErrorCode
    assert connection.buffered == connection.open_streams == 0
    reader = Connection(Role.SERVER if connection.role is Role.CLIENT else Role.CLIENT)
    reader.receive_data(error.reply if error.reply.startswith(PREFACE) else PREFACE + error.reply)
    assert reader.next_event() == Error(0, error.code, error.message)

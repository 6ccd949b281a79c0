"""The tables of states are whole, and the code follows them."""

from __future__ import annotations

import itertools

import pytest

from llcuda_protocol import (
    Connection,
    ConnectionState,
    ErrorCode,
    Kind,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
    StreamState,
)
from llcuda_protocol.frames import ON_CONNECTION, encode
from llcuda_protocol.kinds import SENT_BY, may_send
from llcuda_protocol.states import (
    CONNECTION_TABLE,
    MAY_ARRIVE_LATE,
    OPENING,
    STREAM_TABLE,
    diagram,
)
from tests.support.protocol.every import every
from tests.support.protocol.examples import EXAMPLES
from tools.protocol_starts import begin

#: A stream in each state, with the state of protocol_starts in which it is; 6 is not open.
STREAMS = {
    StreamState.IDLE: ("streams", 6),
    StreamState.RUNNING: ("streams", 1),
    StreamState.WAITING: ("streams", 2),
    StreamState.EMBEDDING: ("streams", 3),
    StreamState.SEARCHING: ("searching", 1),
    StreamState.LISTING: ("listing", 1),
    StreamState.REPORTING: ("streams", 4),
    StreamState.UPLOADING: ("uploading", 1),
    StreamState.DELETING: ("uploading", 3),
    StreamState.CLOSED: ("streams", 5),
}
STARTS = {
    ConnectionState.NEW: "new",
    ConnectionState.GREETED: "greeted",
    ConnectionState.OPEN: "open",
    ConnectionState.DRAINING: "draining",
}


def test_tables_are_whole() -> None:
    assert set(CONNECTION_TABLE) == set(ConnectionState)
    assert set(STREAM_TABLE) == set(StreamState)
    kinds = {kind for row in CONNECTION_TABLE.values() for kind in row}
    assert kinds == ON_CONNECTION | {Kind.ERROR}
    kinds |= {kind for row in STREAM_TABLE.values() for kind in row}
    assert kinds == set(Kind) == SENT_BY[Role.CLIENT] | SENT_BY[Role.SERVER]
    assert {Kind.PING, Kind.PONG, Kind.ERROR} == SENT_BY[Role.CLIENT] & SENT_BY[Role.SERVER]
    assert SENT_BY[Role.CLIENT] > OPENING
    assert SENT_BY[Role.CLIENT] > MAY_ARRIVE_LATE
    assert set(EXAMPLES) == set(Kind)


def test_every_state_can_be_reached_and_left() -> None:
    for table in (CONNECTION_TABLE, STREAM_TABLE):
        reached = {target for row in table.values() for target in row.values()}
        start = next(iter(table))
        assert reached | {start} == set(table)
        for state, row in table.items():
            assert bool(row) == (state != "closed")
    for state, row in STREAM_TABLE.items():
        if state not in (StreamState.IDLE, StreamState.CLOSED):
            assert row[Kind.ERROR] is StreamState.CLOSED  # any request may fail
            assert row[Kind.CANCEL] is state  # or be cancelled, and ends by its reply


@pytest.mark.parametrize("sender", Role)
def test_streams_follow_the_table(sender: Role) -> None:
    cases = itertools.product(StreamState, Kind)
    every(((f"{kind.name} while {state}", sender, state, kind) for state, kind in cases), on_stream)


def on_stream(sender: Role, state: StreamState, kind: Kind) -> None:
    if kind in ON_CONNECTION:
        return
    start, number = STREAMS[state]
    other = Role.SERVER if sender is Role.CLIENT else Role.CLIENT
    frame = EXAMPLES[kind](number)
    source, target = begin(sender, start), begin(other, start)
    late = state is StreamState.CLOSED and kind in MAY_ARRIVE_LATE and sender is Role.CLIENT
    after = STREAM_TABLE[state].get(kind)
    if after is not None and may_send(sender, kind, number):
        assert source.send(frame) == encode(frame)
        target.receive_data(encode(frame))
        assert target.next_event() == frame
        for end in (source, target):
            assert end.is_open(number) == (after is not StreamState.CLOSED)
    else:
        with pytest.raises(LocalProtocolError):
            source.send(frame)
        target.receive_data(encode(frame))
        if late:
            assert target.next_event() is None
        else:
            refuse(target)


@pytest.mark.parametrize("sender", Role)
def test_connections_follow_the_table(sender: Role) -> None:
    cases = itertools.product(STARTS, Kind)
    every(
        ((f"{kind.name} while {state}", sender, state, kind) for state, kind in cases),
        on_connection,
    )


def on_connection(sender: Role, state: ConnectionState, kind: Kind) -> None:
    other = Role.SERVER if sender is Role.CLIENT else Role.CLIENT
    frame = EXAMPLES[kind](0) if kind is Kind.ERROR else EXAMPLES[kind](6)
    source, target = begin(sender, STARTS[state]), begin(other, STARTS[state])
    after = CONNECTION_TABLE[state].get(kind)
    if after is not None and may_send(sender, kind, 0):
        data = source.send(frame)
        target.receive_data(data)
        assert target.next_event() == frame
        assert (source.state, target.state) == (after, after)
    elif state not in (ConnectionState.OPEN, ConnectionState.DRAINING) or kind in ON_CONNECTION:
        with pytest.raises(LocalProtocolError):
            source.send(frame)
        assert source.state == state
        # What begins the other side's bytes is the preface, whatever follows.
        seen = (sender, state) != (Role.CLIENT, ConnectionState.NEW) and not (
            sender is Role.SERVER and state in (ConnectionState.NEW, ConnectionState.GREETED)
        )
        target.receive_data((b"" if seen else b"\x89LLCUDA\n") + encode(frame))
        refuse(target)


def refuse(connection: Connection) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert caught.value.code == ErrorCode.UNEXPECTED_FRAME


def test_a_draining_server_takes_requests_that_crossed() -> None:
    for kind in OPENING:
        frame = EXAMPLES[kind](6)
        server = begin(Role.SERVER, "draining")
        server.receive_data(encode(frame))
        assert server.next_event() == frame
        with pytest.raises(LocalProtocolError):
            begin(Role.CLIENT, "draining").send(frame)


def test_diagram() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "idle --generate, attach--> waiting"
    assert (
        "running --queue, tokens, splice, channel, durable, facts, credit, cancel--> running"
        in lines
    )
    assert "open --ping, pong--> open" in diagram(CONNECTION_TABLE).splitlines()
    assert not any(line.startswith("closed") for line in lines)

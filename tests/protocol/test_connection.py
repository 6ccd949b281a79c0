"""What a connection does over time: handshake, credit, limits, draining, and its end."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from llcuda_protocol import (
    PREFACE,
    Accepted,
    Attach,
    Cancel,
    Connection,
    ConnectionClosed,
    Credit,
    Done,
    Durable,
    Embed,
    Error,
    ErrorCode,
    Frame,
    Generate,
    GoAway,
    Hello,
    Limits,
    LocalProtocolError,
    Ping,
    Pong,
    RemoteProtocolError,
    Report,
    Role,
    Status,
    TokenLogprob,
    Tokens,
    Vectors,
    Welcome,
)
from llcuda_protocol.frames import encode
from llcuda_protocol.kinds import (
    HANDSHAKE_MAX_FRAME,
    HEADER,
    MAX_LINGER,
    MAX_SEQUENCE,
    MAX_STREAM,
)
from tests.support.protocol.ends import HELLO, pair, pass_on, refused
from tools.protocol_starts import begin

# -- handshake --------------------------------------------------------------------------------


def test_handshake() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    pass_on(client, server, Hello([1], 20_000, 7))
    assert (client.state, server.state) == ("greeted", "greeted")
    pass_on(server, client, Welcome(1, 30_000, 9))
    assert (client.state, server.state) == ("open", "open")
    assert client.version == server.version == 1
    assert server.peer_limits == client.limits == Limits(20_000, 7)
    assert client.peer_limits == server.limits == Limits(30_000, 9)


def test_preface_goes_once() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    hello = client.send(HELLO)
    assert hello.startswith(PREFACE)
    server.receive_data(hello)
    server.next_event()
    assert server.send(Welcome(1, 20_000, 9)).startswith(PREFACE)
    assert PREFACE not in server.send(Ping(b""))


def test_limits_announced_are_the_limits_enforced() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER, Limits(1 << 20, 100))
    pass_on(client, server, HELLO)
    pass_on(server, client, Welcome(1, 16_384, 1))
    with pytest.raises(LocalProtocolError, match="max_frame of 16384"):
        client.send(Generate(1, 0, prompt="x" * 16_384))
    pass_on(client, server, Status(1))
    with pytest.raises(LocalProtocolError, match="at most 1 streams"):
        client.send(Status(2))
    assert refused(server, Status(2)).code == ErrorCode.TOO_MANY_STREAMS


def test_welcome_fits_the_handshake_limit() -> None:
    server = begin(Role.SERVER, "greeted")
    features = ["x" * 250] * 40
    with pytest.raises(LocalProtocolError, match="8192"):
        server.send(Welcome(1, 16_384, 8, features=features))
    server.send(Welcome(1, 16_384, 8, features=features[:30]))


def test_large_frames_only_after_the_handshake() -> None:
    client, server = pair()
    pass_on(client, server, Embed(1, ["x" * HANDSHAKE_MAX_FRAME]))
    length = (HANDSHAKE_MAX_FRAME + 1).to_bytes(HEADER, "big")
    assert refused(Connection(Role.SERVER), PREFACE, length).code == ErrorCode.FRAME_TOO_LARGE
    assert refused(begin(Role.SERVER, "greeted"), length).code == ErrorCode.FRAME_TOO_LARGE


def test_version_is_the_one_agreed() -> None:
    server = begin(Role.SERVER, "greeted")
    with pytest.raises(LocalProtocolError, match="agreed"):
        server.send(Welcome(2, 16_384, 8))
    assert server.state == "greeted"


def test_client_takes_only_a_version_that_it_offered() -> None:
    client = Connection(Role.CLIENT)
    client.send(Hello([7, 8], 16_384, 1))
    welcome = encode(Welcome(1, 16_384, 8))
    assert refused(client, PREFACE, welcome).code == ErrorCode.UNSUPPORTED_VERSION


def test_no_common_version() -> None:
    error = refused(Connection(Role.SERVER), Connection(Role.CLIENT).send(Hello([7], 16_384, 1)))
    assert error.code == ErrorCode.UNSUPPORTED_VERSION
    # The reply can be read by the client, which learns why.
    client = begin(Role.CLIENT, "greeted")
    client.receive_data(error.reply)
    event = client.next_event()
    assert isinstance(event, Error)
    assert event.code == "unsupported_version"
    assert "[1]" in event.message


def test_server_can_refuse_before_hello() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    error = Error(0, ErrorCode.TOO_MANY_CONNECTIONS, "full", retry=True)
    client.receive_data(server.send(error))
    assert client.next_event() == error
    assert client.next_event() is None
    client.receive_data(b"")
    assert client.next_event() == client.next_event() == ConnectionClosed()


def test_token_is_not_shown() -> None:
    assert "s3cret" not in repr(Hello([1], 16_384, 1, token="s3cret"))


def test_a_connection_shows_its_state() -> None:
    server = begin(Role.SERVER, "streams")
    server.receive_data(b"\0\0")
    assert repr(server) == "<Connection server open, 4 streams, 2 bytes buffered>"


# -- roles and order --------------------------------------------------------------------------


def test_what_each_side_does_not_say() -> None:
    of_server: list[Frame] = [
        *(Welcome(1, 16_384, 1), Accepted(1, "g"), Tokens(1, 2, ["a"])),
        *(Durable(1, 2), GoAway(1.0)),
    ]
    of_client: list[Frame] = [HELLO, Status(6), Attach(6, "g", 1), Cancel(1), Credit(1, 1)]
    for role, frames in ((Role.CLIENT, of_server), (Role.SERVER, of_client)):
        for frame in frames:
            with pytest.raises(LocalProtocolError, match=f"{role} does not send"):
                begin(role, "streams").send(frame)


def test_client_does_not_stream_tokens() -> None:
    with pytest.raises(LocalProtocolError):
        begin(Role.CLIENT, "streams").send_tokens(Tokens(1, 2, ["a"]))


def test_client_fails_the_connection_and_never_a_stream() -> None:
    client, server = pair("streams")
    with pytest.raises(LocalProtocolError, match="on stream 1"):
        client.send(Error(1, "internal", "x"))
    assert refused(server, Error(1, "internal", "x")).code == ErrorCode.UNEXPECTED_FRAME
    pass_on(client, begin(Role.SERVER, "streams"), Error(0, "internal", "x"))
    assert client.state == "closed"


def test_stream_numbers_on_sending() -> None:
    client = begin(Role.CLIENT, "open")
    wrong: list[Any] = [-1, MAX_STREAM + 1, True, 1.0, "1", None]
    for stream in wrong:
        with pytest.raises(LocalProtocolError):
            client.send(Status(stream))
    assert client.open_streams == 0


def test_a_stream_number_is_used_once() -> None:
    client, server = pair("streams")
    for number in (5, 3, 1):
        with pytest.raises(LocalProtocolError):
            client.send(Status(number))
    pass_on(client, server, Status(6))


def test_late_cancel_and_credit_are_dropped() -> None:
    client, server = pair("streams")
    cancel, credit = client.send(Cancel(1)), client.send(Credit(1, 5))
    pass_on(server, client, Done(1, "stop"))
    server.receive_data(cancel + credit + client.send(Ping(b"after")))
    assert server.next_event() == Ping(b"after")
    assert refused(server, Cancel(6)).code == ErrorCode.UNEXPECTED_FRAME


def test_values_that_the_other_side_would_refuse() -> None:
    server = begin(Role.SERVER, "streams")
    nan, inf = float("nan"), float("inf")
    for frame in (
        Error(1, "internal", "x" * 4097),
        Error(1, "internal", "\ud800"),
        Done(1, "stop", timings={"total": nan}),
        Done(1, "stop", usage={"prompt_tokens": -1}),
        Done(1, "stop", splices=[-1]),
        Error(1, "ahead", "x", durable=-1),
        Durable(1, -1),
        Durable(1, MAX_SEQUENCE + 1),
        Durable(1, True),
        Accepted(2, "g", epoch=-1),
        Vectors(3, 0, [b"1234", b"12345678"]),
        Vectors(3, 0, [b"123"]),
        Vectors(3, -1, [b"1234"]),
        Report(4, {"x": inf}),
        Report(4, {"x": 1 << 64}),
        Report(4, {"x": b"binary"}),
        Report(4, {"x": ("tuple",)}),
        GoAway(10**400),
        Ping(b"x" * 65),
        Tokens(1, 2, []),
        Tokens(1, 2, ["\ud800"]),
        Tokens(1, 2, [b"a"]),  # type: ignore[list-item]
        Tokens(1, 2, ["a"], [1, 2]),
        Tokens(1, 2, ["a"], [-1]),
        Tokens(1, 2, ["a"], None, []),
        Tokens(1, 2, ["a"], None, [[TokenLogprob(1, b"a", -inf)]]),
    ):
        with pytest.raises(LocalProtocolError):
            server.send(frame)
    assert server.credit(1) == 87
    assert server.open_streams == 4
    server.send(Tokens(1, 2, ["a"]))
    client = begin(Role.CLIENT, "open")
    request = Generate(1, 0, prompt="a")
    for asked in (
        replace(request, key="k" * 257),
        replace(request, fresh=1),  # type: ignore[arg-type]
        replace(request, on_disconnect=-1),
        replace(request, on_disconnect=MAX_LINGER + 1),
        replace(request, on_disconnect=inf),
        Attach(1, "g" * 65, 0),
        Attach(1, "g", -1),
        Attach(1, "g", 0, MAX_SEQUENCE + 1),
        Attach(1, "g", 0, epoch=-1),
    ):
        with pytest.raises(LocalProtocolError):
            client.send(asked)
    assert client.open_streams == 0


# -- attached streams -------------------------------------------------------------------------


def test_an_attached_stream_begins_where_it_was_asked_to() -> None:
    client, server = pair("open")
    pass_on(client, server, Attach(1, "g", 1000, 40, 2))
    assert client.credit(1) == server.credit(1) == 1000
    pass_on(server, client, Accepted(1, "g", epoch=2))
    with pytest.raises(LocalProtocolError, match="not from 40"):
        server.send(Tokens(1, 0, ["a"]))
    pass_on(server, client, Tokens(1, 40, ["a", "b"]))
    pass_on(server, client, Tokens(1, 42, ["c"]))
    assert refused(client, Tokens(1, 3, ["d"])).code == ErrorCode.UNEXPECTED_FRAME


def test_streams_of_one_generation_are_apart() -> None:
    client, server = pair("open")
    pass_on(client, server, Attach(1, "g", 20))
    pass_on(client, server, Attach(2, "g", 0, 1))
    for number in (1, 2):
        pass_on(server, client, Accepted(number, "g"))
    pass_on(server, client, Tokens(1, 0, ["a", "b"]))
    assert (server.credit(1), server.credit(2)) == (7, 0)
    assert server.send_tokens(Tokens(2, 1, ["b"])) == (b"", 0)
    pass_on(client, server, Cancel(1, detach=True))
    pass_on(server, client, Done(1, "detached"))
    pass_on(client, server, Credit(2, 1))
    pass_on(server, client, Tokens(2, 1, ["b"]))


def test_durable_needs_no_credit() -> None:
    client, server = pair("open")
    pass_on(client, server, Attach(1, "g", 0, durable=True))
    pass_on(server, client, Accepted(1, "g"))
    for count in (1, 5, MAX_SEQUENCE):
        pass_on(server, client, Durable(1, count))
    assert server.credit(1) == 0


def test_no_piece_beyond_the_last_sequence_number() -> None:
    client, server = pair("open")
    pass_on(client, server, Attach(1, "g", 1000, MAX_SEQUENCE))
    pass_on(server, client, Accepted(1, "g"))
    pass_on(server, client, Tokens(1, MAX_SEQUENCE, ["a"]))
    over = Tokens(1, MAX_SEQUENCE + 1, ["b"])
    for send in (server.send, server.send_tokens):
        with pytest.raises(LocalProtocolError, match=f"at most {MAX_SEQUENCE}"):
            send(over)


# -- the end ----------------------------------------------------------------------------------


def test_draining() -> None:
    client, server = pair("streams")
    crossing = client.send(Status(6))
    pass_on(server, client, GoAway(5.0))
    with pytest.raises(LocalProtocolError, match="draining"):
        client.send(Status(7))
    pass_on(server, client, Tokens(1, 2, ["still"]))
    server.receive_data(crossing)
    assert server.next_event() == Status(6)
    pass_on(server, client, Error(6, ErrorCode.SHUTTING_DOWN, "later", retry=True))
    pass_on(server, client, GoAway(0.0))
    pass_on(client, server, Ping(b""))
    pass_on(server, client, Pong(b""))


@pytest.mark.parametrize("role", Role)
def test_end_at_each_point(role: Role) -> None:
    for start in ("new", "greeted", "open", "streams", "draining"):
        connection = begin(role, start)
        connection.receive_data(b"")
        assert connection.next_event() == connection.next_event() == ConnectionClosed()
        assert (connection.state, connection.open_streams) == ("closed", 0)
        with pytest.raises(LocalProtocolError):
            connection.send(Ping(b""))


def test_end_within_a_frame() -> None:
    wire = Connection(Role.CLIENT).send(HELLO)
    for size in range(len(wire) + 1):
        server = Connection(Role.SERVER)
        server.receive_data(wire[:size])
        server.receive_data(b"")
        if size in (0, len(wire), len(PREFACE)):
            events = [event for event, _ in zip(iter(server.next_event, None), "123", strict=False)]
            assert ConnectionClosed() in events
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                server.next_event()
            assert caught.value.code == ErrorCode.TRUNCATED_FRAME


def test_after_a_failure() -> None:
    _, server = pair("streams")
    first = refused(server, b"\xff\xff\xff\xff")
    assert (server.state, server.open_streams, server.buffered) == ("closed", 0, 0)
    server.receive_data(b"more")
    assert server.buffered == 0
    for _ in range(3):
        with pytest.raises(RemoteProtocolError) as caught:
            server.next_event()
        assert caught.value is first
    for send in (lambda: server.send(Ping(b"")), lambda: server.send_tokens(Tokens(1, 2, ["a"]))):
        with pytest.raises(LocalProtocolError):
            send()


@pytest.mark.parametrize("sender", Role)
def test_after_an_error_on_the_connection(sender: Role) -> None:
    client, server = pair("streams")
    source, target = (client, server) if sender is Role.CLIENT else (server, client)
    data = source.send(Error(0, "internal", "x"))
    target.receive_data(data + encode(Ping(b"ignored")))
    assert isinstance(target.next_event(), Error)
    assert target.next_event() is None
    for end in (source, target):
        assert (end.state, end.open_streams, end.buffered) == ("closed", 0, 0)
        with pytest.raises(LocalProtocolError):
            end.send(Ping(b""))


def test_messages_stay_short_and_on_one_line() -> None:
    server = begin(Role.SERVER, "streams")
    body = {"reason": "stop", "usage": {"evil\n" + "x" * 5000: -1}}
    import msgpack

    client = begin(Role.CLIENT, "streams")
    packed = msgpack.packb([20, 1, body])
    error = refused(client, len(packed).to_bytes(HEADER, "big") + packed)
    assert "\n" not in error.message
    assert len(error.message) <= 500
    assert len(error.reply) < HANDSHAKE_MAX_FRAME
    assert server.open_streams == 4


def test_memory_is_one_frame_at_most() -> None:
    server = begin(Role.SERVER, "open")
    frame = encode(Embed(1, ["x" * 16_000]))
    for size in itertools.accumulate([1000] * 15):
        server.receive_data(frame[size - 1000 : size])
        assert server.next_event() is None
        assert server.buffered == size
    server.receive_data(frame[15_000:])
    assert server.next_event() == Embed(1, ["x" * 16_000])
    assert server.buffered == 0


def test_memory_does_not_grow_with_what_was_taken() -> None:
    server = begin(Role.SERVER, "open")
    frames = [encode(Ping(b"x" * 64))] * 200
    halves = b"".join(frames)
    tracemalloc.start()
    for _ in range(50):  # 700 kB, never ending between two frames
        server.receive_data(halves[:100])
        while server.next_event() is not None:
            pass
        server.receive_data(halves[100:])
        while server.next_event() is not None:
            pass
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 * len(halves)


def test_a_frame_of_no_bytes_is_called_that() -> None:
    assert refused(begin(Role.SERVER, "open"), bytes(4)).message == "a frame of no bytes"

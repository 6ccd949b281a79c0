"""Credit and sequence: what may be sent now, counted alike on both sides."""

from __future__ import annotations

import pytest

from llcuda_protocol import (
    Credit,
    ErrorCode,
    FrameTooLargeError,
    Invalid,
    Kind,
    LocalProtocolError,
    Tokens,
    Vectors,
)
from llcuda_protocol.frames import encode
from llcuda_protocol.kinds import MAX_CREDIT
from tests.support.protocol.ends import pair, pass_on, refused


def test_credit_counts_whole_frames_on_both_sides() -> None:
    client, server = pair("streams")
    assert client.credit(1) == server.credit(1) == 87
    data = server.send(Tokens(1, 2, ["ab", "c"]))
    assert server.credit(1) == 87 - len(data)
    client.receive_data(data)
    client.next_event()
    assert client.credit(1) == server.credit(1)
    pass_on(client, server, Credit(1, 1000))
    assert client.credit(1) == server.credit(1) == 1087 - len(data)
    assert server.credit(99) == 0


def test_one_piece_goes_on_any_credit() -> None:
    client, server = pair("streams")
    big = Tokens(1, 2, ["x" * 500])
    pass_on(server, client, big)
    assert server.credit(1) == client.credit(1) == 0
    with pytest.raises(LocalProtocolError, match="credit"):
        server.send(Tokens(1, 3, ["y"]))
    # The debt is paid first.
    debt = len(encode(big)) - 87
    pass_on(client, server, Credit(1, debt))
    assert server.credit(1) == 0
    assert server.send_tokens(Tokens(1, 3, ["y"])) == (b"", 0)
    pass_on(client, server, Credit(1, 1))
    pass_on(server, client, Tokens(1, 3, ["y"]))


def test_several_pieces_must_fit() -> None:
    client, server = pair("streams")
    over = Tokens(1, 2, ["a", "x" * 75])
    assert len(encode(over)) == 88
    with pytest.raises(LocalProtocolError, match="credit is 87"):
        server.send(over)
    assert refused(client, over).code == ErrorCode.FLOW_CONTROL


def test_credit_has_a_ceiling() -> None:
    client, server = pair("streams")
    with pytest.raises(LocalProtocolError, match="over"):
        client.send(Credit(2, MAX_CREDIT - 99))
    server.receive_data(encode(Credit(2, MAX_CREDIT - 99)))
    assert server.next_event() == Invalid(2, Kind.CREDIT, f"the credit would be over {MAX_CREDIT}")
    assert server.credit(2) == 100


def test_send_tokens_sends_what_fits() -> None:
    client, server = pair("streams")
    pieces = [f"piece {n}" for n in range(100)]
    ids: list[int | None] = list(range(100))
    sent = 0
    frames = 0
    while sent < len(pieces):
        data, count = server.send_tokens(Tokens(1, 2 + sent, pieces[sent:], ids[sent:]))
        if not count:
            pass_on(client, server, Credit(1, 150))
            continue
        client.receive_data(data)
        part = slice(sent, sent + count)
        assert client.next_event() == Tokens(1, 2 + sent, pieces[part], ids[part])
        sent += count
        frames += 1
    assert 5 < frames < 40


def test_send_tokens_keeps_to_the_largest_frame() -> None:
    client, server = pair("streams")
    pass_on(client, server, Credit(1, 1 << 20))
    pieces = ["x" * 5000] * 7
    sizes = []
    while pieces:
        data, count = server.send_tokens(Tokens(1, 2 + 7 - len(pieces), pieces))
        client.receive_data(data)
        assert isinstance(client.next_event(), Tokens)
        sizes.append(count)
        pieces = pieces[count:]
    assert sizes == [3, 3, 1]
    with pytest.raises(FrameTooLargeError, match=r"piece 9: a frame of .* max_frame of 16384"):
        server.send_tokens(Tokens(1, 9, ["x" * 16_384]))


def test_tokens_keep_their_order() -> None:
    client, server = pair("streams")
    for first in (0, 1, 3):
        with pytest.raises(LocalProtocolError, match="not from 2"):
            server.send(Tokens(1, first, ["a"]))
        with pytest.raises(LocalProtocolError, match="not from 2"):
            server.send_tokens(Tokens(1, first, ["a"]))
    assert refused(client, Tokens(1, 3, ["a"])).code == ErrorCode.UNEXPECTED_FRAME


def test_vectors_keep_their_order() -> None:
    client, server = pair("streams")
    with pytest.raises(LocalProtocolError, match="not from 0"):
        server.send(Vectors(3, 1, [b"1234"]))
    pass_on(server, client, Vectors(3, 0, [b"1234", b"5678"]))
    pass_on(server, client, Vectors(3, 2, [b"1234"]))
    assert refused(client, Vectors(3, 2, [b"1234"])).code == ErrorCode.UNEXPECTED_FRAME

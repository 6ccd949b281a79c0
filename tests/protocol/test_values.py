"""Errors in values: what is wrong in a request ends its stream, and no other."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_protocol import (
    Connection,
    Error,
    ErrorCode,
    Generate,
    Invalid,
    Kind,
    LocalProtocolError,
    Ping,
    Role,
    Tokens,
)
from llcuda_protocol.frames import REQUESTS, FrameError, decode, encode
from llcuda_protocol.guard import declares_too_much
from llcuda_protocol.kinds import HEADER
from llcuda_protocol.schema import unknown_key
from tests.support.protocol.any_frame import FRAMES
from tests.support.protocol.ends import pair, pass_on, refused
from tools.protocol_starts import begin

_FREE = 6  # the next stream of a connection in the state "streams"


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER, "big") + body


def request(kind: Kind, stream: int, fields: Any) -> bytes:
    return framed(msgpack.packb([int(kind), stream, fields]))


def answer(server: Connection, data: bytes) -> Invalid:
    server.receive_data(data)
    event = server.next_event()
    assert isinstance(event, Invalid)
    return event


def generate(**fields: Any) -> bytes:
    return request(Kind.GENERATE, _FREE, {"credit": 1, "prompt": "a", **fields})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (generate(key="k" * 257), "generate.key is 257 characters long; at most 256 fit"),
        (request(Kind.LIST, _FREE, {"limit": 0}), "list.limit must be 1 to 1000, not 0"),
        (generate(timeout="1"), "generate.timeout must be a number, not str"),
        (request(Kind.STATUS, _FREE, []), "status must be a map, not list"),
        (framed(msgpack.packb([2, _FREE])), "generate is an array of 3, not of 2"),
        (
            generate(promt="a"),
            "unknown key 'promt' in generate: did you mean 'prompt'?",
        ),
        (
            generate(messages=[{"role": "user", "content": "a", "audio": None, "names": "Ann"}]),
            "unknown key 'names' in an item of generate.messages: did you mean 'name'?",
        ),
        (
            generate(messages=[{"role": "user", "content": "a", "contents": 1}]),
            "unknown key 'contents' in an item of generate.messages: did you mean 'content'?",
        ),
        (request(Kind.STATUS, _FREE, {"all": True}), "unknown key 'all' in status: it has none"),
        (generate(xyz=1), "unknown key 'xyz' in generate: there is nothing like it"),
    ],
)
def test_the_message_names_what_is_wrong(data: bytes, message: str) -> None:
    client, server = pair("streams")
    kind = Kind(data[HEADER + 1])
    assert answer(server, data) == Invalid(_FREE, kind, message)
    server.send(Error(_FREE, ErrorCode.INVALID_REQUEST, message))
    # The connection and its other streams continue.
    pass_on(client, server, Ping(b"still here"))
    pass_on(server, client, Tokens(1, 2, ["a"]))
    assert refused(server, generate()).code == ErrorCode.UNEXPECTED_FRAME  # its number is used up


def test_of_a_long_unknown_key_only_the_beginning_is_shown() -> None:
    """Nor is the nearest name looked for: that takes seconds for a key of a megabyte."""
    message = unknown_key("x" * (1 << 20), "generate", ["x" * 64])
    assert message == f"unknown key '{'x' * 61}...' in generate: it may have {'x' * 64}"
    assert unknown_key(b"x", "status", []) == "the keys of status must be strings"


def test_our_own_client_refuses_unknown_keys_before_they_are_sent() -> None:
    client, _ = pair()
    message: dict[str, Any] = {"role": "user", "content": "a", "function_call": {}}
    with pytest.raises(LocalProtocolError, match="unknown key 'function_call'"):
        client.send(Generate(1, 1, messages=[message]))


@pytest.mark.parametrize(
    "fields",
    [
        b"\x83\xa6credit\x01\xa6prompt\xa1a\xa6prompt\xa1b",
        b"\x83\xa6credit\x01\xa6prompt\xa1a\xa6params\x82\xa5top_k\x01\xa5top_k\x01",
        b"\x83\xa6credit\x01\xa6prompt\xa1a\xa6params\x81\xa1x\x92\x01\x82\xa0\x01\xa0\x02",
    ],
)
def test_a_key_is_in_a_map_once_at_any_depth(fields: bytes) -> None:
    event = answer(begin(Role.SERVER, "streams"), framed(b"\x93\x02\x06" + fields))
    assert event.message.startswith("a map has the key ")
    assert event.message.endswith(" twice")


def test_maps_that_declare_too_much_are_not_decoded() -> None:
    """A decoder that hands over pairs takes memory for as many as the header declares."""
    nested = b"\xdf\x00\x40\x00\x00" * 100 + bytes(4 << 20)
    assert declares_too_much(nested)
    pairs = b"".join(msgpack.packb(f"{n:05}") + b"\xc0" for n in range(40_000))
    assert not declares_too_much(b"\xdf" + (40_000).to_bytes(4, "big") + pairs)


def test_what_is_on_stream_0_or_before_the_handshake_ends_the_connection() -> None:
    for start, data in (
        ("open", framed(msgpack.packb([8, 0, "a string"]))),
        ("open", framed(b"\x92\x02")),
        ("open", framed(b"\xc1")),
        ("open", request(Kind.GENERATE, 0, {})),
        ("greeted", request(Kind.GENERATE, 1, {})),
    ):
        assert refused(begin(Role.SERVER, start), data).code == ErrorCode.MALFORMED_FRAME
    # A server's error in a value is no client's business to work around.
    wrong = request(Kind.DONE, 1, {"reason": 1})
    assert refused(begin(Role.CLIENT, "streams"), wrong).code == ErrorCode.MALFORMED_FRAME


WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [None, -1, 1.5, "x" * 5000, b"x", [], {}, True, [{}], {"": 0}, 1 << 60]
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_value_ends_the_connection(data: st.DataObject) -> None:
    """A request with one value replaced by any other: a request still, or an error on a stream."""
    kind = data.draw(st.sampled_from(sorted(REQUESTS)))
    body = msgpack.unpackb(encode(data.draw(FRAMES[kind]))[HEADER:])
    number = 1 if kind is Kind.CANCEL else _FREE
    fields = body[2]
    key = data.draw(st.sampled_from(sorted(fields)) if fields else st.just("colour"))
    fields[key] = data.draw(WRONG)
    wire = request(kind, number, fields)
    server = begin(Role.SERVER, "streams")
    chunks = data.draw(st.sampled_from([[wire], [bytes([byte]) for byte in wire]]))
    for chunk in [*chunks, encode(Ping(b"after"))]:
        server.receive_data(chunk)
    event = server.next_event()
    if isinstance(event, Invalid):
        assert (event.stream, event.request) == (number, kind)
    else:
        assert event == decode(wire[HEADER:])
    assert server.next_event() == Ping(b"after")
    assert server.is_open(1)


def test_the_message_of_what_is_no_msgpack() -> None:
    with pytest.raises(FrameError, match="not msgpack"):
        decode(b"\x93\x02\x06\x81\xa1")

"""Requests that two programs might read differently are refused, and the connection ends."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MemoryReceiveStream

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.limits import BODY_GRACE, BODY_RATE, MAX_FIELDS, MAX_HEAD
from llcuda_net.server.http.reader import Head, RequestReader
from tests.support.server.http_client import http_rig

POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SECOND = b"GET /echo/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

#: Heads and bodies, and the status that they are answered with.
WRONG = {
    "a trailer": (CHUNKED + b"0\r\nX-A: b\r\n\r\n", 400),
    "a trailer with a line feed alone": (CHUNKED + b"0\r\nX-A: b\n\n", 400),
    "a line feed behind the last chunk": (CHUNKED + b"1\r\na\r\n0\r\n\n", 400),
    "length beside chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks beside a length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400),
    "the same length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400),
    "two lengths in one field": (POST + b"Content-Length: 5, 5\r\n\r\nabcde", 400),
    "a length with a sign": (POST + b"Content-Length: +5\r\n\r\nabcde", 400),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\nabcde", 400),
    "a length in hexadecimal": (POST + b"Content-Length: 0x5\r\n\r\nabcde", 400),
    "a length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\nabcde", 400),
    "a length of many digits": (POST + b"Content-Length: %s\r\n\r\n" % (b"9" * 500), 400),
    "an empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    "nearly chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "a vertical tab before chunked": (
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "a space before the name": (POST + b" Content-Length: 5\r\n\r\nabcde", 400),
    "a folded line": (POST + b"X-A: b\r\n c\r\n\r\n", 400),
    "a line feed alone": (b"POST /echo HTTP/1.1\nHost: localhost\n\n", 400),
    "a line feed alone in a field": (POST + b"X-A: b\nContent-Length: 5\r\n\r\nabcde", 400),
    "a carriage return alone": (POST + b"X-A: b\rContent-Length: 5\r\n\r\nabcde", 400),
    "NUL": (POST + b"X-A: b\x00c\r\n\r\n", 400),
    "NUL in a name": (POST + b"Content-Length\x00: 5\r\n\r\nabcde", 400),
    "no colon": (POST + b"nonsense\r\n\r\n", 400),
    "an empty name": (POST + b": value\r\n\r\n", 400),
    "no host": (b"GET /echo HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
    "another version": (b"GET /echo HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /echo\r\n\r\n", 400),
    "a space in the target": (b"GET /echo /x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "chunks in HTTP/1.0": (
        b"POST /echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "an empty line first": (b"\r\nGET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "an unknown expectation": (POST + b"Expect: wonders\r\nContent-Length: 1\r\n\r\na", 417),
    "a chunk of no size": (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size with a sign": (CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size in other words": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk that is longer than it says": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "a chunk with a line feed alone": (CHUNKED + b"3\nabc\n0\n\n\r\n\r\n", 400),
    "too many fields": (POST + b"X-A: b\r\n" * MAX_FIELDS + b"\r\n", 431),
    "too large a field": (POST + b"X-A: %s\r\n\r\n" % (b"b" * MAX_HEAD), 431),
    "a head that does not end": (POST + b"X-A: %s" % (b"b" * 2 * MAX_HEAD), 431),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_may_be_read_in_two_ways_is_refused(
    name: str, autojump_clock: trio.abc.Clock
) -> None:
    sent, status = WRONG[name]
    async with http_rig() as rig:
        peer = rig.connect()
        await peer.send(sent)
        await peer.send(SECOND)  # must never be answered
        answer = await peer.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.error["message"]
        assert answer.headers["x-request-id"]
        assert await peer.rest() == b""


async def test_chunks_are_put_together(autojump_clock: trio.abc.Clock) -> None:
    body = b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"
    async with http_rig() as rig:
        peer = rig.connect()
        await peer.send(CHUNKED + body)
        assert b'"abcde"' in (await peer.answer()).body
        assert (await peer.ask("GET", "/echo")).status == 200


@pytest.mark.parametrize("whole", [CHUNKED + b"5\r\nabcde\r\n0\r\n\r\n", SECOND])
async def test_a_request_may_come_byte_by_byte(
    whole: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with http_rig() as rig:
        peer = rig.connect()
        for byte in whole:
            await peer.send(bytes([byte]))
            await trio.sleep(0.001)
        assert (await peer.answer()).status == 200
        assert (await peer.ask("GET", "/echo")).status == 200


async def test_a_request_that_follows_at_once_is_not_answered(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with http_rig() as rig:
        peer = rig.connect()
        await peer.send(SECOND + SECOND)
        assert (await peer.answer()).headers["connection"] == "close"
        assert await peer.rest() == b""


async def test_a_slow_head_is_answered_and_a_slow_body_too(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig(handshake_timeout=5.0) as rig:
        peer = rig.connect(first=b"GET")
        begun = trio.current_time()
        answer = await peer.answer()
        assert (answer.status, trio.current_time() - begun) == (408, 5.0)
        peer = rig.connect()
        await peer.send(POST + b"Content-Length: 100\r\n\r\n")
        begun = trio.current_time()
        assert (await peer.answer()).status == 408
        assert trio.current_time() - begun == BODY_GRACE


async def test_a_body_that_comes_fast_enough_may_take_long(autojump_clock: trio.abc.Clock) -> None:
    size = int(3 * BODY_GRACE * BODY_RATE)
    async with http_rig() as rig:
        peer = rig.connect()
        await peer.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(0, size, 2 * BODY_RATE):
            await peer.send(b"x" * 2 * BODY_RATE)
            await trio.sleep(1.9)
        assert (await peer.answer()).status == 200


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_nothing_that_is_sent_raises_or_hangs(data: st.DataObject) -> None:
    parts = st.sampled_from([*(sent for sent, _ in WRONG.values()), SECOND, b"\r\n", b"\n", b""])
    sent = data.draw(st.one_of(st.binary(max_size=200), st.lists(parts, max_size=3).map(b"".join)))
    cut = data.draw(st.integers(0, len(sent)))

    statuses = []

    async def read() -> None:
        stream = MemoryReceiveStream()
        stream.put_data(sent[cut:])
        stream.put_eof()
        reader = RequestReader(stream, sent[:cut])
        try:
            while await reader.wait():
                head = await reader.head()
                if head is None:
                    return
                assert isinstance(head, Head)
                if head.has_body and await reader.body(1000, lambda _: None, None) is None:
                    return
        except HttpError as error:
            statuses.append(error.status)

    trio.run(read)
    assert all(400 <= status < 600 for status in statuses)

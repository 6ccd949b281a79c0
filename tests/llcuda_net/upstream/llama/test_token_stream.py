"""How long a token stream may say nothing: until its first token, and between two."""

from __future__ import annotations

import json

import pytest
import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.poller import TokenStream
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_protocol import ErrorCode

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(**fields: object) -> bytes:
    data = b"data: " + json.dumps({"content": "x", **fields}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def stall_of(
    stream: TokenStream, timeouts: StreamTimeouts, first: float
) -> tuple[str, float]:
    """How it stalls, and when."""
    start = trio.current_time()
    with pytest.raises(RequestError) as caught:
        await stream.watch(timeouts, first)
    assert (caught.value.code, caught.value.retry) == (ErrorCode.UPSTREAM_STALLED, True)
    return caught.value.message, trio.current_time() - start


def test_a_longer_prompt_has_longer() -> None:
    timeouts = StreamTimeouts(stall=1, first=10, a_token=0.1)
    assert timeouts.for_first([1] * 100) == pytest.approx(20)
    assert timeouts.for_first("x" * 400) == pytest.approx(20.1)
    assert timeouts.for_first("") < timeouts.for_first("a longer one")


async def test_no_first_token(autojump_clock: object) -> None:
    stream = TokenStream(lambda events: None)
    stream.data_received(HEAD)  # the head alone shows nothing
    told = await stall_of(stream, StreamTimeouts(stall=60), 7)
    assert told == ("the upstream sent no first token for 7 s", 7)


async def test_no_further_token(autojump_clock: object) -> None:
    stream = TokenStream(lambda events: None)
    timeouts = StreamTimeouts(stall=5)

    async def tokens() -> None:
        stream.data_received(HEAD)
        for _ in range(10):
            await trio.sleep(4)
            stream.data_received(event())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tokens)
        message, after = await stall_of(stream, timeouts, 100)
    assert message == "the upstream sent no token for 5 s"
    assert 45 <= after <= 50


async def test_half_an_event_is_no_token(autojump_clock: object) -> None:
    stream = TokenStream(lambda events: None)
    stream.data_received(HEAD + event())

    async def dribble() -> None:
        for byte in event():
            await trio.sleep(1)
            stream.data_received(bytes([byte]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        message, _ = await stall_of(stream, StreamTimeouts(stall=10), 100)
        nursery.cancel_scope.cancel()
    assert message == "the upstream sent no token for 10 s"


async def test_an_end_ends_the_watch(autojump_clock: object) -> None:
    seen: list[CompletionEvent] = []
    stream = TokenStream(seen.extend)

    async def tokens() -> None:
        await trio.sleep(3)
        stream.data_received(HEAD + event() + event(stop=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tokens)
        await stream.watch(StreamTimeouts(stall=5), 100)
    assert [one.stop for one in seen] == [False, True]
    assert stream.parser.finished
    lost = TokenStream(seen.extend)
    lost.connection_lost("reset")  # before anything has come
    await lost.watch(StreamTimeouts(), 100)
    assert (lost.lost, lost.parser.finished) == ("reset", False)

"""Each code of the protocol reaches the user as its own class, in the async and the sync client.

Over memory streams: the peer refuses every request with the code that its prompt names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgpack
import pytest
import trio
import trio.testing

import llcuda_net
import llcuda_protocol as wire
from llcuda_net import sync
from llcuda_net.client import Client
from llcuda_net.errors import REQUEST_ERRORS, ConnectionRejected
from llcuda_protocol.frames import encode
from tests.support.client.scripted_server import Peer, accepted, linked

#: The codes of requests; the others end the connection.
CODES = sorted(code for code, kind in REQUEST_ERRORS.items() if kind is not ConnectionRejected)


async def refuse(stream: trio.abc.Stream) -> None:
    """Answer each generation with the error that its prompt names."""
    peer = Peer(stream)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await peer.greet()
        while not isinstance(event := await peer.receive(), wire.ConnectionClosed):
            if isinstance(event, wire.Generate):
                code = str(event.prompt)
                await peer.send(wire.Error(event.stream, code, "why", True, retry_after=2.0))


@asynccontextmanager
async def refused() -> AsyncIterator[Client]:
    """A client whose server refuses all."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse, far)
        async with Client.over(near) as client:
            yield client
        nursery.cancel_scope.cancel()


def check(error: llcuda_net.RequestError, code: str) -> None:
    assert type(error) is REQUEST_ERRORS[code]
    assert (error.code, error.message, error.retry, error.retry_after) == (code, "why", True, 2.0)


async def test_the_async_client_raises_the_class_of_each_code() -> None:
    async with refused() as client:
        for code in CODES:
            with pytest.raises(REQUEST_ERRORS[code]) as caught:
                await client.complete(raw=code)
            check(caught.value, code)
        with pytest.raises(llcuda_net.Overloaded):
            await client.complete(raw="overloaded")
        with pytest.raises(llcuda_net.NotFound):
            await client.complete(raw="unknown_model")


def test_the_sync_client_raises_the_class_of_each_code() -> None:
    with sync.Client(refused) as client:
        for code in CODES:
            with pytest.raises(REQUEST_ERRORS[code]) as caught:
                client.generate(raw=code)
            check(caught.value, code)
        with pytest.raises(llcuda_net.UpstreamError):
            client.complete(raw="upstream_stalled")


async def test_an_error_in_the_middle_of_a_stream_has_its_class() -> None:
    async with linked() as (client, peer), accepted(client, peer) as (stream, _):
        await peer.send(wire.Tokens(1, 0, ["half"]), wire.Error(1, "upstream_stalled", "silent"))
        assert await anext(stream) == "half"
        with pytest.raises(llcuda_net.UpstreamStalled):
            await anext(stream)


async def test_errors_of_the_connection_have_their_class() -> None:
    async with linked() as (client, peer):
        await peer.send(wire.Error(0, "flow_control", "you sent too much"))
        with pytest.raises(llcuda_net.ConnectionRejected) as caught:
            await client.status()
        assert caught.value.code == "flow_control"
    async with linked() as (client, _):
        with pytest.raises(llcuda_net.Unsupported):
            await client.search("x")
        with pytest.raises(llcuda_net.InvalidRequest):
            await client.complete("")


async def test_each_part_says_its_state_in_one_line() -> None:
    async with linked() as (client, peer):
        assert "ServerConnection to the server open; 0 streams" in repr(client)
        async with accepted(client, peer) as (stream, _):
            assert repr(stream) == "<Stream 0190-test open, 0 pieces received>"
            assert "1 streams" in repr(client)
            assert "<Reading 0190-test, 0 pieces>: stream 1" in repr(stream._channel)
            await peer.answer(1, "a", "b")
            assert [piece async for piece in stream] == ["a", "b"]
            assert repr(stream) == "<Stream 0190-test stop, 2 pieces received>"
            assert "ended" in repr(stream._channel)
        await peer.stream.aclose()
        with pytest.raises(llcuda_net.ConnectError):
            await client.ping()
        assert "failed: the server closed the connection" in repr(client)
        assert "\n" not in repr(client)


async def test_a_value_that_the_protocol_does_not_allow_is_refused_before_it_is_sent() -> None:
    """By name, and the connection takes the next request."""
    message = {"role": "user", "content": "a", "mood": "good"}
    async with linked() as (client, peer):
        for kind, match, wrong in (
            (llcuda_net.InvalidRequest, "generate.key is 257 characters", {"key": "k" * 257}),
            (llcuda_net.InvalidRequest, "finite numbers", {"temperature": float("nan")}),
            (llcuda_net.InvalidRequest, "unknown key 'mood'", {"messages": [message]}),
            (llcuda_net.FrameTooLarge, "max_frame of 4194304", {"raw": "x" * (5 << 20)}),
        ):
            what = () if wrong.keys() & {"messages", "raw"} else ("hello",)
            with pytest.raises(kind, match=match) as caught:
                await client.complete(*what, **wrong)
            assert "\n" not in str(caught.value)
        async with accepted(client, peer) as (stream, request):
            await peer.answer(request.stream, "a")
            assert [piece async for piece in stream] == ["a"]


async def test_what_the_server_says_of_a_value_ends_its_stream_alone() -> None:
    async with linked() as (client, peer), accepted(client, peer) as (stream, request):
        for code, kind in (
            ("invalid_request", llcuda_net.InvalidRequest),
            ("frame_too_large", llcuda_net.FrameTooLarge),
        ):

            async def refuse_next(code: str = code) -> None:
                refused = await peer.expect(wire.Generate)
                await peer.send(wire.Error(refused.stream, code, "unknown key 'x' in generate"))

            trio.lowlevel.spawn_system_task(refuse_next)
            with pytest.raises(kind, match="unknown key 'x' in generate"):
                await client.complete("hello")
        await peer.answer(request.stream, "a", "b")
        assert [piece async for piece in stream] == ["a", "b"]


async def test_keys_that_a_newer_server_adds_are_ignored() -> None:
    """In replies: what is told may grow, what is asked for may not."""

    def newer(frame: wire.Frame) -> bytes:
        body = msgpack.unpackb(encode(frame)[4:])
        body[2]["mood"] = {"good": [1, None]}
        packed: bytes = msgpack.packb(body)
        return len(packed).to_bytes(4, "big") + packed

    async with linked() as (client, peer), accepted(client, peer) as (stream, request):
        number = request.stream
        await peer.send(wire.Tokens(number, 0, ["a"]))
        await peer.stream.send_all(newer(wire.Queue(number, 0)))
        await peer.stream.send_all(newer(wire.Done(number, "stop")))
        assert [piece async for piece in stream] == ["a"]
        assert stream.result.reason == "stop"

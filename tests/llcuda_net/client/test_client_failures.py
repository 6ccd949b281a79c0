"""The async client when the server refuses, breaks, goes away, is silent, or is something else.

No sockets and no real time: `autojump_clock` where something is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client import Client
from llcuda_net.errors import ConnectError, RequestError
from tests.support.client.scripted_server import Peer, accepted, linked

# -- failures -----------------------------------------------------------------------------------


async def test_an_error_frame_is_raised_after_what_came_before_it() -> None:
    async with linked() as (client, peer), accepted(client, peer) as (stream, _):
        await peer.send(
            wire.Tokens(1, 0, ["half"]),
            wire.Error(1, "upstream_error", "it broke", retry=True, retry_after=1.5),
        )
        assert await anext(stream) == "half"
        for _ in range(2):
            with pytest.raises(RequestError, match="it broke") as caught:
                await anext(stream)
            error = caught.value
            assert (error.code, error.retry, error.retry_after) == ("upstream_error", True, 1.5)


async def test_a_refused_request_leaves_the_connection_usable() -> None:
    async with linked() as (client, peer):
        async with trio.open_nursery() as nursery:

            async def refuse() -> None:
                await peer.expect(wire.Generate)
                await peer.send(wire.Error(1, "overloaded", "full"))

            nursery.start_soon(refuse)
            with pytest.raises(RequestError, match="full"):
                await client.complete("x")
        async with accepted(client, peer):
            pass


async def close(peer: Peer) -> None:
    await peer.stream.aclose()


async def close_in_a_frame(peer: Peer) -> None:
    frame = peer.connection.send(wire.Tokens(1, 0, ["never seen"]))
    await peer.stream.send_all(frame[:-3])
    await peer.stream.aclose()


async def nonsense(peer: Peer) -> None:
    await peer.stream.send_all(b"\0\0\0\2\xc1\xc1")


async def out_of_sequence(peer: Peer) -> None:
    await peer.stream.send_all(b"\0\0\0\7\x94\x13\x01\x05\x91\xa1x")


async def connection_error(peer: Peer) -> None:
    await peer.send(wire.Error(0, "flow_control", "you sent too much"))


@pytest.mark.parametrize(
    ("act", "kind", "told"),
    [
        (close, ConnectError, "closed the connection before the answer was complete"),
        (close_in_a_frame, ConnectError, "in the middle of a frame"),
        (nonsense, ConnectError, "broke the protocol"),
        (out_of_sequence, ConnectError, "broke the protocol"),
        (connection_error, RequestError, "you sent too much"),
    ],
)
async def test_a_lost_connection_meets_every_stream_once_what_came_is_read(
    act: Callable[[Peer], Any], kind: type[Exception], told: str
) -> None:
    async with linked() as (client, peer):
        async with (
            accepted(client, peer) as (one, _),
            accepted(client, peer) as (two, _),
        ):
            await peer.send(wire.Tokens(2, 0, ["a"]))
            await act(peer)
            with pytest.raises(kind, match=told):
                await anext(one)
            assert await anext(two) == "a"
            with pytest.raises(kind, match=told):
                await anext(two)
            with pytest.raises(RuntimeError, match="no result"):
                _ = two.result
        for use in (client.complete("x"), client.embed(["x"]), client.status(), client.ping()):
            with pytest.raises(kind, match=told):
                await use


async def test_going_away_lets_streams_finish_and_refuses_new_ones() -> None:
    async with linked() as (client, peer):
        async with accepted(client, peer) as (stream, _):
            await peer.send(wire.GoAway(30.0, "the server is shutting down"))
            await peer.send(wire.Tokens(1, 0, ["a"]))
            assert await anext(stream) == "a"
            with pytest.raises(RequestError, match="shutting down") as caught:
                await client.complete("x")
            assert (caught.value.code, caught.value.retry) == ("shutting_down", True)
            await peer.answer(1, "b", first=1)
            assert [piece async for piece in stream] == ["b"]
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectError, match="has shut down"):
            await client.ping()


async def test_waiting_for_room_ends_with_the_connection() -> None:
    async def wait(client: Client) -> None:
        with pytest.raises(ConnectError, match="closed"):
            await client.complete("x")

    async with (
        linked(max_streams=1) as (client, peer),
        accepted(client, peer),
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(wait, client)
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.aclose()


async def test_the_client_cannot_be_used_after_its_block() -> None:
    async with linked() as (client, peer):
        pass
    with pytest.raises(ConnectError, match="is closed"):
        await client.complete("x")
    assert await peer.receive() == wire.ConnectionClosed()


# -- the handshake ------------------------------------------------------------------------------


async def test_the_hello_carries_the_token_and_limits() -> None:
    async with linked(token="s3cret") as (_, peer):
        assert peer.hello is not None
        assert peer.hello.token == "s3cret"
        assert 1 in peer.hello.versions


async def meet(first: bytes, *, end: bool = True, **options: Any) -> None:
    """Connect to something that says `first`, whatever it is told, and then perhaps closes."""
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(first)
    if end:
        await far.send_eof()
    async with Client.over(near, name="box:9000", **options):
        raise AssertionError("greeted")


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server"),
        (b"<!DOCTYPE HTML>", "an HTTP server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "an SSH server"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "--tls"),
        (b"220 mail ESMTP\r\n", "a mail or FTP server"),
        (b"hello", "not an llcuda-server"),
        (b"", "closed the connection without a greeting"),
        (wire.PREFACE[:4], "not an llcuda-server"),
        (wire.PREFACE, "without a greeting"),
    ],
)
async def test_something_else_at_the_other_end_is_named(first: bytes, told: str) -> None:
    with pytest.raises(ConnectError, match=told) as caught:
        await meet(first)
    assert str(caught.value).startswith("box:9000 ")


async def test_a_refused_connection_says_why() -> None:
    server = wire.Connection(wire.Role.SERVER)
    refusal = server.send(wire.Error(0, "unauthorized", "the token is wrong"))
    with pytest.raises(RequestError, match="the token is wrong") as caught:
        await meet(refusal)
    assert caught.value.code == "unauthorized"


async def test_a_server_that_says_nothing_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(ConnectError, match=r"did not greet within 10\.0 s"):
        await meet(b"", end=False)
    assert trio.current_time() == pytest.approx(10, abs=2)


async def test_a_token_too_long_is_refused_here() -> None:
    with pytest.raises(RequestError, match="4096"):
        await meet(b"", end=False, token="x" * 5000)


# -- time ---------------------------------------------------------------------------------------


async def test_a_silent_server_is_pinged_and_then_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with linked(keepalive=20.0) as (client, peer), accepted(client, peer) as (stream, _):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(ConnectError, match="silent for 40 s"):
                    await anext(stream)

            nursery.start_soon(read)
            await peer.expect(wire.Ping)
            assert trio.current_time() - started == pytest.approx(20)
            await peer.send(wire.Pong())  # alive: the clock starts again
            await peer.expect(wire.Ping)
        assert trio.current_time() - started == pytest.approx(60)


async def test_a_server_that_does_not_read_cannot_hold_up_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    peer = Peer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.greet)
        async with Client.over(near) as client:
            nursery.start_soon(swallow, client)
            await trio.testing.wait_all_tasks_blocked()
            started = trio.current_time()
    assert trio.current_time() - started < 5


async def swallow(client: Client) -> None:
    with pytest.raises(ConnectError):
        await client.complete("never read")


async def test_a_send_that_fails_lets_the_last_words_be_read() -> None:
    """The server refuses and closes while the client is sending."""
    near, far = trio.testing.memory_stream_pair()
    peer = Peer(far)

    async def fail() -> None:
        await peer.send(wire.Error(0, "too_many_connections", "too many"))
        raise trio.BrokenResourceError

    trio.lowlevel.spawn_system_task(peer.greet)
    async with Client.over(near) as client:
        near.send_stream.send_all_hook = fail
        with pytest.raises(RequestError, match="too many"):
            await client.complete("x")


async def test_a_send_that_fails_alone_loses_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    peer = Peer(far)

    async def fail() -> None:
        raise trio.BrokenResourceError from OSError(32, "Broken pipe")

    trio.lowlevel.spawn_system_task(peer.greet)
    async with Client.over(near) as client:
        near.send_stream.send_all_hook = fail
        with pytest.raises(ConnectError, match="was lost: broken pipe"):
            await client.complete("x")

"""The client that connects again, where the server says no, has forgotten, or is going away.

No sockets and no real time: every pause is the autojump clock's.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.errors import ConnectError, RequestError
from tests.support.client.attach_server import Lasting
from tests.support.client.scripted_server import Peer

Clock = trio.testing.MockClock


@pytest.fixture
def server() -> Lasting:
    return Lasting()


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- errors that no patience mends ----------------------------------------------------------------


async def test_a_generation_that_went_with_the_server(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        server.logs.clear()
        await server.lose()
        assert [await anext(stream), await anext(stream)] == ["hold", " on"]
        with pytest.raises(RequestError) as caught:
            await anext(stream)
        assert caught.value.code == "unknown_generation"
        assert str(caught.value) == (
            "the generation was lost with the server; the 2 tokens that came are all of it"
        )
        assert stream.text == "hold on"
        assert (await client.complete(raw="goes on")).text == "goes on"


async def test_a_server_that_lost_what_was_read(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        server.refusals = [("ahead", False)]
        await server.lose()
        with pytest.raises(RequestError) as caught:
            _ = [piece async for piece in stream]
        assert (caught.value.code, caught.value.durable) == ("ahead", 1)
        assert str(caught.value) == (
            "the server has lost a part of the 2 tokens that came: the first 1 are the same "
            f"there; read on from there with --attach {stream.id} --from 1 "
            f"(in Python, attach(id, first=1))"
        )
        async with client.attach(stream.id, caught.value.durable or 0) as second:
            assert await anext(second) == " on"


@pytest.mark.parametrize(
    ("greeting", "kind", "told"),
    [
        (wire.Error(0, "unauthorized", "the token is wrong"), RequestError, "the token is wrong"),
        (wire.Error(0, "unsupported_version", "too old"), RequestError, "too old"),
    ],
)
async def test_a_refused_connection_ends_all_waiting(
    server: Lasting,
    autojump_clock: Clock,
    greeting: wire.Error,
    kind: type[Exception],
    told: str,
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        server.greeting = lambda _: greeting
        await server.lose()
        lost = trio.current_time()
        with pytest.raises(kind, match=told):
            _ = [piece async for piece in stream]
        with pytest.raises(kind, match=told):
            await client.complete(raw="x")
        assert trio.current_time() - lost < 1


async def test_another_server_at_the_address_ends_all_waiting(
    server: Lasting, autojump_clock: Clock
) -> None:
    async def stranger() -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return near

    async with (
        server.client(redial=stranger) as client,
        client.generate(raw="hold on") as stream,
    ):
        await server.lose()
        lost = trio.current_time()
        with pytest.raises(ConnectError, match="an HTTP server"):
            _ = [piece async for piece in stream]
        assert trio.current_time() - lost < 2


async def test_a_broken_protocol_is_not_resumed(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        await server.peers[0].stream.send_all(b"\0\0\0\2\xc1\xc1")
        with pytest.raises(ConnectError, match="broke the protocol"):
            _ = [piece async for piece in stream]
        assert server.dials == 1
        # A new request gets a new connection.
        assert (await client.complete(raw="a b")).text == "a b"
        assert server.dials == 2


async def test_a_broken_protocol_ends_waiting_for_room(autojump_clock: Clock) -> None:
    server = Lasting(max_streams=1)
    async with server.client() as client, client.generate(raw="hold on"):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(ConnectError, match="broke the protocol"):
                    await client.complete(raw="x")

            nursery.start_soon(wait)
            await quiet()
            await server.peers[0].stream.send_all(b"\0\0\0\2\xc1\xc1")
        assert server.of(wire.Generate)[1:] == []


async def test_waiting_for_room_outlives_a_loss(autojump_clock: Clock) -> None:
    server = Lasting(max_streams=1)
    async with server.client() as client, trio.open_nursery() as nursery:
        texts: list[str] = []

        async def ask(text: str) -> None:
            texts.append((await client.complete(raw=text)).text)

        nursery.start_soon(ask, "hold on")
        await quiet()
        nursery.start_soon(ask, "new")
        await quiet()
        await server.lose()
        await quiet()
        server.go_on("!", reason="stop")
    assert texts == ["hold on!", "new"]


async def test_an_error_of_the_generation_is_no_loss(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await server.lose()
        await quiet()
        server.go_on(error=("interrupted", "it cannot be continued"), reason="failed")
        with pytest.raises(RequestError, match="cannot be continued") as caught:
            _ = [piece async for piece in stream]
        assert caught.value.code == "interrupted"
        assert stream.text == "hold on"
        assert server.dials == 2
        # Cancelling what has failed tells how it failed.
        assert await client.cancel(stream.id) == "interrupted"


async def test_a_server_without_attach_is_not_resumed(
    server: Lasting, autojump_clock: Clock
) -> None:
    server.features = ("generate", "embed", "status")
    notes: list[str] = []
    async with (
        server.client(on_note=notes.append) as client,
        client.generate(raw="hold on") as stream,
    ):
        assert client.features == {"generate", "embed", "status"}
        for use in (stream.detach(), client.cancel(stream.id)):
            with pytest.raises(RequestError, match="older version") as caught:
                await use
            assert caught.value.code == "unsupported"
        with pytest.raises(RequestError, match="older version"):
            async with client.attach(stream.id):
                pass
        await quiet()
        await server.lose()
        with pytest.raises(ConnectError, match="before the answer was complete"):
            _ = [piece async for piece in stream]
        with pytest.raises(ConnectError, match="closed the connection"):
            await client.complete(raw="x")
    assert (server.dials, notes) == (1, [])


async def test_a_server_that_no_longer_knows_attach(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        server.features = ("generate",)
        await server.lose()
        with pytest.raises(ConnectError, match="cannot resume"):
            _ = [piece async for piece in stream]
        assert (await client.complete(raw="a b")).text == "a b"


# -- refusals that pass ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [
        wire.Error(0, "too_many_connections", "too many", retry=True),
        wire.Error(0, "shutting_down", "going", retry=True),
        wire.Error(0, "handshake_timeout", "too slow"),
    ],
)
async def test_a_connection_refused_for_now_is_tried_again(
    server: Lasting, autojump_clock: Clock, greeting: wire.Error
) -> None:
    notes: list[str] = []

    def refuse(peer: Peer) -> wire.Frame | None:
        return greeting if server.dials < 4 else None

    async with (
        server.client(on_note=notes.append) as client,
        client.generate(raw="hold on") as stream,
    ):
        await quiet()
        server.greeting = refuse
        await server.lose()
        await trio.sleep(5)
        server.go_on("!", reason="stop")
        assert [piece async for piece in stream] == ["hold", " on", "!"]
    assert server.dials == 4
    assert notes == [
        "connection lost after 2 tokens; reconnecting",
        f"no connection yet, trying again: {greeting.message}",
        "resumed at token 2",
    ]


async def test_a_resumption_refused_for_now_is_tried_again(
    server: Lasting, autojump_clock: Clock
) -> None:
    """The server is back before its upstream is."""
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        server.refusals = [("upstream_unavailable", True)] * 5
        await server.lose()
        await trio.sleep(10)
        server.go_on("!", reason="stop")
        assert [piece async for piece in stream] == ["hold", " on", "!"]
        assert server.dials == 2
        assert len(server.of(wire.Attach)) == 6


async def test_a_resumption_refused_for_long_raises_what_the_server_said(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        server.refusals = [("upstream_unavailable", True)] * 100
        await server.lose()
        lost = trio.current_time()
        with pytest.raises(RequestError, match="told so") as caught:
            _ = [piece async for piece in stream]
        assert caught.value.code == "upstream_unavailable"
        assert trio.current_time() - lost == pytest.approx(30)
        assert len(server.of(wire.Attach)) < 30


async def test_a_first_request_refused_is_not_tried_again(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        server.refusals = [("overloaded", True)]
        with pytest.raises(RequestError, match="told so"):
            await client.complete(raw="x")
        assert len(server.of(wire.Generate)) == 1


async def test_streams_that_do_not_fit_the_next_connection_wait_for_room(
    server: Lasting, autojump_clock: Clock
) -> None:
    texts: list[str] = []
    async with server.client() as client, trio.open_nursery() as nursery:

        async def ask(text: str) -> None:
            texts.append((await client.complete(raw=text)).text)

        for _ in range(5):
            nursery.start_soon(ask, "hold on")
        await quiet()
        server._max_streams = 2
        await server.lose()
        await quiet()
        assert len(server.of(wire.Attach)) == 2
        server.go_on("!", reason="stop")
    assert texts == ["hold on!"] * 5
    assert server.dials == 2

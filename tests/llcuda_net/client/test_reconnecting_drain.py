"""The client and a server that stops; and what a person is told of lost connections.

No sockets and no real time: every pause is the autojump clock's.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.errors import RequestError
from tests.support.client.attach_server import Lasting

Clock = trio.testing.MockClock


@pytest.fixture
def server() -> Lasting:
    return Lasting()


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- a server that stops --------------------------------------------------------------------------


async def go_away(server: Lasting) -> None:
    await server.peers[0].send(wire.GoAway(30.0, "the server is shutting down"))
    await quiet()


async def test_a_drain_hands_streams_to_the_next_server(
    server: Lasting, autojump_clock: Clock
) -> None:
    notes: list[str] = []
    async with (
        server.client(on_note=notes.append) as client,
        client.generate(raw="hold on") as stream,
    ):
        await quiet()
        old = server.peers[0]
        await go_away(server)
        assert notes == []  # it may still finish
        server.down = True
        await old.send(wire.Error(1, "shutting_down", "the server stops", retry=True))
        await old.stream.aclose()
        await trio.sleep(3)
        server.down = False
        await trio.sleep(3)
        server.go_on("!", reason="stop")
        assert [piece async for piece in stream] == ["hold", " on", "!"]
    assert notes[0] == "the server is shutting down after 2 tokens; reconnecting"
    assert notes[-1] == "resumed at token 2"


async def test_a_server_that_lost_its_lease_is_not_said_to_shut_down(
    server: Lasting, autojump_clock: Clock
) -> None:
    notes: list[str] = []
    async with (
        server.client(on_note=notes.append) as client,
        client.generate(raw="hold on") as stream,
    ):
        await quiet()
        await server.peers[0].send(wire.Error(1, "lease_lost", "no lease", retry=True))
        await trio.sleep(3)
        server.go_on("!", reason="stop")
        assert [piece async for piece in stream] == ["hold", " on", "!"]
    assert notes[0] == "the server could not go on after 2 tokens; reconnecting"


async def test_what_finishes_within_the_grace_is_not_disturbed(
    server: Lasting, autojump_clock: Clock
) -> None:
    """And a new request waits until the old connection has nothing left."""
    async with server.client() as client, trio.open_nursery() as nursery:
        texts: list[str] = []

        async def ask(text: str) -> None:
            texts.append((await client.complete(raw=text)).text)

        nursery.start_soon(ask, "hold on")
        await quiet()
        await go_away(server)
        nursery.start_soon(ask, "new")
        await trio.sleep(3)
        assert server.dials == 1
        server.go_on("!", reason="stop")
        await trio.sleep(3)
        assert texts == ["hold on!", "new"]
        assert server.dials == 2


async def test_a_drain_longer_than_the_patience_refuses_new_requests(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        await go_away(server)
        started = trio.current_time()
        with pytest.raises(RequestError, match="is shutting down") as caught:
            await client.complete(raw="new")
        assert (caught.value.code, caught.value.retry) == ("shutting_down", True)
        assert trio.current_time() - started == pytest.approx(30)
        assert await client.ping() >= 0
        server.go_on("!", reason="stop")
        assert [piece async for piece in stream] == ["hold", " on", "!"]


async def test_a_generation_in_memory_alone_ends_with_its_server(autojump_clock: Clock) -> None:
    server = Lasting(level="memory")
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        await server.peers[0].send(wire.Error(1, "shutting_down", "the server stops", retry=True))
        with pytest.raises(RequestError, match="the server stops"):
            _ = [piece async for piece in stream]
        assert server.dials == 1


async def test_a_connection_that_says_goodbye_with_its_greeting_is_not_used(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        server.leaving = True
        await server.lose()
        await trio.sleep(1)
        server.leaving = False
        await trio.sleep(5)
        server.go_on("!", reason="stop")
        assert [piece async for piece in stream] == ["hold", " on", "!"]
        assert server.dials > 2


# -- notes ----------------------------------------------------------------------------------------


async def test_notes_about_several_requests(server: Lasting, autojump_clock: Clock) -> None:
    notes: list[str] = []
    async with server.client(on_note=notes.append) as client:
        async with client.generate(raw="hold on"), client.generate(raw="hold") as second:
            await quiet()
            await server.lose()
            await quiet()
            assert notes == [
                "connection lost with 2 requests under way; reconnecting",
                "resumed: 2 requests go on",
            ]
            notes.clear()
            server.down = True
            await server.lose()
            await quiet()
            await second.cancel()
        # Both were left: the client connects once more, to stop them, and says no more of it.
        server.down = False
        await trio.sleep(5)
        assert [log.reason for log in server.logs.values()] == ["cancelled"] * 2
        assert notes[0] == "connection lost with 2 requests under way; reconnecting"
        assert notes[1].startswith("no connection yet")
        assert len(notes) == 2


async def test_notes_about_a_request_without_tokens(server: Lasting, autojump_clock: Clock) -> None:
    notes: list[str] = []
    async with server.client(on_note=notes.append) as client:
        server.refusals = [("shutting_down", True)]
        await client.embed(["a"])
        await server.lose()
        await client.complete(raw="one")
    assert notes == [
        "the server is shutting down; reconnecting",
        "resumed",
        "connection lost; reconnecting",
        "connected again",
    ]

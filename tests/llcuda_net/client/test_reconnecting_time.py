"""When the client that has lost its connection tries again, for how long, and for whom.

No sockets and no real time: every pause is the autojump clock's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client.reconnecting import LONGEST_PAUSE
from llcuda_net.errors import ConnectError
from tests.support.client.attach_server import Lasting

Clock = trio.testing.MockClock


@pytest.fixture
def server() -> Lasting:
    return Lasting()


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- time -----------------------------------------------------------------------------------------


async def test_attempts_grow_apart_and_end_in_time(server: Lasting, autojump_clock: Clock) -> None:
    notes: list[str] = []
    times: list[float] = []

    async def redial() -> trio.abc.Stream:
        times.append(trio.current_time() - lost)
        return await server.dial()

    async with (
        server.client(redial=redial, on_note=notes.append) as client,
        client.generate(raw="hold on") as stream,
    ):
        await anext(stream)
        await anext(stream)
        server.down = True
        await server.lose()
        lost = trio.current_time()
        with pytest.raises(ConnectError) as caught:
            await anext(stream)
        assert trio.current_time() - lost == pytest.approx(30)
        assert str(caught.value) == (
            "gave up after 30 s without a connection: "
            "cannot connect to box:9000: connection refused"
        )
        pauses = [b - a for a, b in pairwise(times)]
        assert times[0] == 0
        for i, pause in enumerate(pauses):
            whole = min(0.1 * 2**i, LONGEST_PAUSE)
            assert whole / 2 <= pause <= whole
        assert len({round(pause / LONGEST_PAUSE, 6) for pause in pauses[5:]}) > 1
        assert notes == [
            "connection lost after 2 tokens; reconnecting",
            "no connection yet, trying again: cannot connect to box:9000: connection refused",
            "gave up after 30 s",
        ]
        # Whoever asks later makes it try again.
        server.down = False
        assert (await client.complete(raw="a b")).text == "a b"
    assert notes[3:] == ["connection lost; reconnecting", "connected again"]


@pytest.mark.parametrize("seconds", [0, 5])
async def test_how_long_it_tries_is_an_option(
    server: Lasting, seconds: float, autojump_clock: Clock
) -> None:
    async with (
        server.client(reconnect=seconds) as client,
        client.generate(raw="hold on") as stream,
    ):
        server.down = True
        await server.lose()
        lost = trio.current_time()
        with pytest.raises(ConnectError):
            _ = [piece async for piece in stream]
        assert trio.current_time() - lost == pytest.approx(seconds)
        if not seconds:
            with pytest.raises(ConnectError, match="closed the connection"):
                await client.ping()
            assert server.dials == 1


async def test_each_loss_has_its_own_time(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        for i in range(4):
            server.down = True
            await server.lose()
            await trio.sleep(25)
            server.down = False
            await trio.sleep(5)
            server.go_on(f" {i}")
        server.go_on(reason="stop")
        assert "".join([piece async for piece in stream]) == "hold on 0 1 2 3"


async def test_a_dial_without_end_is_bounded_too(server: Lasting, autojump_clock: Clock) -> None:
    async with (
        server.client(redial=trio.sleep_forever) as client,
        client.generate(raw="hold on") as stream,
    ):
        await server.lose()
        lost = trio.current_time()
        with pytest.raises(ConnectError, match="box:9000 does not answer"):
            _ = [piece async for piece in stream]
        assert trio.current_time() - lost == pytest.approx(30)


async def test_a_server_that_falls_over_at_every_request_is_asked_with_pauses(
    server: Lasting, autojump_clock: Clock
) -> None:
    """It greets each time, so that connecting alone is no progress."""
    async with server.client() as client:
        server.fragile = True
        await server.lose()
        started = trio.current_time()
        with pytest.raises(ConnectError, match="gave up after 30 s"):
            await client.embed(["a"])
        assert trio.current_time() - started == pytest.approx(30)
        assert server.dials < 50


async def test_closing_while_it_reconnects_ends_at_once(
    server: Lasting, autojump_clock: Clock
) -> None:
    server_down = trio.Event()
    with pytest.raises(KeyError, match="mine"):
        async with server.client() as client, client.generate(raw="hold on"):
            server.down = True
            await server.lose()
            await quiet()
            server_down.set()
            left = trio.current_time()
            raise KeyError("mine")
    assert trio.current_time() == left
    assert server_down.is_set()


async def test_closing_while_it_greets_ends_at_once(server: Lasting, autojump_clock: Clock) -> None:
    async def mute() -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        others.append(far)
        return near

    others: list[trio.abc.Stream] = []
    async with server.client(redial=mute) as client, client.generate(raw="hold on"):
        await server.lose()
        await quiet()
        left = trio.current_time()
    assert len(others) == 1
    assert trio.current_time() == left


@pytest.mark.parametrize("steps", range(40))
async def test_closing_as_the_next_connection_is_made_leaves_nothing_behind(
    server: Lasting, autojump_clock: Clock, steps: int
) -> None:
    async def dial() -> trio.abc.Stream:
        stream = await server.dial()
        dialled.set()
        return stream

    dialled = trio.Event()
    async with server.client(redial=dial) as client, client.generate(raw="hold on"):
        await server.lose()
        await dialled.wait()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        left = trio.current_time()
    assert trio.current_time() == left


# -- requests that come or go meanwhile -----------------------------------------------------------


async def test_new_requests_wait_for_the_next_connection(
    server: Lasting, autojump_clock: Clock
) -> None:
    notes: list[str] = []
    async with server.client(on_note=notes.append) as client:
        server.down = True
        await server.lose()
        await quiet()
        assert notes == []  # nobody needs a connection
        async with trio.open_nursery() as nursery:
            results: list[Any] = []

            async def collect(ask: Any) -> None:
                results.append(await ask())

            for ask in (
                lambda: client.complete(raw="a b"),
                lambda: client.embed(["a"]),
                client.status,
                client.ping,
            ):
                nursery.start_soon(collect, ask)
            await trio.sleep(3)
            assert results == []
            server.down = False
        assert len(results) == 4
        assert notes[0] == "connection lost; reconnecting"
        assert notes[-1] == "connected again"
        server.down = True
        await server.lose()
        await quiet()
        started = trio.current_time()
        for use in (client.complete(raw="x"), client.ping()):
            with pytest.raises(ConnectError, match="gave up after 30 s"):
                await use
        assert trio.current_time() - started == pytest.approx(60)


@pytest.mark.parametrize("what", ["request", "attached stream", "detached stream", "embed"])
async def test_nobody_is_dialled_for_what_nobody_waits_for(
    server: Lasting, autojump_clock: Clock, what: str
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await stream.detach()
        _ = [piece async for piece in stream]
        with trio.move_on_after(5):
            if what == "request":
                server.down = True
                await server.lose()
                await client.complete(raw="never sent")
            elif what == "embed":
                server.down = server.fragile = True
                await client.embed(["a"])
            else:
                async with client.attach(stream.id) as second:
                    server.down = True
                    await server.lose()
                    if what == "detached stream":
                        await second.detach()
                    await trio.sleep_forever()
        dials = server.dials
        assert dials > 3
        await trio.sleep(60)
        assert server.dials <= dials + 1


async def test_a_stream_left_while_the_link_is_down_is_cancelled_on_the_next(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        async with client.generate(raw="hold on") as stream:
            server.down = True
            await server.lose()
            await quiet()
        with pytest.raises(trio.ClosedResourceError):
            _ = [piece async for piece in stream]
        server.down = False
        await trio.sleep(5)
        assert server.of(wire.Cancel) == [wire.Cancel(1)]
        assert server.logs["generation-0"].reason == "cancelled"


async def test_a_stream_cancelled_while_the_link_is_down_is_cancelled_on_the_next(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        server.down = True
        await server.lose()
        await quiet()
        await stream.cancel()
        server.down = False
        assert "".join([piece async for piece in stream]) in ("hold on", "")
        assert stream.result.reason == "cancelled"


async def test_a_cancel_that_the_loss_may_have_eaten_is_sent_again(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        server.cuts = [(None, None)]
        async with client.generate(raw="hold on") as stream:
            await anext(stream)
            server.peers[0].stream.receive_stream.close()  # type: ignore[attr-defined]
        await quiet()
        await trio.sleep(5)
        assert server.logs["generation-0"].reason == "cancelled"

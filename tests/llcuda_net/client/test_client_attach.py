"""Coming back to a generation: attach, detach and cancel by id; keys and policies on the wire.

No sockets and no real time.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client.requests import WINDOW
from llcuda_net.errors import RequestError
from tests.support.client.attach_server import Lasting

Clock = trio.testing.MockClock


@pytest.fixture
def server() -> Lasting:
    return Lasting()


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_attaching_reads_from_anywhere_and_leaving_detaches(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as first:
        async with client.attach(first.id, 1, tokens=True, durable=True) as second:
            assert await anext(second) == " on"
            assert (second.received, second.durable) == (2, 2)
        await quiet()
        assert server.of(wire.Cancel) == [wire.Cancel(2, detach=True)]
        assert server.of(wire.Attach) == [
            wire.Attach(2, first.id, WINDOW, 1, tokens=True, durable=True)
        ]
        server.go_on("!", reason="stop")
        assert [piece async for piece in first] == ["hold", " on", "!"]
        async with client.attach(first.id, epoch=first.epoch) as again:
            assert "".join([piece async for piece in again]) == "hold on!"
        assert server.of(wire.Attach)[-1].epoch == first.epoch == 0
        with pytest.raises(RequestError, match="no such thing") as caught:
            async with client.attach("never"):
                pass
        assert caught.value.code == "unknown_generation"


async def test_an_attached_stream_resumes_as_well(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client:
        async with client.generate(raw="hold on") as first:
            await quiet()
            await first.detach()
            assert [piece async for piece in first] == ["hold", " on"]
            assert first.result.reason == "detached"
        async with client.attach(first.id, 1) as second:
            assert await anext(second) == " on"
            await server.lose()
            await quiet()
            server.go_on("!", reason="stop")
            assert [piece async for piece in second] == ["!"]
    assert server.of(wire.Attach)[-1].first == 2
    assert server.of(wire.Cancel) == [wire.Cancel(1, detach=True)]


async def test_closing_the_client_detaches_what_was_attached_to(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await stream.detach()
    name = stream.id
    async with server.client() as client:
        stream = await client.attach(name).__aenter__()
    assert server.of(wire.Cancel) == [wire.Cancel(1, detach=True)] * 2
    assert server.logs[name].reason == ""


async def test_cancelling_by_id(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        assert await client.cancel(stream.id) == "cancelled"
        assert server.of(wire.Attach) == [wire.Attach(2, stream.id, 0)]
        assert await client.cancel(stream.id) == "cancelled"
        _ = [piece async for piece in stream]
        assert stream.result.reason == "cancelled"
        result = await client.complete(raw="a b")
        assert await client.cancel(result.id or "") == "stop"
        with pytest.raises(RequestError, match="no such thing") as caught:
            await client.cancel("never")
        assert caught.value.code == "unknown_generation"


async def test_cancelling_by_id_outlives_a_loss(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        for peer in server.peers:
            peer.stream.receive_stream.close()  # type: ignore[attr-defined]
        assert await client.cancel(stream.id) == "cancelled"


async def test_keys_policies_and_levels_are_sent(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client:
        for options in (
            {},
            {"key": "mine", "on_disconnect": "continue", "level": "strict", "cache": True},
            {"on_disconnect": "cancel"},
            {"on_disconnect": 2.5},
        ):
            await client.complete(raw="a", **options)
        with pytest.raises(ValueError, match="seconds, not 'never'"):
            client.generate(raw="a", on_disconnect="never")  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="on_disconnect"):
            await client.complete(raw="a", on_disconnect=-1.0)
    one, two, three, four = server.of(wire.Generate)
    assert (len(one.key), one.fresh, one.on_disconnect, one.level) == (32, True, None, None)
    assert (two.key, two.fresh, two.level, two.cache) == ("mine", False, "strict", True)
    assert [g.on_disconnect for g in (two, three, four)] == [10**9, 0, 2.5]
    assert len({one.key, two.key, three.key, four.key}) == 4


async def test_a_request_sent_again_says_that_its_key_is_no_longer_fresh(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        server.refusals = [("shutting_down", True)]
        assert (await client.complete(raw="a b")).text == "a b"
    first, second = server.of(wire.Generate)
    assert (first.fresh, second.fresh) == (True, False)
    assert first.key == second.key
    assert first.prompt == second.prompt == "a b"

"""Conversations that the server has, and generations in the background: what the client sends.

No sockets and no real time.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client.requests import generation_id
from llcuda_net.errors import InvalidRequest, Unsupported
from llcuda_protocol.kinds import MAX_LINGER
from tests.support.client.attach_server import FEATURES, Lasting
from tests.support.client.scripted_server import linked

Clock = trio.testing.MockClock
ID = "01a22853-b9b4-7a4c-a6bd-ac406db7fe85"


@pytest.fixture
def server() -> Lasting:
    server = Lasting()
    server.features = (*FEATURES, "pool", "channels", "delete", "previous")
    return server


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


def asked(server: Lasting) -> wire.Generate:
    found = server.of(wire.Generate)[-1]
    assert isinstance(found, wire.Generate)
    return found


async def test_what_is_sent_of_a_conversation(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client:
        first = await client.complete("hello")
        assert first.id is not None
        assert asked(server).previous is None
        await client.complete("and now?", previous=first.id)
        assert asked(server).previous == first.id
        assert asked(server).messages == [{"role": "user", "content": "and now?"}]
        tool = {"role": "tool", "tool_call_id": "c0", "content": "3"}
        await client.complete(messages=[tool], system="Be brief.", previous=first.id)
        assert asked(server).messages == [{"role": "system", "content": "Be brief."}, tool]
        assert asked(server).chat is None


@pytest.mark.parametrize("prefix", ["", "chatcmpl-", "cmpl-", "resp_", "msg_"])
async def test_ids_of_other_apis_are_taken(
    server: Lasting, prefix: str, autojump_clock: Clock
) -> None:
    assert generation_id(prefix + ID) == ID
    async with server.client() as client:
        result = await client.complete("hello")
        id_ = f"{prefix}{result.id}"
        await client.complete("and now?", previous=id_)
        assert asked(server).previous == result.id
        async with client.attach(id_) as stream:
            assert [piece async for piece in stream] == ["hello"]
        assert await client.cancel(id_) == "stop"
        await client.list(before=id_)
        assert server.of(wire.ListGenerations)[-1].before == result.id
        await client.delete(id_)


async def test_a_tool_of_the_conversation_may_be_chosen(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        await client.complete("a", previous=ID, tool_choice="add")
        chosen = {"type": "function", "function": {"name": "add"}}
        assert asked(server).chat == {"tool_choice": chosen}
        for tools in (None, [{"name": "sub"}]):
            with pytest.raises(InvalidRequest, match="tool_choice is one of"):
                await client.complete(
                    "a", tools=tools, tool_choice="add", previous=ID if tools else None
                )


async def test_what_does_not_go_with_it(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client:
        for prompt, given in (([1, 2], {}), (None, {"raw": "a"})):
            with pytest.raises(TypeError, match="previous= goes with a chat"):
                await client.complete(prompt, previous=ID, **given)
        with pytest.raises(TypeError, match="exactly one"):
            await client.complete(previous=ID)
    assert not server.of(wire.Generate)


async def test_an_earlier_server_is_not_asked(server: Lasting, autojump_clock: Clock) -> None:
    server.features = FEATURES
    async with server.client() as client:
        with pytest.raises(Unsupported, match="cannot go on with a conversation"):
            await client.complete("a", previous=ID)
        assert str(await client.complete("a")) == "a"
    assert len(server.of(wire.Generate)) == 1


async def test_a_loss_before_the_answer_sends_it_again(
    server: Lasting, autojump_clock: Clock
) -> None:
    server.fragile = True
    async with server.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(complete, client, "a")
        await quiet()
        server.fragile = False
    once, again = server.of(wire.Generate)[0], server.of(wire.Generate)[-1]
    assert (once.key, once.previous, once.fresh) == (again.key, ID, True)
    assert (again.previous, again.fresh) == (ID, False)


async def complete(client: Any, text: str) -> None:
    await client.complete(text, previous=ID)


async def test_a_generation_in_the_background_outlives_its_block(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        async with client.generate(raw="hold on", background=True) as stream:
            pass
        await quiet()
        assert server.of(wire.Cancel) == [wire.Cancel(1, detach=True)]
        assert asked(server).on_disconnect == MAX_LINGER
        assert server.logs[stream.id].reason == ""
        server.go_on("!", reason="stop")
        async with client.attach(stream.id) as again:
            assert "".join([piece async for piece in again]) == "hold on!"


async def test_closing_the_client_leaves_it_running(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client:
        stream = await client.generate(raw="hold on", background=True).__aenter__()
    await quiet()
    assert server.of(wire.Cancel) == [wire.Cancel(1, detach=True)]
    assert server.logs[stream.id].reason == ""


async def test_it_can_be_read_and_cancelled_as_any_other(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client:
        async with client.generate(raw="a b", background=True) as stream:
            assert [piece async for piece in stream] == ["a", " b"]
        async with client.generate(raw="hold on", background=True) as stream:
            await stream.cancel()
            _ = [piece async for piece in stream]
            assert stream.result.reason == "cancelled"


async def test_one_whose_id_nobody_has_is_cancelled(autojump_clock: Clock) -> None:
    """Before it was accepted: who gave up cannot come back to it."""
    async with linked(features=FEATURES) as (client, peer):
        with trio.move_on_after(5):
            async with client.generate(raw="a", background=True):
                raise AssertionError("it was accepted")
        await peer.expect(wire.Generate)
        assert (await peer.expect(wire.Cancel)) == wire.Cancel(1, detach=False)


async def test_background_is_a_policy(server: Lasting, autojump_clock: Clock) -> None:
    async with server.client() as client:
        await client.complete("a", background=True, on_disconnect="continue")
        for policy in ("cancel", 5.0):
            with pytest.raises(ValueError, match="background=True goes on to the end"):
                await client.complete("a", background=True, on_disconnect=policy)


async def test_an_earlier_server_has_no_background(server: Lasting, autojump_clock: Clock) -> None:
    server.features = ("generate",)
    async with server.client() as client:
        with pytest.raises(Unsupported, match="by its id"):
            await client.complete("a", background=True)
    assert not server.of(wire.Generate)

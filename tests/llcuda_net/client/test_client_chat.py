"""Tools, reasoning and images through the client: what is sent, what comes, old servers.

No sockets and no real time: `autojump_clock` where something is waited for.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import llcuda_net
import llcuda_protocol as wire
from llcuda_net.client import Client
from llcuda_net.client.chat.messages import INLINE
from llcuda_net.client.chat.upload import PIECE
from llcuda_net.client.events import Channel, Piece, Result, ToolCall
from tests.support.client.attach_server import FEATURES, Lasting
from tests.support.client.media import PNG
from tests.support.client.scripted_server import ID, Peer, accepted, linked

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
ALL = ("channels", "uploads", "delete")
LARGE = PNG + bytes(range(256)) * (2 * INLINE // 256)
WEATHER = ("tool_call", 0, "c0", "weather")
TIME = ("tool_call", 1, "c1", "time")
REASONING, TEXT = ("reasoning", 0, "", ""), ("text", 0, "", "")
#: An answer with every kind of channel; arguments of one call are cut within.
ANSWER = [
    (REASONING, "let me"),
    (REASONING, " see"),
    (TEXT, "I will"),
    (TEXT, " look."),
    (WEATHER, ""),
    (WEATHER, '{"city": '),
    (WEATHER, '"Oslo"'),
    (WEATHER, "}"),
    (TIME, "{"),
    (TIME, "}"),
    (TEXT, " Wait."),
]
CALLS = [ToolCall("c0", "weather", '{"city": "Oslo"}'), ToolCall("c1", "time", "{}")]


async def test_an_answer_with_channels() -> None:
    async with linked(features=ALL) as (client, peer):
        assert peer.hello is not None
        assert peer.hello.features == ["channels", "ignored", "epochs"]
        async with accepted(client, peer, tools=[TOOL], tool_choice="weather") as (stream, asked):
            assert asked.channels
            assert asked.chat == {
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "weather"}},
            }
            await peer.send(
                wire.Channel(1, 0, "reasoning"),
                wire.Tokens(1, 0, ["hm", "m"]),
                wire.Channel(1, 2, "text"),
                wire.Tokens(1, 2, ["Yes."]),
                wire.Channel(1, 3, "tool_call", 0, "c0", "weather"),
                wire.Tokens(1, 3, ["", "{}"]),
            )
            await peer.answer(1, reason="tool_calls")
            assert [piece async for piece in stream] == ["Yes."]
            assert stream.text == "Yes."
            assert stream.reasoning == "hmm"
            assert stream.tool_calls == [ToolCall("c0", "weather", "{}")]
        assert stream.received == 5
        assert stream.result == Result(
            "Yes.",
            "tool_calls",
            id=ID,
            reasoning="hmm",
            tool_calls=[ToolCall("c0", "weather", "{}")],
        )


async def test_the_conversation_goes_on_with_the_message_of_an_answer() -> None:
    call = ToolCall("c0", "weather", "{}")
    result = Result("", "tool_calls", reasoning="hm", tool_calls=[call])
    async with linked(features=ALL) as (client, peer):
        messages = [{"role": "user", "content": "q"}, result.message, call.reply("7 degrees")]
        async with accepted(client, peer, messages=messages) as (_, asked):
            assert asked.messages == [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c0",
                            "type": "function",
                            "function": {"name": "weather", "arguments": "{}"},
                        }
                    ],
                    "reasoning_content": "hm",
                },
                {"role": "tool", "tool_call_id": "c0", "content": "7 degrees"},
            ]
    assert Result("Hi", "stop", reasoning="hm").message == {"role": "assistant", "content": "Hi"}


async def test_events_say_which_channel() -> None:
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    server.answer = ANSWER
    async with server.client() as client, client.generate("q") as stream:
        pieces = [event async for event in stream.events() if isinstance(event, Piece)]
    expected = [(Channel(*channel), text) for channel, text in ANSWER]
    assert [(piece.channel, piece.text) for piece in pieces] == expected
    assert stream.result.tool_calls == CALLS


@pytest.mark.parametrize("direction", ["received", "sent"])
async def test_a_loss_anywhere_changes_nothing(direction: str, autojump_clock: MockClock) -> None:
    """Channels stay right, and an image is uploaded again."""

    async def conversation(server: Lasting) -> tuple[Any, ...]:
        server.features = (*FEATURES, *ALL)
        server.answer = ANSWER
        asking: dict[str, Any] = {"images": [LARGE], "tools": [TOOL]}
        async with server.client() as client, client.generate("q", **asking) as stream:
            pieces = [event async for event in stream.events() if isinstance(event, Piece)]
        assert server.uploads
        assert {*server.uploads} == {LARGE}
        asked = server.of(wire.Generate)[-1].messages[0]["content"][0]
        assert asked.keys() == {"type", "media_type", "upload"}
        return pieces, stream.text, stream.reasoning, stream.result

    uncut = Lasting()
    seen = await conversation(uncut)
    assert seen[1:3] == ("I will look. Wait.", "let me see")
    assert seen[3].tool_calls == CALLS
    total = getattr(uncut.transports[0], direction)
    step = 11 if direction == "received" else 4099
    for at in range(200, total, step):
        server = Lasting()
        server.cuts = [(at, None) if direction == "received" else (None, at)]
        assert await conversation(server) == seen, at
        assert len(server.logs) == 1, at


async def test_a_reader_that_attaches_within_a_tool_call() -> None:
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    server.answer = ANSWER
    async with server.client() as client:
        await client.complete("q")
        async with client.attach("generation-0", first=6) as stream:
            assert [piece async for piece in stream] == [" Wait."]
    assert stream.tool_calls == [ToolCall("c0", "weather", '"Oslo"}'), CALLS[1]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"tools": [TOOL]}, "knows no tools"),
        ({"reasoning_effort": "low"}, "knows no reasoning_effort"),
        ({"images": [PNG]}, "takes no images and no audio"),
        ({"messages": [{"role": "user", "content": "a", "name": "n"}]}, "a role and a text"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "a role and a text"),
    ],
)
async def test_an_old_server_is_told_nothing_that_it_does_not_know(
    arguments: dict[str, Any], told: str
) -> None:
    async with linked() as (client, peer):
        prompt = () if "messages" in arguments else ("hello",)
        with pytest.raises(llcuda_net.Unsupported, match=told):
            await client.complete(*prompt, **arguments)
        with pytest.raises(llcuda_net.Unsupported, match="cannot delete"):
            await client.delete(ID)
        async with accepted(client, peer) as (_, asked):  # the first that it has got
            assert (asked.stream, asked.chat, asked.channels) == (1, None, False)


async def test_without_uploads_an_image_goes_within_the_request() -> None:
    async with linked(features=["channels"]) as (client, peer):
        opened = accepted(client, peer, "what?", images=[LARGE])
        async with opened as (_, asked):
            assert asked.messages is not None
            assert asked.messages[0]["content"] == [
                {"type": "image", "media_type": "image/png", "data": LARGE},
                {"type": "text", "text": "what?"},
            ]


# -- uploads ------------------------------------------------------------------------------------


async def test_an_upload_holds_nobody_up() -> None:
    """A request that comes later overtakes it; its pieces leave one at a time."""
    # What is sent here is sent when the other side takes it, and not before.
    near, far = trio.testing.lockstep_stream_pair()
    peer = Peer(far, features=ALL)
    trio.lowlevel.spawn_system_task(peer.greet)
    async with Client.over(near) as client, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.complete("look", images=[LARGE]))
        pieces = [await peer.expect(wire.Upload)]
        nursery.start_soon(client.complete, "meanwhile")
        await trio.testing.wait_all_tasks_blocked()
        seen: list[wire.Event] = []
        while not any(isinstance(event, wire.Generate) for event in seen):
            seen.append(await peer.receive())
        assert len(seen) <= 3  # what was on its way, and one piece more
        other = seen.pop()
        assert isinstance(other, wire.Generate)
        pieces += [event for event in seen if isinstance(event, wire.Upload)]
        await peer.send(wire.Accepted(other.stream, ID))
        await peer.answer(other.stream, "done")
        while pieces[-1].more:
            pieces.append(await peer.expect(wire.Upload))
        number = pieces[0].stream
        assert {piece.stream for piece in pieces} == {number}
        assert max(len(piece.data) for piece in pieces) == PIECE
        assert b"".join(piece.data for piece in pieces) == LARGE
        await peer.send(wire.Done(number, "complete"))
        asked = await peer.expect(wire.Generate)
        assert asked.messages is not None
        assert asked.messages[0]["content"][0]["upload"] == number
        await peer.send(wire.Accepted(asked.stream, ID))
        await peer.answer(asked.stream, "a cat")


async def test_a_refused_upload_is_an_error_of_the_request() -> None:
    async with linked(features=ALL) as (client, peer):

        async def refuse() -> None:
            piece = await peer.expect(wire.Upload)
            await peer.send(wire.Error(piece.stream, "overloaded", "no room", retry=True))

        trio.lowlevel.spawn_system_task(refuse)
        with pytest.raises(llcuda_net.Overloaded, match="no room"):
            await client.complete("look", images=[LARGE])
        async with accepted(client, peer) as (stream, asked):
            await peer.answer(asked.stream, "fine")
            assert [piece async for piece in stream] == ["fine"]


async def test_an_upload_that_nobody_waits_for_ends() -> None:
    async with linked(features=ALL) as (client, peer):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.complete("look", images=[LARGE]))
                first = await peer.expect(wire.Upload)
                scope.cancel()
        event: wire.Event = first
        while isinstance(event, wire.Upload):
            event = await peer.receive()
        assert event == wire.Cancel(first.stream)
        await peer.send(wire.Done(first.stream, "cancelled"))
        async with accepted(client, peer) as (stream, asked):
            await peer.answer(asked.stream, "fine")
            assert [piece async for piece in stream] == ["fine"]


async def test_an_image_that_the_server_does_not_take_is_refused_here() -> None:
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    server.max_upload = INLINE
    async with server.client() as client:
        with pytest.raises(llcuda_net.FrameTooLarge, match=f"box:9000 takes at most {INLINE}"):
            await client.complete("look", images=[LARGE])
        assert server.seen == []


async def test_uploads_need_no_more_streams_than_there_are() -> None:
    server = Lasting(max_streams=1)
    server.features = (*FEATURES, *ALL)
    async with server.client() as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: client.complete("look", images=[LARGE, LARGE + b"2"]))
    assert sorted(server.uploads) == [LARGE] * 3 + [LARGE + b"2"] * 3


async def test_a_request_that_is_sent_again_uploads_again(autojump_clock: MockClock) -> None:
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    server.refusals = [("shutting_down", True)] * 2
    async with server.client() as client:
        assert (await client.complete("look", images=[LARGE])).text == "a"
    assert server.uploads == [LARGE] * 3
    assert server.dials == 3


async def test_another_server_may_refuse_what_is_uploaded_again(autojump_clock: MockClock) -> None:
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    server.refusals = [("shutting_down", True)]
    async with server.client() as client:
        server.max_upload = 5  # of the next connection
        with pytest.raises(llcuda_net.FrameTooLarge, match="takes at most 5"):
            await client.complete("look", images=[LARGE])
        assert (await client.complete("a b")).text == "a b"


async def test_closing_the_client_ends_an_upload(autojump_clock: MockClock) -> None:
    """Also one that is being repeated after a loss."""
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    server.cuts = [(None, None), (None, 2 * PIECE)]
    server.mute = True
    with trio.move_on_after(10):
        async with server.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.complete("look", images=[LARGE]))
            await trio.sleep(1)
            await server.lose()
            await trio.sleep(100)
    assert server.dials == 3
    assert server.uploads == [LARGE] * 2
    assert server.of(wire.Generate) == []
    assert len(server.of(wire.Cancel)) == 1


# -- deleting -----------------------------------------------------------------------------------


async def test_deleting() -> None:
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    async with server.client() as client:
        done = await client.complete("a b")
        assert done.id is not None
        await client.delete(done.id)
        with pytest.raises(llcuda_net.UnknownGeneration):
            await client.delete(done.id)


async def test_deleting_over_a_connection_that_is_lost(autojump_clock: MockClock) -> None:
    """What the first attempt has deleted, the second does not find."""
    server = Lasting()
    server.features = (*FEATURES, *ALL)
    async with server.client() as client:
        done = await client.complete("a b")
        assert done.id is not None
        server.mute = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.delete, done.id)
            await trio.testing.wait_all_tasks_blocked()
            assert server.logs == {}
            server.mute = False
            await server.lose()
    assert len(server.of(wire.Delete)) == 2

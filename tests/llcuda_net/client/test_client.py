"""The async client against a peer that the test drives: answers, many at once, stopping.

No sockets and no real time: `autojump_clock` where something is waited for.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import llcuda_protocol as wire
from llcuda_net.client import Client
from llcuda_net.client.requests import WINDOW
from llcuda_net.client.stream import Piece, Queued, Result
from llcuda_net.errors import ConnectError, InvalidRequest, RequestError
from tests.support.client.attach_server import Lasting
from tests.support.client.scripted_server import ID, Peer, accepted, linked

# -- answers ------------------------------------------------------------------------------------


async def test_a_stream_gives_pieces_and_then_the_result() -> None:
    async with linked() as (client, peer):
        async with accepted(client, peer, "hi", n_predict=7) as (stream, request):
            assert request.messages == [{"role": "user", "content": "hi"}]
            assert request.prompt is None
            assert request.params == {"n_predict": 7}
            assert stream.id == ID
            with pytest.raises(RuntimeError, match="read it to its end"):
                _ = stream.result
            await peer.send(wire.Tokens(1, 0, ["a", "b"]))
            await peer.answer(1, "c", first=2, usage={"completion_tokens": 3}, model="m", stop="x")
            assert [piece async for piece in stream] == ["a", "b", "c"]
            assert [piece async for piece in stream] == []
        assert stream.result == Result(
            "abc", "stop", stop="x", usage={"completion_tokens": 3}, id=ID, model="m"
        )
        assert str(stream.result) == "abc"


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"prompt": "p"}, {"messages": [{"role": "user", "content": "p"}]}),
        ({"prompt": [1, 2]}, {"prompt": [1, 2]}),
        ({"prompt": (3,)}, {"prompt": [3]}),
        ({"raw": "r"}, {"prompt": "r"}),
        (
            {"messages": [{"role": "assistant", "content": "m"}]},
            {"messages": [{"role": "assistant", "content": "m"}]},
        ),
        (
            {"prompt": "p", "system": "s"},
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "p"},
                ]
            },
        ),
        ({"raw": "r", "timeout": 2.5, "tokens": True}, {"timeout": 2.5, "tokens": True}),
        ({"raw": "r", "stop": ["\n"], "seed": 1}, {"params": {"stop": ["\n"], "seed": 1}}),
    ],
)
async def test_what_is_sent(arguments: dict[str, Any], sent: dict[str, Any]) -> None:
    async with linked() as (client, peer):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.complete(**arguments))
                request = await peer.expect(wire.Generate)
                scope.cancel()
        for name, value in sent.items():
            assert getattr(request, name) == value
        assert request.credit == WINDOW


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"prompt": "a", "raw": "b"},
        {"raw": "a", "messages": []},
        {"raw": "a", "system": "b"},
        {"prompt": [1], "system": "b"},
    ],
)
async def test_exactly_one_thing_is_sent(arguments: dict[str, Any]) -> None:
    async with linked() as (client, _):
        with pytest.raises(TypeError):
            client.generate(**arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prompt": ""}, "empty"),
        ({"raw": ""}, "empty"),
        ({"prompt": []}, "empty"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"raw": "x", "temperature": float("nan")}, "finite"),
        ({"raw": "x", "n_predict": 10**30}, "out of range"),
        ({"raw": "x", "stop": object()}, "object"),
        ({"raw": "\ud800"}, "surrogates"),
        ({"raw": "x" * (5 << 20)}, "over the other side's max_frame"),
        ({"raw": "x", "timeout": -1}, "timeout"),
    ],
)
async def test_what_no_frame_can_say_is_an_invalid_request(
    arguments: dict[str, Any], told: str
) -> None:
    async with linked() as (client, peer):
        with pytest.raises(RequestError, match=told) as caught:
            async with client.generate(**arguments):
                pass
        assert isinstance(caught.value, InvalidRequest)
        # The connection is as good as before, and no stream number or room was lost.
        async with accepted(client, peer) as (_, request):
            assert request.stream == 1


async def test_events_carry_ids_logprobs_and_the_queue() -> None:
    top = (wire.TopToken(2, b"a", -0.5),)
    first = [wire.TokenLogprob(1, b"\xc3", -1.0, top), wire.TokenLogprob(3, b"\xa9", -2.0)]
    async with linked() as (client, peer):
        async with accepted(client, peer, tokens=True, n_probs=1) as (stream, _):
            await peer.send(wire.Queue(1, 2))
            events = stream.events()
            assert await anext(events) == Queued(2)
            assert stream.position == 2
            await peer.send(wire.Tokens(1, 0, ["é", "!"], [3, None], [first, []]))
            await peer.answer(1)
            assert [event async for event in events] == [
                Piece(0, "é", 3, first),
                Piece(1, "!", None, []),
            ]
            assert stream.position == 0
        assert stream.result.ids == [3, None]
        assert stream.result.logprobs == [first, []]


async def test_complete_gives_the_result() -> None:
    async with linked() as (client, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.expect(wire.Generate)
            await peer.send(wire.Accepted(1, ID, 3))
            await peer.answer(1, "an", "swer", reason="length")

        nursery.start_soon(serve)
        result = await client.complete("q", n_predict=2)
        assert (result.text, result.reason) == ("answer", "length")


async def test_search_gives_the_hits_of_all_frames() -> None:
    server = Lasting()
    async with server.client() as client:
        hits = await client.search("how do I stop it", 2)
        assert [(hit.id, hit.score, hit.text) for hit in hits] == [("r0", 1, "0"), ("r1", 0.9, "1")]
        assert (hits[0].created, hits[0].model, hits[0].tokens) == (5.0, "", 0)
        assert len(await client.search("x")) == 3
        (first, second) = server.of(wire.Search)
        assert (first.text, first.k, second.k) == ("how do I stop it", 2, 10)
        for k in (0, 1001):
            with pytest.raises(ValueError, match="from 1 to 1000"):
                await client.search("x", k)
        server.refusals.append(("unsupported", False))
        with pytest.raises(RequestError) as caught:
            await client.search("x")
        assert caught.value.code == "unsupported"


async def test_a_server_without_search_is_not_asked_for_it() -> None:
    server = Lasting()
    server.features = ("generate", "status")
    async with server.client() as client:
        with pytest.raises(RequestError, match="of an earlier version: it has no search"):
            await client.search("x")
    assert not server.of(wire.Search)


async def test_embed_gives_a_vector_a_text() -> None:
    async with linked() as (client, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await peer.expect(wire.Embed)
            assert request.input == ["a", "b", "c"]
            one, two = b"\0\0\x80?\0\0\0\xc0", b"\0\0\0?\0\0\0\0"
            await peer.send(wire.Vectors(1, 0, [one, two]), wire.Vectors(1, 2, [one]))
            await peer.send(wire.Done(1, "complete"))

        nursery.start_soon(serve)
        assert await client.embed(["a", "b", "c"]) == [[1.0, -2.0], [0.5, 0.0], [1.0, -2.0]]
        assert await client.embed([]) == []
        with pytest.raises(TypeError, match="list"):
            await client.embed("a")


@pytest.mark.parametrize("count", [0, 2, 4])
async def test_vectors_that_are_too_few_or_too_many_are_refused(count: int) -> None:
    async with linked() as (client, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.expect(wire.Embed)
            for first in range(count):
                await peer.send(wire.Vectors(1, first, [b"\0" * 4]))
            await peer.send(wire.Done(1, "complete"))

        nursery.start_soon(serve)
        with pytest.raises(ConnectError, match=f"{count} vectors for 3 texts"):
            await client.embed(["a", "b", "c"])


async def test_status_and_ping() -> None:
    async with linked() as (client, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.expect(wire.Status)
            await peer.send(wire.Report(1, {"tokens": 5}))
            ping = await peer.expect(wire.Ping)
            await peer.send(wire.Pong(b"another"), wire.Pong(ping.payload))

        nursery.start_soon(serve)
        assert await client.status() == {"tokens": 5}
        assert await client.ping() >= 0


async def test_answers_pings() -> None:
    async with linked() as (_, peer):
        await peer.send(wire.Ping(b"are you there"))
        assert (await peer.expect(wire.Pong)).payload == b"are you there"


# -- many at once -------------------------------------------------------------------------------


async def test_streams_do_not_mix() -> None:
    async with linked() as (client, peer):
        results: dict[str, str] = {}

        async def ask(name: str) -> None:
            results[name] = (await client.complete(raw=name)).text

        async with trio.open_nursery() as nursery:
            for i in range(50):
                nursery.start_soon(ask, f"q{i}")
            requests = [await peer.expect(wire.Generate) for _ in range(50)]
            for request in reversed(requests):
                await peer.send(wire.Accepted(request.stream, ID))
            for request in requests:
                await peer.send(wire.Tokens(request.stream, 0, [f"{request.prompt}"]))
            for request in reversed(requests):
                await peer.answer(request.stream, "!", first=1)
        assert results == {f"q{i}": f"q{i}!" for i in range(50)}


async def test_more_streams_than_the_server_allows_wait_their_turn() -> None:
    async with linked(max_streams=2) as (client, peer):
        ended: list[str] = []

        async def ask(name: str) -> None:
            try:
                ended.append((await client.complete(raw=name)).text)
            except RequestError as error:
                ended.append(error.code)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(ask, name)
            for number in (1, 2):
                assert (await peer.expect(wire.Generate)).stream == number
            third: list[int] = []

            async def see_third() -> None:
                third.append((await peer.expect(wire.Generate)).stream)

            nursery.start_soon(see_third)
            await trio.testing.wait_all_tasks_blocked()
            assert third == []
            await peer.send(wire.Error(1, "overloaded", "full"))
            await trio.testing.wait_all_tasks_blocked()
            assert third == [3]
            for number in (3, 2):
                await peer.send(wire.Accepted(number, ID))
                await peer.answer(number, str(number))
        assert sorted(ended) == ["2", "3", "overloaded"]


async def test_a_slow_reader_stalls_itself_alone() -> None:
    async with (
        linked() as (client, peer),
        accepted(client, peer, raw="slow") as (slow, slow_request),
        accepted(client, peer, raw="fast") as (fast, fast_request),
    ):
        assert (slow_request.stream, fast_request.stream) == (1, 2)
        piece = "x" * 1000
        sent = 0
        while peer.connection.credit(1) > 2000:
            await peer.send(wire.Tokens(1, sent, [piece]))
            sent += 1
        # Nothing of it is read; the other stream goes on, far beyond one window.
        total = 3 * WINDOW // len(piece)
        got = 0
        for i in range(total):
            while peer.connection.credit(2) < 2000:
                assert (await peer.expect(wire.Credit)).stream == 2
            await peer.send(wire.Tokens(2, i, [piece]))
            async for _ in fast:
                got += 1
                break
        assert got == total
        assert peer.connection.credit(1) <= 2000
        # Once it is read, the slow stream gets its window back.
        for _ in range(sent):
            await anext(slow)
        while (await peer.expect(wire.Credit)).stream != 1:
            pass
        assert peer.connection.credit(1) == WINDOW


async def test_a_piece_larger_than_the_window_does_not_stall() -> None:
    async with linked() as (client, peer), accepted(client, peer) as (stream, _):
        for i in range(3):
            while peer.connection.credit(1) < WINDOW:
                await peer.expect(wire.Credit)
            await peer.send(wire.Tokens(1, i, ["y" * (3 * WINDOW)]))
            assert len(await anext(stream)) == 3 * WINDOW


# -- stopping -----------------------------------------------------------------------------------


async def test_leaving_the_block_early_cancels_on_the_server() -> None:
    async with linked() as (client, peer):
        async with accepted(client, peer) as (stream, _):
            await peer.send(wire.Tokens(1, 0, ["a"]))
            assert await anext(stream) == "a"
        assert (await peer.expect(wire.Cancel)).stream == 1
        # What still comes for it is dropped, and its number is not used again.
        await peer.send(wire.Tokens(1, 1, ["b"]))
        await peer.answer(1, reason="cancelled")
        with pytest.raises(trio.ClosedResourceError):
            await anext(stream)
        async with accepted(client, peer) as (_, request):
            assert request.stream == 2


async def test_leaving_after_the_end_says_nothing_more() -> None:
    async with linked() as (client, peer):
        async with accepted(client, peer) as (stream, _):
            await peer.answer(1, "a")
            assert [piece async for piece in stream] == ["a"]
        await peer.send(wire.Ping(b"?"))
        await peer.expect(wire.Pong)


async def test_a_cancelled_task_cancels_on_the_server_before_the_connection_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also when everything is cancelled at once, the connection's own block included."""
    near, far = trio.testing.memory_stream_pair()
    peer = Peer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.greet)
        with trio.CancelScope() as scope:
            async with Client.over(near) as client, accepted(client, peer) as (stream, _):
                scope.cancel()
                await anext(stream)
        assert scope.cancelled_caught
    await peer.expect(wire.Cancel)
    assert await peer.receive() == wire.ConnectionClosed()


async def test_the_connection_is_kept_until_the_server_has_confirmed_a_cancel(
    mock_clock: trio.testing.MockClock,
) -> None:
    """A socket closed at once, with tokens unread, would take the cancel with it."""
    near, far = trio.testing.memory_stream_pair()
    peer = Peer(far)
    ended = trio.Event()

    async def leave_early() -> None:
        async with Client.over(near) as client, client.generate("hello") as stream:
            await anext(stream)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_early)
        await peer.greet()
        await peer.expect(wire.Generate)
        await peer.send(wire.Accepted(1, ID), wire.Tokens(1, 0, ["a"]))
        await peer.expect(wire.Cancel)
        await peer.send(wire.Tokens(1, 1, ["b"]))
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        await peer.answer(1, reason="cancelled")
        await trio.testing.wait_all_tasks_blocked()
        assert ended.is_set()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cancelling_before_the_server_accepts(when: str) -> None:
    async with linked() as (client, peer):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.complete("x"))
                if when == "after":
                    await peer.expect(wire.Generate)
                else:
                    await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        if when == "before":
            await peer.expect(wire.Generate)
        await peer.expect(wire.Cancel)
        await peer.send(wire.Accepted(1, ID))
        await peer.answer(1, reason="cancelled")
        async with accepted(client, peer):
            pass


async def test_cancel_lets_the_rest_be_read() -> None:
    async with linked() as (client, peer), accepted(client, peer) as (stream, _):
        await stream.cancel()
        await peer.expect(wire.Cancel)
        await peer.answer(1, "a", "b", reason="cancelled")
        assert [piece async for piece in stream] == ["a", "b"]
        assert stream.result.reason == "cancelled"
        await stream.cancel()


async def test_an_error_in_the_block_leaves_it_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with linked() as (client, peer), accepted(client, peer):
            raise KeyError("mine")

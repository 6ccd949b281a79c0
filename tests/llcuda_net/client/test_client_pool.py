"""The client of a server with several upstreams: models, turns, splices, lists.

No sockets and no real time.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import llcuda_protocol as wire
from llcuda_net.client.events import Event, Piece, Queued, Spliced
from llcuda_net.client.results import Entry
from llcuda_net.client.stream import Stream
from llcuda_net.errors import RequestError
from tests.support.client.attach_server import FEATURES, Lasting
from tests.support.client.scripted_server import ID, accepted, linked

POOL = ("attach", "pool", "splice", "list")
ASKED: dict[str, Any] = {"model": "demo", "priority": "low"}

Clock = trio.testing.MockClock


# -- what is asked ----------------------------------------------------------------------------


async def test_what_is_asked_is_sent(autojump_clock: Clock) -> None:
    async with linked(features=POOL) as (client, peer):
        async with accepted(client, peer, **ASKED, deadline=2.5, splices=True) as (_, request):
            sent = (request.model, request.priority, request.deadline, request.splices)
            assert sent == ("demo", "low", 2.5, True)
            assert request.params == {}
        async with linked(features=POOL) as (other, far), accepted(other, far) as (_, request):
            sent = (request.model, request.priority, request.deadline, request.splices)
            assert sent == (None, None, None, False)


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [
        ({"model": "demo"}, "it knows no models"),
        ({"priority": "high"}, "it knows no priorities"),
        ({"deadline": 0}, "it knows no deadlines"),
        ({"model": "", "deadline": 1}, "it knows no models and no deadlines"),
    ],
)
async def test_a_server_that_would_ignore_it_is_not_asked(
    asked: dict[str, Any], lacks: str
) -> None:
    server = Lasting()
    async with server.client() as client:
        with pytest.raises(RequestError, match=f"of an earlier version: {lacks}$") as caught:
            await client.complete("x", **asked)
        assert caught.value.code == "unsupported"
        with pytest.raises(RequestError, match="knows no models"):
            await client.embed(["a"], model="demo")
        with pytest.raises(RequestError, match="knows no models"):
            await client.models()
        assert server.seen == []


async def test_splices_are_not_asked_of_a_server_that_knows_none() -> None:
    server = Lasting()
    async with server.client() as client:
        async with client.generate(raw="a", splices=True) as stream:
            pass
        async with client.attach(stream.id, splices=True):
            pass
    assert [event.splices for event in server.of(wire.Generate)] == [False]
    assert [event.splices for event in server.of(wire.Attach)] == [False]


async def test_a_priority_is_one_of_three() -> None:
    async with linked(features=POOL) as (client, _):
        for word in ("urgent", "", "HIGH"):
            with pytest.raises(ValueError, match='"high", "normal" or "low"'):
                client.generate("x", priority=word)  # type: ignore[arg-type]


async def test_a_deadline_is_counted_from_when_it_was_asked(autojump_clock: Clock) -> None:
    server = Lasting()
    server.features = (*FEATURES, "pool")
    server.refusals = [("shutting_down", True)] * 2
    async with server.client() as client:
        started = trio.current_time()
        async with client.generate(raw="a", deadline=5.0):
            passed = trio.current_time() - started
        first, _, last = (event.deadline for event in server.of(wire.Generate))
        assert first == 5.0
        assert 0 < passed < 5
        assert last == pytest.approx(5.0 - passed)
        server.refusals = [("shutting_down", True)] * 3
        async with client.generate(raw="b", deadline=0.01):
            pass
        assert server.of(wire.Generate)[-1].deadline == 0.0


async def test_another_server_that_would_ignore_it_is_not_asked(autojump_clock: Clock) -> None:
    server = Lasting()
    server.features = (*FEATURES, "pool")
    server.refusals = [("shutting_down", True)]
    async with server.client() as client:
        server.features = FEATURES
        with pytest.raises(RequestError, match="knows no models") as caught:
            await client.complete("x", model="demo")
        assert caught.value.code == "unsupported"
    assert len(server.of(wire.Generate)) == 1


async def test_what_was_accepted_is_read_from_any_server(autojump_clock: Clock) -> None:
    server = Lasting()
    server.features = (*FEATURES, "pool", "splice")
    server.drops = {2}
    async with server.client() as client:
        server.features = FEATURES
        result = await client.complete(raw="a b c", model="demo", splices=True)
        assert result.text == "a b c"
    (attach,) = server.of(wire.Attach)
    assert attach.splices


async def test_vectors_of_a_model(autojump_clock: Clock) -> None:
    server = Lasting()
    server.features = (*FEATURES, "pool")
    async with server.client() as client:
        assert await client.embed(["a"], model="small") == [[1.0]]
        assert await client.embed(["a"]) == [[1.0]]
        assert await client.embed([], model="small") == []
    assert [event.model for event in server.of(wire.Embed)] == ["small", None]


# -- what is told -----------------------------------------------------------------------------


def standing(stream: Stream) -> tuple[int, float | None, str | None]:
    return stream.position, stream.wait, stream.reason


async def test_who_waits_is_told_how_long_and_why() -> None:
    async with linked(features=POOL) as (client, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.expect(wire.Generate)
            await peer.send(wire.Accepted(1, ID, 3, wait=12.5, reason="all 4 slots are in use"))

        nursery.start_soon(serve)
        async with client.generate("x") as stream:
            assert standing(stream) == (3, 12.5, "all 4 slots are in use")
            await peer.send(wire.Queue(1, 1, 2, "your limit of 2 at once"), wire.Queue(1, 0))
            events = stream.events()
            assert await anext(events) == Queued(1, 2, "your limit of 2 at once")
            assert standing(stream) == (1, 2, "your limit of 2 at once")
            assert await anext(events) == Queued(0)
            assert standing(stream) == (0, None, None)
            await peer.answer(1, "a")
            assert [event async for event in events] == [Piece(0, "a")]


async def test_who_waits_again_after_a_loss_is_told(autojump_clock: Clock) -> None:
    server = Lasting()
    server.drops = {2}
    server.accepted = {"position": 4, "wait": 9.0, "reason": "no slot"}
    async with server.client() as client, client.generate(raw="a b c") as stream:
        events = [event async for event in stream.events()]
    assert [e for e in events if isinstance(e, Queued)] == [Queued(4, 9.0, "no slot")]
    assert events[2] == Queued(4, 9.0, "no slot")


async def told(*frames: wire.Frame, first: int = 0) -> list[Event]:
    """What a reader of stream 1 sees of these."""
    async with linked(features=POOL) as (client, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            attach = await peer.expect(wire.Attach)
            assert attach.splices
            await peer.send(wire.Accepted(1, ID), *frames)

        nursery.start_soon(serve)
        async with client.attach(ID, first, splices=True) as stream:
            events = [event async for event in stream.events()]
            pieces = [event for event in events if isinstance(event, Piece)]
            assert stream.text == stream.result.text == "".join(piece.text for piece in pieces)
            assert stream.received == first + len(pieces)
            return events


END = wire.Done(1, "stop")


async def test_a_splice_comes_in_its_place() -> None:
    splice = wire.Splice(1, 1, "upstream a failed")
    a, b = Piece(0, "a"), Piece(1, "b")
    seen = [a, Spliced(1, "upstream a failed"), b]
    both, one, two = (
        wire.Tokens(1, 0, ["a", "b"]),
        wire.Tokens(1, 0, ["a"]),
        wire.Tokens(1, 1, ["b"]),
    )
    assert await told(one, splice, two, END) == seen
    assert await told(splice, one, two, END) == seen
    assert await told(splice, both, END) == seen
    assert await told(one, splice, wire.Splice(1, 1, "and b, too"), two, END) == seen
    assert await told(wire.Splice(1, 2), both, END) == [a, b, Spliced(2)]
    assert await told(both, wire.Splice(1, 2), END) == [a, b, Spliced(2)]
    assert await told(wire.Splice(1, 0), both, END) == [Spliced(0), a, b]
    assert await told(wire.Splice(1, 9), both, END) == [a, b, Spliced(9)]
    assert await told(wire.Splice(1, 7), END, first=7) == [Spliced(7)]


async def test_a_splice_parts_ids_and_logprobs_too() -> None:
    token = wire.TokenLogprob(5, b"b", -1.0)
    tokens = wire.Tokens(1, 0, ["a", "b", "c"], [4, 5, None], [[], [token], []])
    assert await told(wire.Splice(1, 1), wire.Splice(1, 2), tokens, END) == [
        Piece(0, "a", 4, []),
        Spliced(1),
        Piece(1, "b", 5, [token]),
        Spliced(2),
        Piece(2, "c", None, []),
    ]


async def test_who_goes_on_names_the_run_that_it_has_read() -> None:
    async with linked(features=POOL) as (client, peer), accepted(client, peer) as (stream, _):
        assert stream.epoch == 0
        await peer.send(wire.Tokens(1, 0, ["a"]), wire.Splice(1, 1, "another server", 7))
        await peer.send(wire.Tokens(1, 1, ["b"]))
        await peer.answer(1)
        assert [piece async for piece in stream] == ["a", "b"]
        assert stream.epoch == 7
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                attach = await peer.expect(wire.Attach)
                assert (attach.first, attach.epoch) == (2, 7)
                await peer.send(wire.Accepted(attach.stream, ID, epoch=7))
                await peer.send(wire.Done(attach.stream, "stop"))

            nursery.start_soon(serve)
            async with client.attach(stream.id, stream.received, epoch=stream.epoch) as again:
                assert [piece async for piece in again] == []


async def test_iterating_and_the_whole_answer_leave_splices_out() -> None:
    async with (
        linked(features=POOL) as (client, peer),
        accepted(client, peer, splices=True) as (stream, _),
    ):
        await peer.send(wire.Splice(1, 1), wire.Tokens(1, 0, ["a", "b"]))
        await peer.answer(1, splices=[1])
        assert [piece async for piece in stream] == ["a", "b"]
        assert stream.result.splices == [1]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_splices_are_where_they_were_said_to_be(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    places = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    frames: list[wire.Frame] = []
    sent = 0
    waiting = list(places)
    while sent < size:
        # A splice may be early, and is never later than its piece.
        while waiting and (waiting[0] <= sent or data.draw(st.booleans())):
            frames.append(wire.Splice(1, waiting.pop(0)))
        room = (waiting[0] if waiting else size) - sent
        count = data.draw(st.integers(1, room))
        frames.append(wire.Tokens(1, sent, [f"{n}" for n in range(sent, sent + count)]))
        sent += count
    frames += [wire.Splice(1, place) for place in waiting]
    seen = trio.run(lambda: told(*frames, END))
    expected: list[Event] = []
    for number in range(size + 1):
        if number in places:
            expected.append(Spliced(number))
        if number < size:
            expected.append(Piece(number, f"{number}"))
    assert seen == expected


# -- lists ------------------------------------------------------------------------------------


async def test_a_list_of_all_frames() -> None:
    server = Lasting()
    async with server.client() as client:
        entries = await client.list(2, state="done", before="g9")
        assert entries == [Entry("g0", "done", 9.0), Entry("g1", "done", 8.0)]
        assert [entry.id for entry in await client.list()] == ["g0", "g1", "g2"]
        first, second = server.of(wire.ListGenerations)
        assert (first.limit, first.state, first.before) == (2, "done", "g9")
        assert (second.limit, second.state, second.before) == (20, None, None)
        for limit in (0, 1001):
            with pytest.raises(ValueError, match="limit must be from 1 to 1000"):
                await client.list(limit)
        server.refusals.append(("invalid_request", False))
        with pytest.raises(RequestError) as caught:
            await client.list(state="asleep")
        assert caught.value.code == "invalid_request"


def test_an_entry_holds_all_that_is_told() -> None:
    told: dict[str, Any] = {
        "id": "g",
        "state": "queued",
        "created": 1.5,
        "owner": "ann",
        "model": "demo",
        "tokens": 3,
        "position": 2,
        "preview": "p",
        "text": "t",
    }
    entry = Entry.of(told)
    assert all(getattr(entry, name) == value for name, value in told.items())


async def test_a_server_without_lists_is_not_asked_for_one() -> None:
    server = Lasting()
    server.features = ("generate", "attach")
    async with server.client() as client:
        with pytest.raises(RequestError, match="it has no list of generations") as caught:
            await client.list()
        assert caught.value.code == "unsupported"
    assert server.seen == []


async def test_models_are_those_of_the_report() -> None:
    server = Lasting()
    server.features = (*FEATURES, "pool")
    async with server.client() as client:
        assert await client.models() == []  # it tells none
        server.report = {"models": [{"name": "demo", "slots": 4}]}
        assert await client.models() == [{"name": "demo", "slots": 4}]
        assert await client.status() == server.report

"""What a client says wrongly about one stream ends that stream, and what it cancels is answered."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from trio.testing import wait_all_tasks_blocked

from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Credit,
    Done,
    Embed,
    Error,
    Frame,
    Generate,
    ListGenerations,
    Ping,
    Pong,
    Search,
    Status,
    Tokens,
)
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    Peer,
    all_quiet,
    ask,
    paused,
    ready,
    serving,
)

DETACH = Cancel(1, detach=True)
CANCEL = Cancel(1)


async def say(peer: Peer, frame: Frame, **wrong: Any) -> None:
    """Send a frame whose map also holds, or has other, values; the peer takes it as it was."""
    data = peer.connection.send(frame)
    body = msgpack.unpackb(data[4:])
    if isinstance(frame, Credit):
        body[2] = wrong["add"]
    else:
        body[2].update(wrong)
    packed = msgpack.packb(body)
    await peer.stream.send_all(len(packed).to_bytes(4, "big") + packed)


@pytest.mark.parametrize(
    ("frame", "wrong", "message"),
    [
        (ask(stream=7), {"key": "k" * 257}, "generate.key is 257 characters long"),
        (ask(stream=7), {"colour": 3}, "unknown key 'colour' in generate"),
        (ask(stream=7), {"max_tokens": 3}, "unknown key 'max_tokens' in generate"),
        (
            Generate(7, 1, messages=[{"role": "user", "content": "a"}]),
            {"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]},
            "an item of an item of generate.messages.tool_calls lacks 'id'",
        ),
        (
            Generate(7, 1, messages=[{"role": "user", "content": "a"}]),
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "must be a map whose type is one of text, image, audio",
        ),
        (Attach(7, "g", 1), {"first": -1}, "attach.first must be 0 to"),
        (Embed(7, ["a"]), {"input": "a"}, "embed.input must be a list"),
        (Search(7, "a"), {"k": 0}, "search.k must be 1 to 1000"),
        (ListGenerations(7), {"limit": 0}, "list.limit must be 1 to 1000, not 0"),
        (Status(7), {"all": True}, "unknown key 'all' in status"),
    ],
)
async def test_an_error_in_a_value_ends_its_stream_alone(
    frame: Frame, wrong: dict[str, Any], message: str, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two"))
        assert isinstance(await peer.next(), Accepted)
        await say(peer, frame, **wrong)
        error = await peer.next()
        assert isinstance(error, Error)
        assert (error.stream, error.code, error.retry) == (7, "invalid_request", False)
        assert message in error.message
        await peer.send(Ping(b"p"))
        assert await peer.next() == Pong(b"p")
        upstream.release(2)
        pieces, done = await peer.until(Done)
        assert ("".join(pieces), done.reason) == ("one two", "stop")


@pytest.mark.parametrize(
    ("frame", "wrong"),
    [
        (CANCEL, {"detach": 1}),
        (CANCEL, {"later": True}),
        (Credit(1, 1), {"add": 0}),
        (Credit(1, 1), {"add": (1 << 31) - 1}),
        (Credit(1, 1), {"add": "all"}),
    ],
)
async def test_an_error_about_an_open_stream_ends_it(
    frame: Frame, wrong: dict[str, Any], autojump_clock: object
) -> None:
    """The generation goes on without that reader, for another."""
    upstream = paused()
    async with serving(upstream) as (server, listener):
        peer, other = await ready(listener), await ready(listener)
        await peer.send(ask("one two"))
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        await other.send(Attach(1, accepted.id, 1000))
        assert isinstance(await other.next(), Accepted)
        await say(peer, frame, **wrong)
        error = await peer.next()
        assert isinstance(error, Error)
        assert (error.stream, error.code) == (1, "invalid_request")
        upstream.release(2)
        pieces, done = await other.until(Done)
        assert ("".join(pieces), done.reason) == ("one two", "stop")
        await peer.send(Status(2))
        assert (await peer.next()).stream == 2  # type: ignore[union-attr]  # a report
        await all_quiet(server, upstream, listener)


async def test_an_error_about_what_is_no_generation_stops_it(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("one"), Embed(2, ["a"]))  # which waits for the only slot
        assert isinstance(await peer.next(), Accepted)
        await wait_all_tasks_blocked()
        await say(peer, Cancel(2), detach="yes")
        error = await peer.next()
        assert isinstance(error, Error)
        assert (error.stream, error.code) == (2, "invalid_request")
        upstream.release()
        await peer.until(Done)
        await all_quiet(server, upstream, listener)


# -- several cancels ------------------------------------------------------------------------------


async def generation(listener: MemoryListener) -> tuple[Peer, Accepted]:
    peer = await ready(listener)
    await peer.send(ask("one two", on_disconnect=1e9))
    accepted = await peer.next()
    assert isinstance(accepted, Accepted)
    return peer, accepted


async def ended(listener: MemoryListener, id_: str, upstream: FakeUpstream) -> str:
    """How a generation ends, as another reader of it is told."""
    other = await ready(listener)
    await other.send(Attach(1, id_, 1000))
    upstream.release(2)
    _, done = await other.until(Done)
    return str(done.reason)


SEVERAL = [
    ((CANCEL, DETACH), "cancelled"),
    ((CANCEL, CANCEL), "cancelled"),
    ((DETACH, CANCEL), "detached"),
    ((DETACH, DETACH), "detached"),
    ((CANCEL, DETACH, CANCEL, DETACH), "cancelled"),
]


@pytest.mark.parametrize(("cancels", "answer"), SEVERAL)
async def test_of_several_cancels_the_first_counts(
    cancels: tuple[Cancel, ...], answer: str, autojump_clock: object
) -> None:
    """In one write: the answer says what has happened to the generation."""
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer, accepted = await generation(listener)
        await peer.send(*cancels)
        _, done = await peer.until(Done)
        assert done.reason == answer
        expected = "cancelled" if answer == "cancelled" else "stop"
        assert await ended(listener, accepted.id, upstream) == expected


@pytest.mark.parametrize(("cancels", "answer"), SEVERAL)
async def test_and_before_it_is_accepted(
    cancels: tuple[Cancel, ...], answer: str, autojump_clock: object
) -> None:
    """All in one write with the request; it is accepted first."""
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two", on_disconnect=1e9), *cancels)
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        done = await peer.next()
        assert isinstance(done, Done)
        assert done.reason == answer
        expected = "cancelled" if answer == "cancelled" else "stop"
        assert await ended(listener, accepted.id, upstream) == expected


@pytest.mark.parametrize(("cancels", "answer"), SEVERAL)
async def test_and_on_a_stream_that_attaches(
    cancels: tuple[Cancel, ...], answer: str, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer, accepted = await generation(listener)
        other = await ready(listener)
        await other.send(Attach(1, accepted.id, 1000), *cancels)
        _, done = await other.until(Done)
        assert done.reason == answer
        upstream.release(2)
        _, done = await peer.until(Done)
        assert done.reason == ("cancelled" if answer == "cancelled" else "stop")


@pytest.mark.parametrize("cancel", [CANCEL, DETACH], ids=["cancel", "detach"])
async def test_a_cancel_in_one_write_with_another_request_stops_it(
    cancel: Cancel, autojump_clock: object
) -> None:
    """It came before the request's own task had run, and was dropped."""
    upstream = paused()  # one slot
    async with serving(upstream) as (server, listener):
        busy, _ = await generation(listener)
        peer = await ready(listener)
        await peer.send(Embed(1, ["a text that would wait for a slot"]), cancel)
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"
        await peer.send(Embed(2, ["another"]), Cancel(2, detach=cancel.detach))
        _, done = await peer.until(Done, 2)
        assert done.reason == "cancelled"
        await say(peer, Embed(3, ["one that is wrong at last"]), input=[1])
        _, error = await peer.until(Error, 3)
        assert error.code == "invalid_request"
        upstream.release(2)
        await busy.until(Done)
        await all_quiet(server, upstream, listener)


async def test_a_cancel_after_the_end_changes_nothing(autojump_clock: object) -> None:
    """It was over, and its done waited for credit: that is what the cancel is answered with."""
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two", credit=0))
        assert isinstance(await peer.next(), Accepted)
        await wait_all_tasks_blocked()
        await peer.send(CANCEL, DETACH)
        done = await peer.next()
        assert isinstance(done, Done)
        assert done.reason == "stop"
        # Its own cancels crossed the end of the stream: dropped.
        await peer.stream.send_all(bytes.fromhex("0000000493040180"))
        await peer.send(Ping(b"p"))
        assert await peer.next() == Pong(b"p")


async def test_a_reader_that_has_cancelled_gets_no_more_tokens(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer, _ = await generation(listener)
        upstream.release()
        assert isinstance(await peer.next(), Tokens)
        await peer.send(CANCEL, DETACH, Credit(1, 10))
        done = await peer.next()
        assert isinstance(done, Done)
        assert done.reason == "cancelled"

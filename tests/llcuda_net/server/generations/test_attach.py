"""A generation belongs to nobody's connection: it is read by several, again, and after a loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import RequestError
from llcuda_net.generation import registry
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import LINGER
from llcuda_net.generation.state import Times
from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Credit,
    Done,
    Error,
    ErrorCode,
    Limits,
    Tokens,
)
from llcuda_protocol.kinds import MAX_LINGER
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    MemoryListener,
    Peer,
    all_quiet,
    ask,
    paused,
    ready,
    serving,
)

FOUR = ["a", " b", " c", " d"]


async def accepted(peer: Peer) -> Accepted:
    event = await peer.next()
    assert isinstance(event, Accepted), event
    return event


async def take(peer: Peer, count: int) -> list[str]:
    """The next `count` pieces on stream 1."""
    pieces: list[str] = []
    while len(pieces) < count:
        event = await peer.next()
        assert isinstance(event, Tokens), event
        pieces += event.pieces
    return pieces


async def attach(
    listener: MemoryListener, id_: str, first: int = 0, epoch: int | None = None
) -> Peer:
    peer = await ready(listener)
    await peer.send(Attach(1, id_, CREDIT, first, epoch))
    return peer


async def test_a_second_reader_gets_all_of_it(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        first = await ready(listener)
        await first.send(ask("a b c d"))
        id_ = (await accepted(first)).id
        upstream.release(2)
        assert await take(first, 2) == FOUR[:2]
        second = await attach(listener, id_)
        assert (await accepted(second)).id == id_
        assert await take(second, 2) == FOUR[:2]
        upstream.release(2)
        for peer in (first, second):
            pieces, done = await peer.until(Done)
            assert (pieces, done.reason, done.id) == (FOUR[2:], "stop", id_)
        assert len(upstream.calls) == 1
        await all_quiet(server, upstream, listener)


@pytest.mark.parametrize("first", range(5))
async def test_a_lost_client_goes_on_where_it_was(first: int, autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        lost = await ready(listener)
        await lost.send(ask("a b c d"))
        begun = await accepted(lost)
        upstream.release(first)
        await take(lost, first)
        await lost.stream.aclose()
        await wait_all_tasks_blocked()
        upstream.release(4 - first)
        again = await attach(listener, begun.id, first=first, epoch=begun.epoch)
        assert (await accepted(again)).epoch == 0
        pieces, done = await again.until(Done)
        assert (pieces, done.reason) == (FOUR[first:], "stop")


async def test_what_is_not_stored_can_be_read_for_a_while(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        id_ = (await accepted(peer)).id
        await peer.until(Done)
        await trio.sleep(LINGER - 1)
        pieces, done = await (await attach(listener, id_, first=1)).until(Done)
        assert (pieces, done.usage["completion_tokens"]) == (FOUR[1:], 4)
        await trio.sleep(2)
        _, error = await (await attach(listener, id_)).until(Error)
        assert error.code == ErrorCode.UNKNOWN_GENERATION


async def test_a_reader_may_wait_for_what_is_not_there_yet(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        id_ = (await accepted(peer)).id
        early = await attach(listener, id_, first=3)
        await accepted(early)
        upstream.release(4)
        assert (await early.until(Done))[0] == FOUR[3:]


async def test_a_reader_that_has_more_than_there_is_is_told_so(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        id_ = (await accepted(peer)).id
        upstream.release(2)
        await take(peer, 2)
        _, error = await (await attach(listener, id_, first=3, epoch=0)).until(Error)
        assert (error.code, error.durable) == (ErrorCode.AHEAD, 2)
        upstream.release(2)
        await peer.until(Done)
        _, error = await (await attach(listener, id_, first=5)).until(Error)
        assert (error.code, error.durable) == (ErrorCode.AHEAD, 4)
        assert (await (await attach(listener, id_, first=4)).until(Done))[0] == []


async def test_credit_of_a_reader_is_its_own(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d", credit=0))
        id_ = (await accepted(peer)).id
        assert (await (await attach(listener, id_)).until(Done))[0] == FOUR
        await peer.send(Credit(1, 1000))
        assert (await peer.until(Done))[0] == FOUR


async def test_a_cancel_stops_it_for_all_readers(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        id_ = (await accepted(peer)).id
        other = await ready(listener)
        await other.send(Attach(1, id_, 0), Cancel(1))
        assert (await other.until(Done))[1].reason == "cancelled"
        assert (await peer.until(Done))[1].reason == "cancelled"
        await all_quiet(server, upstream, listener)


async def test_a_reader_that_detaches_stops_nothing(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        id_ = (await accepted(peer)).id
        other = await attach(listener, id_)
        await accepted(other)
        await other.send(Cancel(1, detach=True))
        assert (await other.until(Done))[1].reason == "detached"
        upstream.release(4)
        assert (await peer.until(Done))[0] == FOUR


async def test_detaching_before_accepted(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"), Cancel(1, detach=True))
        begun = await accepted(peer)
        assert (await peer.until(Done))[1].reason == "detached"
        upstream.release(4)
        assert (await (await attach(listener, begun.id)).until(Done))[0] == FOUR


@pytest.mark.parametrize("seconds", [0, 5, 30])
async def test_it_goes_on_for_so_long_without_a_reader(
    seconds: int, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d", on_disconnect=seconds))
        await accepted(peer)
        await peer.stream.aclose()
        if seconds:
            await trio.sleep(seconds - 1)
            assert upstream.active == 1
            await trio.sleep(2)
        await all_quiet(server, upstream, listener)


async def test_a_reader_in_time_stops_the_clock(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d", on_disconnect=5))
        id_ = (await accepted(peer)).id
        for _ in range(3):  # each time it begins anew
            await peer.stream.aclose()
            await trio.sleep(4)
            peer = await attach(listener, id_)
            await accepted(peer)
        await trio.sleep(60)
        upstream.release(4)
        assert (await peer.until(Done))[0] == FOUR


async def test_the_server_says_for_how_long_where_a_request_does_not(
    autojump_clock: object,
) -> None:
    upstream = paused()
    async with serving(upstream, disconnect_seconds=7) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d"))
        await accepted(peer)
        await peer.stream.aclose()
        await trio.sleep(6)
        assert upstream.active == 1
        await trio.sleep(2)
        await all_quiet(server, upstream, listener)


async def test_it_may_go_on_to_its_end(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, timeout=10**6) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d", on_disconnect=MAX_LINGER))
        id_ = (await accepted(peer)).id
        await peer.stream.aclose()
        await trio.sleep(3_000)
        upstream.release(4)
        await wait_all_tasks_blocked()
        assert (await (await attach(listener, id_)).until(Done))[0] == FOUR


async def test_the_same_key_joins_what_runs(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c d", key="k"), ask("a b c d", 2, key="k"))
        one, two = await accepted(peer), await accepted(peer)
        assert one.id == two.id
        other = await ready(listener)
        await other.send(ask("a b x", key="k"))
        _, error = await other.until(Error)
        assert error.code == ErrorCode.KEY_CONFLICT
        upstream.release(4)
        seen: dict[int, list[str]] = {1: [], 2: []}
        ends = 0
        while ends < 2:
            event = await peer.next()
            if isinstance(event, Tokens):
                seen[event.stream] += event.pieces
            ends += isinstance(event, Done)
        assert seen == {1: FOUR, 2: FOUR}
        assert len(upstream.calls) == 1
        await all_quiet(server, upstream, listener)


async def test_a_key_of_what_failed_begins_anew(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.failure = ValueError("a bug")
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b", key="k"))
        await peer.until(Error)
        upstream.failure = None
        await peer.send(ask("a b", 2, key="k"))
        assert (await peer.until(Done, 2))[0] == ["a", " b"]
        await peer.send(ask("a b", 3, key="k"))  # and of what was done does not
        assert (await peer.until(Done, 3))[0] == ["a", " b"]
        assert len(upstream.calls) == 2


@pytest.mark.parametrize("how", ["done", "cancelled", "runs"])
async def test_a_request_that_was_overtaken_by_its_repetition_starts_nothing(
    how: str, tmp_path: Path
) -> None:
    """It lay in a connection that stalled, and its client has long asked again over another."""
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        stalled, peer = await ready(listener), await ready(listener)
        await peer.send(ask("a b c d", key="k"))
        id_ = (await accepted(peer)).id
        if how == "done":
            upstream.release(4)
        elif how == "cancelled":
            await peer.send(Cancel(1))
        if how != "runs":
            await peer.until(Done)
        await stalled.send(ask("a b c d", key="k", fresh=True))
        if how == "runs":
            assert (await accepted(stalled)).id == id_
            upstream.release(4)
            await peer.until(Done)
        else:
            _, error = await stalled.until(Error)
            assert error.code == ErrorCode.INVALID_REQUEST
            assert "not fresh" in error.message
        assert len(upstream.calls) == 1
    assert [result.id for result in stored(tmp_path)] == [id_]


async def test_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_KEYS", 2)
    known = registry.Registry()
    for key in ("a", "b", "a", "c"):
        generation = Generation("x", None, {}, 1.0, key=key, times=Times(0.0))
        known.add(generation)
        known.remove(generation, stored=True)
    known.check_fresh("b", "")
    for key in ("a", "c"):
        with pytest.raises(RequestError):
            known.check_fresh(key, "")


async def test_a_level_that_there_is_not(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(level="paper"))
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.INVALID_REQUEST
        assert "strict" in error.message


async def test_a_reader_of_small_frames_spoils_nothing(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(f"a {'x' * 20_000} d"))
        id_ = (await accepted(peer)).id
        small = listener.connect(Limits(max_frame=16_384))
        await small.greet()
        await small.send(Attach(1, id_, CREDIT))
        await accepted(small)
        upstream.release(3)
        _, error = await small.until(Error)
        assert error.code == ErrorCode.FRAME_TOO_LARGE
        pieces, done = await peer.until(Done)
        assert (len(pieces), done.reason) == (3, "stop")


async def test_one_that_is_being_cancelled_is_not_joined(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b", key="k"))
        await accepted(peer)
        await peer.send(Cancel(1), ask("a b", 2, key="k"))
        await peer.until(Done)
        upstream.release(2)
        assert (await peer.until(Done, 2))[1].reason == "stop"

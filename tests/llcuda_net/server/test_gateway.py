"""The server as a whole, on memory streams and virtual time: queue, timeouts, figures, logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llcuda_net.errors import UpstreamError, UpstreamUnavailable
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_protocol import (
    Accepted,
    Cancel,
    Credit,
    Done,
    Embed,
    Error,
    ErrorCode,
    Generate,
    Ping,
    Pong,
    Queue,
    Tokens,
)
from llcuda_protocol.frames import encode
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    Peer,
    all_quiet,
    ask,
    paused,
    ready,
    serving,
    status,
)

# -- the queue -----------------------------------------------------------------------------------


async def _moved(peer: Peer) -> int:
    """The next position that it is told."""
    told = await peer.next()
    assert isinstance(told, Queue)
    assert told.reason == "the only slot is in use"
    return told.position


async def test_positions_are_told_at_once_and_as_the_queue_moves(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, disconnect_seconds=0) as (server, listener):
        peers = [await ready(listener) for _ in range(4)]
        for place, peer in enumerate(peers):
            await peer.send(ask("a b"))
            accepted = await peer.next()
            assert isinstance(accepted, Accepted)
            assert accepted.position == place
        assert upstream.active == 1
        upstream.release(2)
        await peers[0].until(Done)
        assert await _moved(peers[2]) == 1
        assert await _moved(peers[3]) == 2
        await peers[2].send(Cancel(1))  # in the middle of the queue
        _, done = await peers[2].until(Done)
        assert done.reason == "cancelled"
        assert await _moved(peers[3]) == 1
        await peers[3].stream.aclose()  # and by going away
        upstream.release(2)
        pieces, _ = await peers[1].until(Done)
        assert pieces == ["a", " b"]
        assert upstream.most_active == 1
        assert len(upstream.calls) == 2  # who left the queue never reached the upstream
        await all_quiet(server, upstream, listener)


async def test_a_full_queue_refuses_with_a_time_to_come_back(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, max_queue=1) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask(stream=1), ask(stream=2), ask(stream=3))
        _, error = await peer.until(Error, 3)
        assert (error.code, error.retry) == (ErrorCode.OVERLOADED, True)
        assert error.retry_after > 0
        upstream.release(6)
        await peer.until(Done, 2)
        await peer.send(ask(stream=4))
        upstream.release(3)
        await peer.until(Done, 4)
        await all_quiet(server, upstream, listener)


async def test_slots_are_what_the_upstream_says(autojump_clock: object) -> None:
    upstream = paused(slots=3)
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(*(ask("x", stream=n) for n in range(1, 8)))
        await wait_all_tasks_blocked()
        assert upstream.active == 3
        report = await status(listener)
        assert report["requests"]["running"] == 3
        assert report["requests"]["queued"] == 4
        upstream.release(7)
        await peer.until(Done, 7)
        assert upstream.most_active == 3
        await all_quiet(server, upstream, listener)


# -- timeouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server_wide", "own", "seconds"), [(600.0, None, 600), (600.0, 5.0, 5), (5.0, 600.0, 5)]
)
async def test_the_shorter_timeout_ends_a_request(
    server_wide: float, own: float | None, seconds: float, autojump_clock: MockClock
) -> None:
    upstream = paused()
    async with serving(upstream, timeout=server_wide) as (server, listener):
        peer = await ready(listener)
        start = trio.current_time()
        await peer.send(ask("a b c", timeout=own))
        upstream.release()
        pieces, error = await peer.until(Error)
        assert pieces == ["a"]
        assert (error.code, error.retry) == (ErrorCode.TIMEOUT, True)
        assert f"{seconds} s" in error.message
        assert trio.current_time() - start == pytest.approx(seconds)
        await all_quiet(server, upstream, listener)


async def test_a_timeout_counts_in_the_queue_too(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("a", stream=1), ask("b", stream=2, timeout=3.0))
        _, error = await peer.until(Error, 2)
        assert error.code == ErrorCode.TIMEOUT
        assert len(upstream.calls) == 1
        upstream.release()
        await peer.until(Done, 1)
        await all_quiet(server, upstream, listener)


async def test_embedding_has_a_timeout(autojump_clock: object) -> None:
    upstream = FakeUpstream()

    async def never(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.sleep_forever()
        raise AssertionError

    upstream.embed = never  # type: ignore[method-assign]
    async with serving(upstream, timeout=7.0) as (server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, ["x"]))
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.TIMEOUT
        await all_quiet(server, upstream, listener)


# -- figures -------------------------------------------------------------------------------------


async def test_status_counts_how_requests_ended(autojump_clock: object) -> None:
    upstream = FakeUpstream(slots=2, context=64)
    async with serving(upstream) as (server, listener):
        server.pool.backends[0]._restarts = lambda: 3
        peer = await ready(listener)
        for number in (1, 2, 3):
            await peer.send(ask("one two three", stream=number))
            await peer.until(Done, number)
        upstream.failure, upstream.fail_after = UpstreamError("broke"), 1
        await peer.send(ask("one two", stream=4))
        await peer.until(Error, 4)
        upstream.failure, upstream.paused = None, True
        await peer.send(ask("a b c", stream=5))
        upstream.release(2)
        await peer.until(Tokens, 5)
        await trio.sleep(2)
        report = await status(listener)
        assert report["requests"]["running"] == 1
        await peer.send(Cancel(5))
        await peer.until(Done, 5)
        report = await status(listener)
        assert report["requests"] == {
            "running": 0,
            "queued": 0,
            "done": 3,
            "failed": 1,
            "cancelled": 1,
            "interrupted": 0,
            "failovers": 0,
        }
        assert report["tokens"] == 3 * 3 + 1 + 2
        assert report["connections"] == 2
        assert report["server"]["uptime"] >= 2
        assert report["server"]["draining"] is False
        (told,) = report["upstreams"]
        assert (told["url"], told["ready"], told["model"]) == ("fake://", True, "fake")
        assert (told["slots"], told["context"], told["restarts"]) == (2, 64, 3)
        await all_quiet(server, upstream, listener)


async def test_status_without_an_upstream(autojump_clock: object) -> None:
    upstream = FakeUpstream()

    async def absent() -> Any:
        raise UpstreamUnavailable("not there", retry=True)

    upstream.ask = absent  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener):
        (told,) = (await status(listener))["upstreams"]
        assert (told["ready"], told["model"], told["slots"]) == (False, None, None)
        peer = await ready(listener)
        await peer.send(ask())
        _, error = await peer.until(Error)
        assert (error.code, error.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
        await all_quiet(server, upstream, listener)


async def test_an_upstream_that_stalls_does_not_hold_up_the_start(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.ask = trio.sleep_forever  # type: ignore[method-assign]
    async with serving(upstream):
        assert trio.current_time() < 60


async def test_nothing_leaks_whatever_clients_do(autojump_clock: object) -> None:
    upstream = paused(slots=3)
    async with serving(upstream, timeout=50.0) as (server, listener):
        for round_ in range(30):
            peer = await ready(listener)
            await peer.send(*(ask("a b", stream=n) for n in range(1, 6)))
            if round_ % 5 == 0:
                await peer.send(Embed(6, ["x"]), Cancel(2), Cancel(6))
            if round_ % 3:
                await wait_all_tasks_blocked()
            if round_ % 2:
                upstream.release(round_ % 4)
            await peer.send(Cancel(1), Cancel(4), Cancel(4))
            if round_ % 4:
                await peer.stream.aclose()
        await trio.sleep(60)
        await all_quiet(server, upstream, listener)
        assert len(server.listener.sessions) <= 1 + 30 // 4 + 1
        assert not any(isinstance(b, WriteBuffer) and b.closed for b in server.unflushed)


# -- ends that cross --------------------------------------------------------------------------


async def test_a_cancel_may_come_at_any_moment(autojump_clock: object) -> None:
    """Before the slot, between two tokens, with the last one, after the end: one end, no leak."""
    upstream = FakeUpstream(slots=1)
    reasons = set()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        for number, moment in enumerate(range(30), 1):
            await peer.send(ask("a b c", stream=number))
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            await peer.stream.send_all(encode(Cancel(number)))
            _, done = await peer.until(Done, number)
            reasons.add(done.reason)
            await peer.send(Ping(b"x"))  # and nothing more of that stream
            assert await peer.next() == Pong(b"x")
        assert reasons == {"cancelled", "stop"}
        await all_quiet(server, upstream, listener)


async def test_a_client_that_closes_its_half_has_gone(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, disconnect_seconds=0) as (server, listener):
        start = trio.current_time()
        peer = listener.connect_unread()
        await peer.greet()
        await peer.send(ask())
        await wait_all_tasks_blocked()
        assert upstream.active == 1
        assert isinstance(peer.stream, trio.StapledStream)
        await peer.stream.send_eof()
        await all_quiet(server, upstream, listener)  # though it has yet to read our last words
        assert trio.current_time() == start


# -- logs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [False, True])
async def test_prompts_are_logged_only_where_asked_for(shown: bool, autojump_clock: object) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(FakeUpstream(), log_prompts=shown) as (_, listener):
            peer = await ready(listener)
            await peer.send(
                ask("a-secret", stream=1, params={"stop": ["also-secret"]}),
                Generate(3, CREDIT, messages=[{"role": "user", "content": "c-secret"}]),
                ask("d-secret", stream=5, params={"grammer": "x"}),
            )
            await peer.until(Done, 3)
            await peer.stream.send_all(b"e-secret")
            await peer.until_closed()
    started = [entry for entry in logs if entry["event"] == "generation_started"]
    assert len(started) == 2
    assert {entry["log_level"] for entry in started} == {"info" if shown else "debug"}
    text = json.dumps(logs, default=str)
    assert ("a-secret" in text) is shown
    assert ("c-secret" in text) is shown
    assert "also-secret" not in text
    assert "d-secret" not in text
    assert "e-secret" not in text


async def test_credit_after_the_end_still_catches_up(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c", credit=0))
        await peer.until(Accepted)
        await wait_all_tasks_blocked()
        assert not len(server.registry)  # it never waited for its reader
        await peer.send(Credit(1, 1000))
        pieces, done = await peer.until(Done)
        assert (pieces, done.reason) == (["a", " b", " c"], "stop")


async def test_a_timeout_of_nothing_is_over_at_once(autojump_clock: object) -> None:
    async with serving(paused()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(timeout=0))
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.TIMEOUT


async def test_the_setting_says_how_fast_requests_age(autojump_clock: object) -> None:
    async with serving(FakeUpstream(), ageing_seconds=7.0) as (server, _):
        assert server.scheduler.ageing == 7.0


async def test_a_deadline_of_nothing_begins_where_a_slot_is_free() -> None:
    """By a clock that runs: between the request and its turn some time has always passed."""
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two", deadline=0))
        assert isinstance(await peer.next(), Accepted)
        await peer.send(ask("three", stream=2, deadline=0), ask("four", stream=3, deadline=1e-9))
        for stream in (2, 3):
            error = await peer.next()
            assert isinstance(error, Error)
            assert (error.stream, error.code, error.retry) == (stream, "overloaded", True)
            assert "cannot begin at once" in error.message
        upstream.release(2)
        assert (await peer.until(Done))[0] == ["one", " two"]
        upstream.release()
        await peer.send(ask("five", stream=4, deadline=1e-9))
        assert (await peer.until(Done, 4))[0] == ["five"]

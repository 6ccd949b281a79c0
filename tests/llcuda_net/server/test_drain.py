"""The drain: what runs is finished or handed back, and nobody can hold up the end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.server.gateway import Gateway
from llcuda_protocol import (
    Accepted,
    ConnectionClosed,
    Done,
    Embed,
    Error,
    ErrorCode,
    GoAway,
    Report,
    Status,
    Tokens,
)
from tests.support.server.memory_server import FakeUpstream, ask, paused, ready, serving


async def _drained(server: Gateway, grace: float) -> float:
    """Drain, and how long it took."""
    start = trio.current_time()
    with trio.fail_after(3600):
        await server.drain(grace)
    return trio.current_time() - start


async def test_an_idle_server_drains_at_once(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        peer = await ready(listener)
        assert await _drained(server, 30.0) < 0.1
        assert isinstance(await peer.next(), GoAway)
        assert isinstance(await peer.next(), ConnectionClosed)


async def test_what_runs_is_finished_and_new_requests_are_refused(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener), trio.open_nursery() as nursery:
        peer, late = await ready(listener), await ready(listener)
        await peer.send(ask("a b c"))
        upstream.release(1)
        await peer.until(Tokens)
        await late.send(ask("queued"))
        await late.until(Accepted)
        await wait_all_tasks_blocked()
        nursery.start_soon(server.drain, 30.0)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            listener.connect()  # nobody listens any more
        # As a client does that has not read the go-away yet.
        await late.send(ask(stream=3), Embed(4, ["x"]), Status(5))
        goaway = await late.until(GoAway, 0)
        assert goaway[1].grace == 30.0
        answers = {event.stream: event for event in [await late.next() for _ in range(3)]}  # type: ignore[union-attr]
        for number in (3, 4):
            error = answers[number]
            assert isinstance(error, Error)
            assert (error.code, error.retry) == (ErrorCode.SHUTTING_DOWN, True)
        report = answers[5]
        assert isinstance(report, Report)
        assert report.report["server"]["draining"] is True
        await trio.sleep(10)
        upstream.release(3)
        pieces, done = await peer.until(Done)
        assert pieces == [" b", " c"]
        assert done.reason == "stop"
        await late.until(Done)
        start = trio.current_time()
        await late.until_closed()
        assert trio.current_time() - start < 1


async def test_what_does_not_end_is_handed_back(autojump_clock: object) -> None:
    upstream = paused(slots=2)
    stuck = trio.Event()

    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        stuck.set()
        await trio.sleep_forever()
        raise AssertionError

    upstream.embed = embed  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener), trio.open_nursery() as nursery:
        peer = await ready(listener)
        await peer.send(Embed(1, ["x"]))
        with trio.fail_after(60):
            await stuck.wait()
        await peer.send(ask("a b c", stream=2), ask("queued", stream=3))
        upstream.release(1)
        await peer.until(Tokens, 2)
        start = trio.current_time()
        nursery.start_soon(server.drain, 30.0)
        ended: dict[int, tuple[str, bool]] = {}
        while len(ended) < 3:
            event = await peer.next()
            assert not isinstance(event, Done | ConnectionClosed)
            if isinstance(event, Error):
                ended[event.stream] = (event.code, event.retry)
        assert set(ended.values()) == {(ErrorCode.SHUTTING_DOWN, True)}
        assert trio.current_time() - start == pytest.approx(30, abs=0.1)
        await peer.until_closed()
        assert upstream.active == 0


async def test_a_stream_without_credit_is_handed_back_too(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener), trio.open_nursery() as nursery:
        peer = await ready(listener)
        await peer.send(ask("a b c", credit=0))
        await peer.until(Accepted)
        await wait_all_tasks_blocked()
        nursery.start_soon(server.drain, 5.0)
        pieces, error = await peer.until(Error)
        assert pieces == []
        assert (error.code, error.retry) == (ErrorCode.SHUTTING_DOWN, True)


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        peer = listener.connect_unread()
        await peer.greet()
        await peer.send(ask("x" * 50_000))
        await wait_all_tasks_blocked()
        assert await _drained(server, 5.0) < 10


async def test_the_last_bytes_leave_before_the_end(autojump_clock: object) -> None:
    """A client that reads slowly, but reads: what the writer task holds is not cut off."""
    async with serving(FakeUpstream()) as (server, listener), trio.open_nursery() as nursery:
        peer = listener.connect_unread()
        await peer.greet()
        await peer.send(ask("x" * 50_000))
        await wait_all_tasks_blocked()
        nursery.start_soon(server.drain, 30.0)
        await trio.sleep(5)
        pieces, _ = await peer.until(Done)
        assert "".join(pieces) == "x" * 50_000


async def test_draining_twice_is_draining_once(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener), trio.open_nursery() as nursery:
        peer = await ready(listener)
        await peer.send(ask())
        await peer.until(Accepted)
        nursery.start_soon(server.drain, 5.0)
        await wait_all_tasks_blocked()
        assert await _drained(server, 5.0) == 0
        assert (await peer.until(Error))[1].code == ErrorCode.SHUTTING_DOWN


async def test_who_greets_during_the_drain_is_told(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener), trio.open_nursery() as nursery:
        peer, early = await ready(listener), listener.connect()
        await peer.send(ask())
        await peer.until(Accepted)
        await wait_all_tasks_blocked()  # `early` is connected and has not greeted
        nursery.start_soon(server.drain, 5.0)
        await wait_all_tasks_blocked()
        await early.greet()
        assert isinstance(await early.next(), GoAway)

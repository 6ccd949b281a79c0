"""Vectors: paid for like everything else, and made elsewhere where an upstream fails at them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.errors import UpstreamUnavailable, request_error
from llcuda_protocol import Done, Embed, Error, ErrorCode, Vectors
from tests.support.server.failing_upstreams import pair
from tests.support.server.memory_server import FakeUpstream, ready, serving
from tests.support.upstream.scripted_upstream import gone


async def test_texts_to_embed_count_as_tokens_read(autojump_clock: object) -> None:
    users = Users.parse("t name=ann tokens_per_minute=600")
    async with serving(FakeUpstream(), users=users) as (server, listener):
        peer = await ready(listener, "t")
        started = trio.current_time()
        await peer.send(Embed(1, input=["x" * 4000] * 3))
        await peer.until(Vectors)
        (load,) = server.scheduler.users()
        assert load.served == pytest.approx(3000, rel=0.01)
        # Five minutes' tokens were used, of which one could be: the next waits for the other four.
        await peer.send(Embed(2, input=["x"]))
        await peer.until(Vectors, 2)
        assert trio.current_time() - started == pytest.approx(240, rel=0.01)


@pytest.mark.parametrize(
    ("code", "state"),
    [(ErrorCode.UPSTREAM_UNAVAILABLE, "down"), (ErrorCode.UPSTREAM_ERROR, "up")],
)
async def test_an_upstream_that_is_lost_while_it_embeds_is_down(
    code: ErrorCode, state: str
) -> None:
    upstream = FakeUpstream()

    async def fails(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        raise request_error(code, "no", retry=True)

    upstream.embed = fails  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, input=["x"]))
        _, error = await peer.until(Error)
        assert error.code == code
        (backend,) = server.pool.backends
        assert backend.state == state
        assert not backend.leases


async def test_texts_do_not_wait_longer_for_an_upstream_than_generations(
    autojump_clock: object,
) -> None:
    async with serving(FakeUpstream(), failover_seconds=30.0) as (server, listener):
        (backend,) = server.pool.backends
        backend.watched = True
        backend.record_failure(UpstreamUnavailable("it was lost", retry=True))
        peer = await ready(listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._waiting.end_outages)
            started = trio.current_time()
            await peer.send(Embed(1, input=["x"]))
            with trio.fail_after(300):
                _, error = await peer.until(Error)
            assert (error.code, error.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
            assert 30 < trio.current_time() - started < 33
            assert server.scheduler.idle
            nursery.cancel_scope.cancel()


async def test_what_is_embedded_by_one_that_fell_silent_is_given_up(autojump_clock: object) -> None:
    upstream = FakeUpstream()

    async def never(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.sleep_forever()
        raise AssertionError

    upstream.embed = never  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, input=["x"]))
        await trio.sleep(10)
        (backend,) = server.pool.backends
        (lease,) = backend.leases
        lease.cut("has said nothing")
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.UPSTREAM_STALLED
        assert trio.current_time() < 60


async def test_vectors_come_from_another_one_where_one_fails(autojump_clock: object) -> None:
    a, b, both = pair()

    async def fails(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        raise gone()

    a.embed = fails  # type: ignore[method-assign]
    async with serving(both, watched=True) as (server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, ["text"] * 100))  # two batches
        _, vectors = await peer.until(Vectors)
        assert len(vectors.vectors) == 100
        await peer.until(Done)
        assert b.embedded == 100
        (load,) = server.scheduler.users()
        assert load.served == 200  # paid once: a text of four characters counts as two tokens
        b.embed = fails  # type: ignore[method-assign]
        await peer.send(Embed(2, ["text"]))
        _, error = await peer.until(Error, 2)
        assert error.code == ErrorCode.UPSTREAM_UNAVAILABLE


async def test_vectors_come_from_who_is_up(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both, watched=True) as (_, listener):
        a.die()
        await trio.sleep(5)
        peer = await ready(listener)
        await peer.send(Embed(1, ["text"]))
        _, vectors = await peer.until(Vectors)
        assert len(vectors.vectors) == 1
        await peer.until(Done)
        assert (a.embedded, b.embedded) == (0, 1)

"""One failure touches no other: bugs, nonsense and answers that fit nowhere."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.server.tcp.session import Session
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_protocol import (
    Done,
    Embed,
    Error,
    ErrorCode,
    Limits,
    Ping,
    Pong,
    Vectors,
)
from tests.support.server.memory_server import FakeUpstream, all_quiet, ask, ready, serving


async def test_a_bug_in_a_stream_ends_its_session_only(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WriteBuffer.add

    def crash(self: WriteBuffer, data: bytes) -> None:
        if b"crash" in data:
            raise ZeroDivisionError
        real(self, data)

    monkeypatch.setattr(WriteBuffer, "add", crash)
    upstream = FakeUpstream()
    async with serving(upstream) as (server, listener):
        victim, other = await ready(listener), await ready(listener)
        await victim.send(ask("crash"))
        await other.send(ask("fine"))
        await other.until(Done)
        await victim.until_closed()
        await all_quiet(server, upstream, listener)


async def test_a_flood_of_frames_leaves_the_others_their_turn(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    seen: list[int] = []
    real = Session._handle

    def note(self: Session, event: Any) -> None:
        seen.append(turns)
        real(self, event)

    monkeypatch.setattr(Session, "_handle", note)
    async with serving(FakeUpstream()) as (_, listener), trio.open_nursery() as nursery:

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        peer = await ready(listener)
        nursery.start_soon(other)
        await peer.send(*[Ping(b"")] * 1000)
        for _ in range(1000):
            assert isinstance(await peer.next(), Pong)
        nursery.cancel_scope.cancel()
    # Twice the number, where the other came first in one round and last in the next.
    assert max(seen.count(turn) for turn in seen) < 200


async def test_a_bug_in_the_upstreams_class_ends_its_request_only(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.failure = ZeroDivisionError()
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask())
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.INTERNAL
        upstream.failure = None
        await peer.send(ask(stream=3))
        await peer.until(Done, 3)
        await all_quiet(server, upstream, listener)


async def test_figures_out_of_all_bounds_end_their_request_only(autojump_clock: object) -> None:
    upstream = FakeUpstream()

    async def complete(prompt: Any, params: Any, on_events: Any, on_sent: Any) -> None:
        on_sent()
        await trio.lowlevel.checkpoint()
        final = CompletionEvent(stop=True, stop_type="word", tokens_predicted=1 << 60)
        on_events([CompletionEvent("text"), final])

    upstream.complete = complete  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(ask())
        pieces, error = await peer.until(Error)
        assert pieces == ["text"]
        assert error.code == ErrorCode.INTERNAL
        await peer.send(Ping(b"x"))
        assert await peer.next() == Pong(b"x")
        await all_quiet(server, upstream, listener)


async def test_a_stop_string_larger_than_the_clients_frames(autojump_clock: object) -> None:
    """The answer has succeeded all the same: done says that the stop string was left out."""
    upstream = FakeUpstream()

    async def complete(prompt: Any, params: Any, on_events: Any, on_sent: Any) -> None:
        on_sent()
        await trio.lowlevel.checkpoint()
        final = CompletionEvent(stop=True, stop_type="word", stopping_word="x" * 5_000_000)
        on_events([CompletionEvent("text"), final])

    upstream.complete = complete  # type: ignore[method-assign]
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask())
        pieces, done = await peer.until(Done)
        assert pieces == ["text"]
        assert (done.reason, done.stop, done.cut) == ("stop", None, ["stop"])


async def test_a_piece_larger_than_the_clients_frames(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (server, listener):
        peer = listener.connect(Limits(max_frame=16_384))
        await peer.greet()
        await peer.send(ask("small " + "x" * 20_000 + " more"))
        pieces, error = await peer.until(Error)
        assert pieces == ["small"]
        assert error.code == ErrorCode.FRAME_TOO_LARGE
        assert "over the other side's max_frame of 16384" in error.message
        await peer.send(ask(" ".join(["y" * 5000] * 20), stream=3))
        pieces, _ = await peer.until(Done, 3)
        assert len("".join(pieces)) == 20 * 5000 + 19
        await all_quiet(server, upstream, listener)


@pytest.mark.parametrize(
    "rows",
    [[["a"]], [[1.0], [1.0, 2.0]], [[1e300]], [[None]], [[[1.0]]], [[]], [[float("1e39")]]],
)
async def test_nonsense_vectors_end_their_request_only(
    rows: list[Any], autojump_clock: object
) -> None:
    upstream = FakeUpstream()

    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        return [rows for _ in texts]

    upstream.embed = embed  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, ["x"]))
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.UPSTREAM_ERROR
        await all_quiet(server, upstream, listener)


async def test_vectors_larger_than_the_clients_frames(autojump_clock: object) -> None:
    upstream = FakeUpstream()

    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        return [[[1.0] * (5000 if text == "big" else 1500)] for text in texts]

    upstream.embed = embed  # type: ignore[method-assign]
    async with serving(upstream) as (_, listener):
        peer = listener.connect(Limits(max_frame=16_384))
        await peer.greet()
        await peer.send(Embed(1, ["big"]))
        assert (await peer.until(Error))[1].code == ErrorCode.FRAME_TOO_LARGE
        await peer.send(Embed(2, ["x"] * 7))
        vectors: list[bytes] = []
        while isinstance(event := await peer.next(), Vectors):
            assert event.first == len(vectors)
            vectors += event.vectors
        assert isinstance(event, Done)
        assert vectors == [struct.pack("<1500f", *[1.0] * 1500)] * 7


async def test_many_texts_are_embedded_in_batches_and_averaged(autojump_clock: object) -> None:
    upstream = FakeUpstream(slots=1)
    sizes: list[int] = []

    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        sizes.append(len(texts))
        return [[[float(str(t)), 0.0], [float(str(t)) + 2, 4.0]] for t in texts]

    upstream.embed = embed  # type: ignore[method-assign]
    async with serving(upstream) as (server, listener):
        peer = await ready(listener)
        await peer.send(Embed(1, [str(n) for n in range(200)]))
        vectors: list[bytes] = []
        while isinstance(event := await peer.next(), Vectors):
            vectors += event.vectors
        assert sum(sizes) == 200
        assert max(sizes) <= 64
        assert vectors == [struct.pack("<2f", n + 1, 2) for n in range(200)]
        await all_quiet(server, upstream, listener)


async def test_answers_that_come_after_a_protocol_error_are_dropped(
    autojump_clock: object,
) -> None:
    upstream = FakeUpstream()
    release = trio.Event()
    stopped: list[bool] = []

    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        try:
            await release.wait()
        except trio.Cancelled:
            stopped.append(True)
            raise
        return [[[1.0]]]

    upstream.embed = embed  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        async with serving(upstream) as (server, listener):
            peer = listener.connect_unread()
            await peer.greet()
            await peer.send(Embed(1, ["x"]))
            await peer.stream.send_all(b"\x00\x00\x00\x02\xc1\xc1")
            await wait_all_tasks_blocked()
            assert stopped  # and not only after the last words
            release.set()
            await wait_all_tasks_blocked()
            await trio.sleep(5)
            await all_quiet(server, upstream, listener)
    assert "session_crashed" not in [entry["event"] for entry in logs]

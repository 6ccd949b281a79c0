"""Replies that are larger than the client's max_frame: cut down, or an error on their stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.errors import UpstreamError
from llcuda_net.server.tcp.fitting import failure, fitted, send_fitted
from llcuda_protocol import (
    Done,
    Embed,
    Error,
    Frame,
    FrameTooLargeError,
    Limits,
    LocalProtocolError,
    Ping,
    Pong,
    Report,
    Role,
    Status,
    Tokens,
    Vectors,
)
from llcuda_protocol.frames import encode
from llcuda_protocol.kinds import HEADER, MIN_MAX_FRAME
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    Peer,
    ask,
    serving,
)
from tools.protocol_starts import begin

SMALL = Limits(MIN_MAX_FRAME, 8)


def size(frame: Frame) -> int:
    return len(encode(frame)) - HEADER


async def small(listener: MemoryListener) -> Peer:
    """A client that takes the smallest frames that may be announced."""
    peer = listener.connect(SMALL)
    await peer.greet()
    return peer


async def lives(peer: Peer) -> None:
    await peer.send(Ping(b"p"))
    assert await peer.next() == Pong(b"p")


# -- over a connection ----------------------------------------------------------------------------


async def test_a_piece_that_does_not_fit_ends_its_stream_alone(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await small(listener)
        await peer.send(ask("a " + "b" * 20_000 + " c"))
        pieces, error = await peer.until(Error)
        assert pieces == ["a"]
        assert error.code == "frame_too_large"
        assert "piece 1: a frame of 20" in error.message
        assert "max_frame of 16384" in error.message
        await lives(peer)
        await peer.send(ask("three", stream=2))
        assert (await peer.until(Done, 2))[0] == ["three"]


async def test_a_report_that_does_not_fit_is_cut(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        report = {"server": {"pid": 1}, "users": [{"name": "u" * 100}] * 1000}
        monkeypatch.setattr(server._reports._reporter, "report", lambda *_, **__: report)
        peer = await small(listener)
        await peer.send(Status(1))
        event = await peer.next()
        assert isinstance(event, Report)
        assert event.report["server"] == {"pid": 1}
        kept = len(event.report["users"])
        assert 60 < kept < 160
        assert event.report["cut"] == {"users": 1000 - kept}
        await lives(peer)


def test_a_report_that_was_cut_before_counts_on() -> None:
    report = {"users": [{"name": "u" * 100}] * 200, "cut": {"users": 800, "queue": 3}}
    found = fitted(Report(1, report), MIN_MAX_FRAME)
    assert isinstance(found, Report)
    assert found.report["cut"] == {"users": 1000 - len(found.report["users"]), "queue": 3}
    assert report["cut"] == {"users": 800, "queue": 3}


async def test_a_report_that_cannot_be_cut_is_an_error_on_its_stream(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        for number, (report, code) in enumerate(
            [({"note": "x" * 20_000}, "frame_too_large"), ({"note": float("nan")}, "internal")], 1
        ):
            monkeypatch.setattr(server._reports._reporter, "report", lambda *_, r=report, **__: r)
            peer = await small(listener)
            await peer.send(Status(number))
            error = await peer.next()
            assert isinstance(error, Error)
            assert (error.stream, error.code) == (number, code)
            await lives(peer)


async def test_a_vector_that_does_not_fit_is_an_error_on_its_stream(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = FakeUpstream()

    async def embed(texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        return [[[1.0] * 8192] for _ in texts]

    monkeypatch.setattr(upstream, "embed", embed)
    async with serving(upstream) as (_, listener):
        peer = await small(listener)
        await peer.send(Embed(1, ["a", "b"]))
        error = await peer.next()
        assert isinstance(error, Error)
        assert (error.stream, error.code) == (1, "frame_too_large")
        await lives(peer)
        large = listener.connect()
        await large.greet()
        await large.send(Embed(1, ["a", "b"]))
        assert isinstance(await large.next(), Vectors)


async def test_an_error_with_a_long_message_loses_its_end(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamError("ä" * 10_000)
    async with serving(upstream, failover_seconds=0) as (_, listener):
        peer = await small(listener)
        await peer.send(ask("one two"))
        _, error = await peer.until(Error)
        assert error.code == "upstream_error"
        assert error.message.endswith("...")
        assert 2000 < len(error.message) <= 4096
        await lives(peer)


# -- the rule itself ------------------------------------------------------------------------------


def test_done_loses_its_stop_string_and_its_oldest_splices() -> None:
    splices = [n << 40 for n in range(5000)]
    done = Done(1, "stop", "g", "m", "s" * 2000, {"completion_tokens": 5}, splices=splices)
    found = fitted(done, MIN_MAX_FRAME)
    assert isinstance(found, Done)
    assert size(found) <= MIN_MAX_FRAME
    assert (found.stop, found.cut) == (None, ["stop", "splices"])
    assert len(found.splices) > 1500
    assert found.splices == splices[-len(found.splices) :]
    assert (found.reason, found.id, found.usage) == (done.reason, done.id, done.usage)
    assert fitted(done, 1 << 20) is done


def test_what_fits_is_left_as_it_is() -> None:
    frames: list[Frame] = [
        Done(1, "stop", stop="\n", splices=[1, 2]),
        Report(1, {"users": []}),
        Error(1, "internal", "x"),
        Tokens(1, 0, ["a"]),
    ]
    for frame in frames:
        assert fitted(frame, MIN_MAX_FRAME) is frame


def test_lists_of_a_report_are_cut_one_after_the_other() -> None:
    upstream = {"name": "x", "slots_detail": [{"id": n, "state": "free"} for n in range(400)]}
    report: dict[str, Any] = {
        "queue": [{"user": "ann"}] * 100,
        "users": [{"name": "ann"}],
        "models": [],
        "upstreams": [upstream] * 4,
    }
    found = fitted(Report(1, report), MIN_MAX_FRAME)
    assert isinstance(found, Report)
    assert size(found) <= MIN_MAX_FRAME
    assert (found.report["queue"], found.report["users"]) == ([], [])
    kept = sum(len(one["slots_detail"]) for one in found.report["upstreams"])
    assert found.report["cut"] == {"queue": 100, "users": 1, "slots_detail": 1600 - kept}
    assert kept > 400
    assert "cut" not in report
    assert len(upstream["slots_detail"]) == 400


def test_more_values_than_a_frame_may_hold_are_cut_as_well() -> None:
    found = fitted(Report(1, {"users": [{}] * 270_000}), 1 << 30)
    assert isinstance(found, Report)
    assert found.report["cut"] == {"users": 270_000 - len(found.report["users"])}
    assert 64 << 10 < size(found) <= 128 << 10  # nobody gets more
    encode(found)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.integers(1, 60), st.integers(MIN_MAX_FRAME, 20_000))
def test_any_error_fits(text: str, times: int, max_frame: int) -> None:
    error = Error(1, "c" * 64, text * times, True, 1.5, 7)
    found = fitted(error, max_frame)
    assert isinstance(found, Error)
    assert size(found) <= max_frame
    if found is not error:
        assert error.message.startswith(found.message[:-3])
        assert (found.code, found.retry, found.durable) == (error.code, True, 7)


def test_what_is_about_no_open_stream_raises() -> None:
    server = begin(Role.SERVER, "streams")
    with pytest.raises(LocalProtocolError):
        send_fitted(server, Done(9, "stop"))
    with pytest.raises(LocalProtocolError):
        send_fitted(server, Pong(b"x" * 65))
    assert failure(3, FrameTooLargeError("x")).code == "frame_too_large"
    assert failure(3, LocalProtocolError("x")) == Error(3, "internal", "x")

"""What the server keeps: a real journal and store behind it, and what clients see of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import StorageError
from llcuda_net.generation.persistence import Persistence
from llcuda_net.storage.records import Level, Result
from llcuda_protocol import Accepted, Cancel, Done, Error, ErrorCode, Ping, Pong, Tokens
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import FakeUpstream, ask, ready, serving


@pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])
async def test_a_result_is_in_the_store_when_done_arrives(tmp_path: Path, level: Level) -> None:
    async with keeping(tmp_path, FakeUpstream(), level) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three", params={"seed": 7}))
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        assert accepted.level == level
        pieces, done = await peer.until(Done)
        assert "".join(pieces) == "one two three"
        assert done.timings["persist"] >= 0
        (result,) = stored(tmp_path)
        assert (result.id, result.state, result.text) == (accepted.id, "done", "one two three")
        assert result.request["prompt"] == "one two three"
        assert (result.seed, result.reason, result.level) == (7, "stop", level)
        assert result.usage["prompt_tokens"] == 7
        assert result.model["name"] == "fake"
        assert result.upstream == "fake://"
        assert result.log.ids == [0, 1, 2]


async def test_strict_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream, Level.STRICT) as (storage, listener):
        peer = await ready(listener)
        asked, release = trio.Event(), trio.Event()
        sync = storage.sync

        async def slow() -> None:
            asked.set()
            await release.wait()
            await sync()

        monkeypatch.setattr(storage, "sync", slow)
        await peer.send(ask("a b"))
        assert isinstance(await peer.next(), Accepted)
        upstream.release(1)
        await asked.wait()
        await peer.send(Ping(b"x"))
        assert isinstance(await peer.next(), Pong)  # and no tokens before it
        release.set()
        assert isinstance(await peer.next(), Tokens)
        upstream.release(1)
        await peer.until(Done)


async def test_strict_waits_for_the_disk_with_the_last_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, asked, release = trio.Event(), trio.Event(), trio.Event()
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream, Level.STRICT) as (storage, listener):
        peer = await ready(listener)
        await peer.send(ask("a b"))
        await peer.until(Accepted)
        sync, written, commit = storage.sync, storage.journal.write, storage._writer.commit

        async def slow_sync() -> None:
            asked.set()
            await release.wait()
            await sync()

        async def slow_commit(result: Result) -> None:
            commits.set()
            await release.wait()
            await commit(result)

        def late(then: Any = None, **options: Any) -> bool:
            """As a thread that reports when the generation is at its end already."""

            async def report() -> None:
                await commits.wait()
                then(None)

            if not isinstance(then, partial):  # not the publisher's
                return written(then, **options)
            written(**options)
            nursery.start_soon(report)
            return False

        monkeypatch.setattr(storage, "sync", slow_sync)
        monkeypatch.setattr(storage._writer, "commit", slow_commit)
        monkeypatch.setattr(storage.journal, "write", late)
        async with trio.open_nursery() as nursery:
            upstream.release(3)
            await commits.wait()
            seen = []
            for number in range(3):  # turns of the loop, in which it would be shown
                await peer.send(Ping(b"%d" % number))
                seen.append(await peer.next())
            release.set()
            await peer.until(Done)
        assert all(isinstance(frame, Pong) for frame in seen)  # and no tokens before them
        assert asked.is_set()


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_what_did_not_finish_is_kept_with_its_state(
    tmp_path: Path, how: str, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1.0
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b c", timeout=600 if how == "failed" else None))
        upstream.release(1)
        while not isinstance(await peer.next(), Tokens):
            pass
        if how == "cancelled":
            await peer.send(Cancel(1))
            await peer.until(Done)
        else:
            mock_clock.jump(600)
            _, error = await peer.until(Error)
            assert error.code == ErrorCode.TIMEOUT
        (result,) = stored(tmp_path)
        assert (result.state, result.text) == (how, "a")
        assert (result.error is not None) == (how == "failed")


@pytest.mark.parametrize("where", ["start", "accepted", "write", "finish"])
async def test_a_refusal_by_the_storage_reaches_the_client(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = FakeUpstream()
    upstream.paused = where == "write"  # the request itself is to be written
    async with keeping(tmp_path, upstream) as (storage, listener):
        peer = await ready(listener)
        if where == "write":
            await peer.send(ask("a b c"))
            await peer.until(Accepted)

        def refuse(*_: Any, **__: Any) -> None:
            raise StorageError("no room on the disk", StorageError.FULL)

        async def refuse_later(*_: Any, **__: Any) -> None:
            refuse()

        with monkeypatch.context() as patch:
            for name in ("write", "finish") if where == "write" else (where,):
                later = name in ("accepted", "finish")
                owner = storage.journal if name == "write" else storage
                patch.setattr(owner, name, refuse_later if later else refuse)
            if where == "write":
                upstream.release(3)
            else:
                await peer.send(ask("a b c"))
            pieces, error = await peer.until(Error)
        assert (error.code, error.retry) == (ErrorCode.STORAGE, True)
        assert "no room" in error.message
        # No client has a token that the journal does not have.
        assert pieces == [] or where == "finish"
        upstream.paused = False
        await peer.send(ask("a b", 2))  # and goes on when there is room
        pieces, _ = await peer.until(Done, 2)
        assert "".join(pieces) == "a b"


async def test_nothing_is_kept_without_a_storage(tmp_path: Path) -> None:
    async with serving(FakeUpstream(), persistence=Persistence(None, Level.DISK)) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask())
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        assert accepted.level == "memory"
        await peer.until(Done)
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240

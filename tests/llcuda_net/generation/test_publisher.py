"""A disk that stalls holds up the tokens that it is to keep, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Level
from llcuda_protocol import Accepted, Done, Error, Ping, Pong, Report, Status, Tokens
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import FakeUpstream, ask, ready, status
from tests.support.storage.replica import HeldReplica
from tests.support.storage.stalling import PATIENCE, StallingFiles


@pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])
async def test_a_stalled_write_holds_up_no_client(tmp_path: Path, level: Level) -> None:
    upstream = FakeUpstream()
    upstream.paused = True
    files = StallingFiles()
    async with keeping(tmp_path, upstream, level, files=files) as (_, listener):
        peer, free = await ready(listener), await ready(listener)
        await peer.send(ask("one two three"))
        await peer.until(Accepted)
        files.stall.begin()
        try:
            with trio.fail_after(PATIENCE):
                upstream.release(2)
                await files.stall.reached()
                # All of it while the write waits: nobody lets it go before.
                await peer.send(Ping(b"x"))
                assert isinstance(await peer.next(), Pong)  # and no tokens before it
                await peer.send(Status(9))
                report = await peer.next()
                assert isinstance(report, Report)
                late = await ready(listener)
                await late.send(Ping(b"y"))
                assert isinstance(await late.next(), Pong)
                assert (await status(listener))["requests"]["running"] == 1
                # What is not kept does not wait for the disk either.
                await free.send(ask("four five", level="memory"))
                await free.until(Accepted)
                upstream.release(3)  # the first one gets its last, too
                pieces, _ = await free.until(Done)
                assert "".join(pieces) == "four five"
        finally:
            files.stall.end()
        with trio.fail_after(PATIENCE):
            assert isinstance(found := await peer.next(), Tokens)
            assert found.first == 0
            await peer.until(Done)
        assert stored(tmp_path)[0].text == "one two three"


async def test_a_stalled_write_holds_up_only_the_acceptance_that_needs_it(tmp_path: Path) -> None:
    files = StallingFiles()
    async with keeping(tmp_path, FakeUpstream(), files=files) as (_, listener):
        peer = await ready(listener)
        files.stall.begin()
        try:
            with trio.fail_after(PATIENCE):
                await peer.send(ask("a b"))
                await files.stall.reached()
                await peer.send(Ping(b"x"))
                assert isinstance(await peer.next(), Pong)  # before `accepted`
        finally:
            files.stall.end()
        pieces, _ = await peer.until(Done)
        assert "".join(pieces) == "a b"


@pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])
async def test_nothing_is_shown_that_another_server_may_have(tmp_path: Path, level: Level) -> None:
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream, level) as (_, listener):
        may_show = True
        server = listener.server
        server._publisher._may_show = lambda: may_show
        peer = await ready(listener)
        await peer.send(ask("one two three four"))
        upstream.release(1)
        first = await peer.until(Tokens)
        may_show = False
        upstream.release(2)
        await trio.testing.wait_all_tasks_blocked(0.1)
        (generation,) = server.registry
        assert len(generation.pieces) == 3
        assert generation.visible == 1
        await peer.send(Ping(b"x"))
        assert isinstance(await peer.next(), Pong)  # which is sent, and no tokens before it
        may_show = True
        upstream.release(1)
        with trio.fail_after(PATIENCE):
            rest, _ = await peer.until(Done)
        assert first[-1].pieces == ["one"]
        assert "".join(rest) == " two three four"


async def test_nothing_is_told_before_other_servers_could_go_on(tmp_path: Path) -> None:
    upstream, replica = FakeUpstream(), HeldReplica()
    async with keeping(tmp_path, upstream, Level.CLUSTER, replica=replica) as (_, listener):
        peer, other = await ready(listener), await ready(listener)
        with trio.fail_after(PATIENCE):
            replica.hold()
            await peer.send(ask("one two three"))
            # A level that does not wait for the others' database goes on, but for its end.
            await other.send(ask("four five", level="disk"))
            await other.until(Tokens)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(Ping(b"x"))
            assert isinstance(await peer.next(), Pong)  # neither accepted, nor a token
            replica.release()
            _, accepted = await peer.until(Accepted)
            assert accepted.level == "cluster"
            await peer.until(Done)
            await other.until(Done)
    assert {one.level for one in stored(tmp_path)} == {Level.CLUSTER, Level.DISK}


async def test_tokens_are_told_after_their_commit(tmp_path: Path) -> None:
    upstream, replica = FakeUpstream(), HeldReplica()
    upstream.paused = True
    async with keeping(tmp_path, upstream, Level.CLUSTER, replica=replica) as (_, listener):
        peer = await ready(listener)
        with trio.fail_after(PATIENCE):
            await peer.send(ask("one two three"))
            await peer.until(Accepted)
            replica.hold()
            before = len(replica.bodies)
            upstream.release(2)
            while len(replica.bodies) == before:  # noqa: ASYNC110
                await trio.sleep(0.001)
            await peer.send(Ping(b"y"))
            assert isinstance(await peer.next(), Pong)
            replica.release()
            assert isinstance(await peer.next(), Tokens)
            upstream.release(2)
            await peer.until(Done)


async def test_what_the_others_do_not_get_ends_the_generation(tmp_path: Path) -> None:
    upstream, replica = FakeUpstream(), HeldReplica()
    upstream.paused = True
    async with keeping(tmp_path, upstream, Level.CLUSTER, replica=replica) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three"))
        await peer.until(Accepted)
        replica.hold()
        before = len(replica.bodies)
        upstream.release(2)
        while len(replica.bodies) == before:  # noqa: ASYNC110
            await trio.sleep(0.001)
        replica.release(StorageError("it is another one's", StorageError.FENCED))
        with trio.fail_after(PATIENCE):
            while upstream.active:  # noqa: ASYNC110
                await trio.sleep(0.001)
    assert stored(tmp_path) == []


async def test_a_server_alone_has_no_level_cluster(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one", level="cluster"))
        error = await peer.next()
        assert isinstance(error, Error)
        assert (error.code, error.retry) == ("invalid_request", False)
        assert "--store" in error.message

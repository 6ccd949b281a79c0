"""An upstream works while its request is journalled; readers learn of nothing before it is safe."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import RequestError, StorageUnavailable, UpstreamUnavailable
from llcuda_net.generation.acceptance import Acceptance
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.records import Level
from llcuda_protocol import Accepted, Cancel, Done, Error, ErrorCode
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import FakeUpstream, Peer, ask, ready
from tests.support.storage.replica import HeldReplica

PATIENCE = 300.0


class HeldFiles(RealFiles):
    """A disk whose syncs wait until they may go on, and then fail if they shall."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.broken = False
        self.syncs = 0

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold syncs from now on, up to the end at the latest."""
        self.go.clear()
        try:
            yield
        finally:
            self.go.set()

    def fdatasync(self, descriptor: int) -> None:
        self.syncs += 1
        assert self.go.wait(PATIENCE)
        if self.broken:
            raise OSError(5, "Input/output error")
        super().fdatasync(descriptor)


@contextlib.asynccontextmanager
async def _behind_a_sync(
    tmp_path: Path, files: HeldFiles, upstream: FakeUpstream, level: Level = Level.DISK
) -> AsyncIterator[Peer]:
    """A client whose upstream works at its request, which the disk does not have."""
    async with keeping(tmp_path, upstream, level, files=files) as (_, listener):
        peer = await ready(listener)
        with files.holding():
            await peer.send(ask("a b c", tokens=True))
            await _until_called(upstream, 1)
            await wait_all_tasks_blocked()
            yield peer


async def _until_called(upstream: FakeUpstream, times: int) -> None:
    with trio.fail_after(PATIENCE):
        while len(upstream.calls) < times:  # noqa: ASYNC110 -- it has no event for it
            await trio.sleep(0.001)


@pytest.mark.parametrize("level", [Level.DISK, Level.STRICT])
async def test_the_upstream_works_while_the_disk_does(tmp_path: Path, level: Level) -> None:
    upstream, files = FakeUpstream(), HeldFiles()
    async with _behind_a_sync(tmp_path, files, upstream, level) as peer:
        got: list[object] = []

        async def read() -> None:
            got.append(await peer.next())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            assert not got  # neither that it is accepted, nor a token
            assert upstream.active == 0  # it has said all
            files.go.set()
        assert isinstance(got[0], Accepted)
        pieces, done = await peer.until(Done)
        assert (pieces, done.reason) == (["a", " b", " c"], "stop")
    assert [one.state for one in stored(tmp_path)] == ["done"]


async def test_what_cannot_be_kept_is_stopped(tmp_path: Path) -> None:
    upstream, files = FakeUpstream(), HeldFiles()
    upstream.paused = True
    async with _behind_a_sync(tmp_path, files, upstream) as peer:
        assert upstream.active == 1
        upstream.release(2)
        await wait_all_tasks_blocked()
        files.broken = True
        files.go.set()
        frame = await peer.next()
        assert isinstance(frame, Error)  # it was not accepted, and no token of it was sent
        assert frame.code == ErrorCode.STORAGE
        assert "the journal cannot be written" in frame.message
        assert upstream.active == 0


async def test_one_that_is_cancelled_before_it_is_accepted_ends(tmp_path: Path) -> None:
    upstream, files = FakeUpstream(), HeldFiles()
    upstream.paused = True
    async with _behind_a_sync(tmp_path, files, upstream) as peer:
        await peer.send(Cancel(1))
        await wait_all_tasks_blocked()
        assert upstream.active == 0  # its slot is free, whatever the disk does
        files.go.set()
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"


async def test_one_that_ends_with_an_error_is_not_told_as_accepted_first(tmp_path: Path) -> None:
    """Its end is on its way to the database, behind its request, when both are committed."""
    upstream, replica = FakeUpstream(), HeldReplica()
    upstream.paused = True
    async with keeping(tmp_path, upstream, Level.CLUSTER, replica=replica) as (_, listener):
        peer = await ready(listener)
        replica.hold()
        await peer.send(ask("a b c", key="k"))
        await _until_called(upstream, 1)
        (generation,) = listener.server.registry
        generation.hand_back(UpstreamUnavailable("for 60 s there is no upstream"))
        await wait_all_tasks_blocked()
        assert not generation.ended  # it waits for the database
        replica.release()
        frame = await peer.next()
        assert isinstance(frame, Error)
        assert frame.code == ErrorCode.UPSTREAM_UNAVAILABLE
    assert [one.state for one in stored(tmp_path)] == ["failed"]


class Journal:
    """A persistence that keeps requests when it is told to.

    Attributes:
        asked: the entry of each call.
    """

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.go = trio.Event()
        self.refusal: RequestError | None = None

    async def accepted(self, entry: JournalEntry | None) -> None:
        self.asked.append(entry)
        if entry is not None:
            await self.go.wait()
        if self.refusal is not None:
            raise self.refusal


class Entry:
    """What acceptance looks at of an entry; it is what its number is."""

    def __init__(self, number: int, level: Level, replicated: bool) -> None:
        self.number = number
        self.synced = level.synced
        self.acceptance_awaited = replicated
        self.taken = None

    def __eq__(self, other: object) -> bool:
        return other == f"entry {self.number}"

    def __hash__(self) -> int:
        return self.number


def _kept(level: Level, number: int, *, replicated: bool = False) -> Generation:
    entry: Any = Entry(number, level, replicated)
    return Generation("a", None, {}, 1.0, level=level, entry=entry)


async def test_requests_that_come_together_share_a_sync(nursery: trio.Nursery) -> None:
    journal, published = Journal(), []
    acceptance = Acceptance(cast("Any", journal), lambda: published.append(1))
    nursery.start_soon(acceptance.run)
    await wait_all_tasks_blocked()
    generations = [_kept(Level.DISK, number) for number in range(12)]
    acceptance.begin(generations[0])
    await wait_all_tasks_blocked()
    for one in generations[1:]:
        acceptance.begin(one)
    await wait_all_tasks_blocked()
    assert journal.asked == ["entry 0", "entry 11"]  # behind the first one, while it is busy
    assert not any(one.accepted for one in generations)
    over, kept_nowhere = generations.pop(), Generation("a", None, {}, 1.0)
    acceptance.forget(over)
    acceptance.begin(kept_nowhere)
    assert kept_nowhere.accepted  # no disk holds it up
    await wait_all_tasks_blocked()
    assert len(published) == 1
    journal.go.set()
    with trio.fail_after(PATIENCE):
        await acceptance.wait(generations[-1])
    await wait_all_tasks_blocked()
    assert all(one.accepted for one in generations)
    assert not over.accepted
    assert len(published) == 3  # one wake-up for each call
    await acceptance.wait(over)


async def test_who_waits_for_a_database_holds_up_nobody_else(nursery: trio.Nursery) -> None:
    journal = Journal()
    acceptance = Acceptance(cast("Any", journal), lambda: None)
    nursery.start_soon(acceptance.run)
    await wait_all_tasks_blocked()
    acceptance.begin(_kept(Level.CLUSTER, 0, replicated=True))
    acceptance.begin(_kept(Level.DISK, 1, replicated=True))  # it has a key
    acceptance.begin(_kept(Level.DISK, 2))
    acceptance.begin(_kept(Level.PROCESS, 3))
    await wait_all_tasks_blocked()
    assert {one.number for one in journal.asked if isinstance(one, Entry)} == {0, 1, 2, 3}


async def test_the_journal_refuses_all_that_it_cannot_keep(nursery: trio.Nursery) -> None:
    journal = Journal()
    journal.refusal = StorageUnavailable("no disk")
    acceptance = Acceptance(cast("Any", journal), lambda: None)
    nursery.start_soon(acceptance.run)
    generations = [_kept(Level.PROCESS, number) for number in range(3)]
    for one in generations:
        acceptance.begin(one)
    journal.go.set()
    await wait_all_tasks_blocked()
    for one in generations:
        assert one.scope.cancel_called
        assert one.error is journal.refusal
        assert not one.accepted


async def test_one_whose_key_was_given_away_meanwhile_does_not_go_on(tmp_path: Path) -> None:
    """No other server has heard of it, and its key was sent again, elsewhere."""
    upstream, replica = FakeUpstream(), HeldReplica()
    upstream.paused = True
    async with keeping(tmp_path, upstream, replica=replica) as (_, listener):
        peer, server = await ready(listener), listener.server
        assert server is not None
        with trio.fail_after(PATIENCE):
            await peer.send(ask("a b", key="other"))
            await peer.until(Accepted)
            await peer.send(ask("a b c", 2, key="k"))
            await peer.until(Accepted, 2)
            for generation in server.registry:
                generation.suspend()
            while len(server.registry):  # noqa: ASYNC110 -- it has no event for it
                await trio.sleep(0.001)
            aside = [one.aside() for one in server.hosting.left_aside()]
            assert len(aside) == 2
            replica.taken = {"k": "elsewhere"}
            server.hosting.begin_again(aside)
            await server.hosting.resume(aside)
            (goes_on,) = server.registry
            assert goes_on.key == "other"
            upstream.paused = False
            upstream.release(10)
            while len(server.registry):  # noqa: ASYNC110
                await trio.sleep(0.001)
    assert [one.key for one in stored(tmp_path)] == ["other"]
    async with keeping(tmp_path, FakeUpstream(), replica=HeldReplica()) as (_, listener):
        assert listener.server is not None
        assert not len(listener.server.registry)

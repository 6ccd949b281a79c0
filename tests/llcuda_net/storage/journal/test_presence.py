"""A data directory that goes away under its server is noticed before anything is acknowledged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.presence import Presence
from llcuda_net.storage.records import Level
from llcuda_net.storage.results.interface import Query
from llcuda_net.telemetry.readiness import Readiness
from llcuda_protocol import Accepted, Done, Error, ErrorCode
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, ask, ready, status

PATIENCE = 300.0


def remove_all(directory: Path) -> None:
    # Aside first: the index's thread may make a file while it is emptied.
    shutil.rmtree(directory.rename(directory.with_name("gone")), ignore_errors=True)


def remove_journal(directory: Path) -> None:
    for path in (directory / "journal").glob("*.journal"):
        path.unlink()


def replace_journal(directory: Path) -> None:
    for path in (directory / "journal").glob("*.journal"):
        data = path.read_bytes()
        path.rename(directory / path.name)
        path.write_bytes(data)


def remove_store(directory: Path) -> None:
    (directory / "results.db").unlink()


def remove_wal(directory: Path) -> None:
    (directory / "results.db-wal").unlink()


def empty_store(directory: Path) -> None:
    os.truncate(directory / "results.db", 0)


def move_all(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


HOW = [remove_all, move_all, remove_journal, replace_journal, remove_store, remove_wal]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("level", [Level.DISK, Level.STRICT])
async def test_nothing_is_acknowledged_into_files_that_are_gone(
    tmp_path: Path, how: object, level: Level
) -> None:
    assert callable(how)
    directory = tmp_path / "data"
    async with keeping(directory, FakeUpstream(), level, watch=1e9) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b"))
        await peer.until(Done)
        how(directory)
        with trio.fail_after(PATIENCE):
            await peer.send(ask("c d", 2))
            found = await peer.next()
        assert isinstance(found, Error)  # not even accepted
        assert found.code == ErrorCode.STORAGE
        assert not found.retry
        assert "restart llcuda-server" in found.message
        assert "\n" not in found.message
        report = await status(listener)
        assert str(directory) in report["store"]["refuses"]
        readiness = Readiness()
        assert listener.server is not None
        readiness.server = listener.server.standing
        assert str(directory) in str(readiness.reason())


@pytest.mark.parametrize("how", [remove_store, remove_wal])
async def test_no_done_is_sent_for_a_result_in_a_deleted_store(tmp_path: Path, how: object) -> None:
    assert callable(how)
    upstream = FakeUpstream()
    upstream.paused = True
    async with keeping(tmp_path, upstream, Level.PROCESS, watch=1e9) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("a b"))
        await peer.until(Accepted)
        how(tmp_path)
        upstream.release(2)
        with trio.fail_after(PATIENCE):
            _, error = await peer.until(Error)
        assert error.code == ErrorCode.STORAGE


@pytest.mark.parametrize("how", [remove_all, remove_store, remove_wal, empty_store])
async def test_what_cannot_be_read_because_files_are_gone_is_no_damage(
    tmp_path: Path, how: object
) -> None:
    assert callable(how)
    directory = tmp_path / "data"
    async with keeping(directory, FakeUpstream(), watch=1e9) as (storage, listener):
        peer = await ready(listener)
        await peer.send(ask("a b"))
        await peer.until(Done)
        how(directory)
        with pytest.raises(StorageError, match="restart llcuda-server") as caught:
            await storage.read(lambda store: list(store.find(Query())))
    assert caught.value.code == StorageError.FAILED


async def test_an_idle_server_notices_too(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with keeping(directory, FakeUpstream(), watch=0.001) as (storage, _):
        assert storage.refusal is None
        remove_all(directory)
        with trio.fail_after(PATIENCE):
            while storage.refusal is None:  # noqa: ASYNC110 - nothing tells us
                await trio.sleep(0.001)
        assert storage.refusal.code == StorageError.FAILED


def test_files_that_come_and_go_by_our_own_hand_are_no_loss(tmp_path: Path) -> None:
    presence = Presence(RealFiles())
    path = tmp_path / "file"
    presence.watch(path)
    presence.check()  # it was not there: nothing is missed
    path.write_text("x")
    presence.watch(path)
    path.write_text("more")
    presence.check()
    presence.forget(path)
    path.unlink()
    presence.check()
    path.write_text("x")
    presence.watch(path)
    path.unlink()
    with pytest.raises(StorageError, match="deleted"):
        presence.check()

"""A user deletes a generation that is over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.config.users import ANONYMOUS, User
from llcuda_net.errors import InvalidRequest, UnknownGeneration
from llcuda_net.storage.records import Level
from llcuda_protocol import Accepted, Attach, Done
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import FakeUpstream, MemoryListener, ask, paused, ready


async def done(listener: MemoryListener, **options: Any) -> str:
    peer = await ready(listener)
    await peer.send(ask(**options))
    accepted = await peer.next()
    assert isinstance(accepted, Accepted)
    await peer.until(Done)
    return accepted.id


async def test_it_is_gone_for_good_and_its_key_is_free(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        server = listener.server
        id_ = await done(listener, key="k", fresh=True)
        with pytest.raises(UnknownGeneration):
            await server.generations.delete(id_, User("somebody"))
        await server.generations.find(Attach(1, id_, 10), ANONYMOUS)
        await server.generations.delete(id_, ANONYMOUS)
        for _ in range(2):
            with pytest.raises(UnknownGeneration):
                await server.generations.delete(id_, ANONYMOUS)
            with pytest.raises(UnknownGeneration):
                await server.generations.find(Attach(1, id_, 10), ANONYMOUS)
        again = await done(listener, text="another request", key="k", fresh=True)
        assert again != id_
    assert [one.id for one in stored(tmp_path)] == [again]
    # As a kill: no restart brings it back.
    async with keeping(tmp_path, FakeUpstream()) as (storage, _):
        assert (storage.problems, storage.recovered) == ([], [])
    assert [one.id for one in stored(tmp_path)] == [again]


async def test_what_runs_is_not_deleted(tmp_path: Path) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask())
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        with pytest.raises(InvalidRequest, match="runs"):
            await listener.server.generations.delete(accepted.id, ANONYMOUS)
        upstream.release(3)
        await peer.until(Done)


async def test_an_admin_deletes_any_and_what_is_in_memory_only_goes_too(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        id_ = await done(listener, level=Level.MEMORY, key="k")
        await listener.server.generations.delete(id_, User("root", admin=True))
        with pytest.raises(UnknownGeneration):
            await listener.server.generations.find(Attach(1, id_, 10), ANONYMOUS)


async def test_no_kill_brings_it_back(tmp_path: Path) -> None:
    """Just before, the journal knew it still: what it no longer needs is written with the next."""
    folder, copy = tmp_path / "data", tmp_path / "copy"
    folder.mkdir()
    async with keeping(folder, FakeUpstream(), Level.PROCESS) as (_, listener):
        id_ = await done(listener)
        await listener.server.generations.delete(id_, ANONYMOUS)
        shutil.copytree(folder, copy)  # as a kill in this moment would leave it
    async with keeping(copy, FakeUpstream()):
        pass
    assert stored(copy) == []

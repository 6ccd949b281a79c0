"""Transient generations on a server: read as any other until they are due, and then by nobody."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from llcuda_net.config.users import ANONYMOUS
from llcuda_net.errors import InvalidRequest, KeyConflict, UnknownGeneration
from llcuda_net.generation.listing import Selection, listed
from llcuda_net.generation.persistence import Persistence
from llcuda_net.storage.records import Level
from llcuda_net.storage.storage import TRANSIENT, Storage
from llcuda_protocol import Accepted, Attach, Credit, Done, Error
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import FakeUpstream, MemoryListener, ask, paused, ready
from tests.support.storage.clock import Clock
from tests.support.storage.holders import holders

SECRET = "rosebud"


async def begun(listener: MemoryListener, **options: Any) -> tuple[Any, str]:
    peer = await ready(listener)
    await peer.send(ask(**{"text": f"{SECRET} two three", "transient": True, **options}))
    accepted = await peer.next()
    assert isinstance(accepted, Accepted), accepted
    return peer, accepted.id


async def done(listener: MemoryListener, **options: Any) -> str:
    peer, id_ = await begun(listener, **options)
    await peer.until(Done)
    return id_


async def until(condition: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 60
        await trio.sleep(1)


async def erased(storage: Storage, folder: Path, clock: Clock) -> None:
    """The time of all is over, and the server has erased them."""
    clock.advance(TRANSIENT)
    await until(lambda: not len(storage.transient) and not holders(folder, SECRET))


async def read(listener: MemoryListener, id_: str) -> str:
    found = await listener.server.generations.find(Attach(1, id_, 10), ANONYMOUS)
    return "".join(found.pieces)


async def test_it_is_read_as_any_other_until_it_is_erased(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock(time.time_ns())
    async with keeping(tmp_path, FakeUpstream(), clock=clock) as (storage, listener):
        other = await done(listener, transient=False, text="something else")
        id_ = await done(listener, key="k", fresh=True)
        found = await listener.server.generations.find(Attach(1, id_, 10), ANONYMOUS)
        assert found.transient
        assert await read(listener, id_) == f"{SECRET} two three"
        assert await done(listener, key="k") == id_  # a key that is sent again
        by_key = await listener.server.generations.find_by_key("k", "")
        assert by_key is not None
        assert by_key.id == id_
        listener.server.orphans.add(found)  # somebody left it before its end
        gone = [weakref.ref(found), weakref.ref(by_key)]
        del found, by_key
        await erased(storage, tmp_path, clock)
        with pytest.raises(UnknownGeneration):
            await listener.server.generations.find(Attach(1, id_, 10), ANONYMOUS)
        assert await listener.server.generations.find_by_key("k", "") is None
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert [one() for one in gone] == [None, None]
        assert not len(listener.server.finder.replayed)
        # Its key is free, also for another request.
        again = await done(listener, key="k", fresh=True, text=f"{SECRET} again")
        assert again != id_
        assert await read(listener, other) == "something else"
    assert [one.id for one in stored(tmp_path)] == [other]


async def test_who_reads_it_just_then_gets_the_rest(tmp_path: Path, autojump_clock: object) -> None:
    clock = Clock(time.time_ns())
    async with keeping(tmp_path, FakeUpstream(), clock=clock) as (storage, listener):
        id_ = await done(listener)
        peer = await ready(listener)
        await peer.send(Attach(1, id_, credit=0))
        assert isinstance(await peer.next(), Accepted)
        await erased(storage, tmp_path, clock)
        with pytest.raises(UnknownGeneration):
            await listener.server.generations.find(Attach(1, id_, 10), ANONYMOUS)
        await peer.send(Credit(1, 1000))
        pieces, _ = await peer.until(Done)
        assert "".join(pieces) == f"{SECRET} two three"


async def test_one_that_a_kill_interrupts_stays_what_it_is(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock, upstream = Clock(time.time_ns()), paused()
    async with keeping(tmp_path, upstream, clock=clock) as (_, listener):
        _, id_ = await begun(listener)
        upstream.release(1)
        await trio.sleep(1)
    assert holders(tmp_path, SECRET) != []
    async with keeping(tmp_path, FakeUpstream(), clock=clock) as (storage, listener):
        found = await listener.server.generations.find(Attach(1, id_, 10), ANONYMOUS)
        assert found.transient
        peer = await ready(listener)
        await peer.send(Attach(1, id_, 1000))
        await peer.until(Done)
        assert id_ in storage.transient
        await erased(storage, tmp_path, clock)
    assert stored(tmp_path) == []


async def test_it_neither_answers_what_is_stored_nor_is_answered_by_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    same: dict[str, Any] = {"params": {"temperature": 0, "seed": 1}}
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        await done(listener, **same)
        await done(listener, **same, transient=False, cache=True)
        assert len(upstream.calls) == 2
        await done(listener, **same, transient=False, cache=True)
        assert len(upstream.calls) == 2  # from the cache: the control
        peer = await ready(listener)
        await peer.send(ask(**same, cache=True, transient=True))
        error = await peer.next()
        assert isinstance(error, Error)
        assert "cache" in error.message


@pytest.mark.parametrize("transient", [True, False])
async def test_a_key_of_the_one_kind_is_not_the_same_request_of_the_other(
    tmp_path: Path, transient: bool, autojump_clock: object
) -> None:
    upstream = paused(slots=2)
    async with keeping(tmp_path, upstream) as (_, listener):
        server = listener.server
        peer, _ = await begun(listener, key="k", transient=transient)
        other = ask(f"{SECRET} two three", key="k", transient=not transient)
        with pytest.raises(KeyConflict):
            server.intake.submit(other, ANONYMOUS)
        upstream.release(9)
        await peer.until(Done)
        await peer.stream.aclose()
        peer = await ready(listener)
        await peer.send(other)
        error = await peer.next()
        assert isinstance(error, Error)
        assert error.code == "key_conflict"


async def test_a_list_has_it_while_it_runs(tmp_path: Path, autojump_clock: object) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (storage, listener):
        peer, id_ = await begun(listener)
        registry, persistence = listener.server.registry, Persistence(storage, Level.DISK)
        for ids in ([id_], []):
            found = await listed(Selection(limit=50), ANONYMOUS, registry, persistence)
            assert [one["id"] for one in found] == ids
            if ids:
                upstream.release(9)
                await peer.until(Done)


async def test_its_owner_deletes_it(tmp_path: Path, autojump_clock: object) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        id_ = await done(listener, key="k", fresh=True)
        await listener.server.generations.delete(id_, ANONYMOUS)
        assert holders(tmp_path / "transient", SECRET) == []
        with pytest.raises(UnknownGeneration):
            await listener.server.generations.delete(id_, ANONYMOUS)
        assert await done(listener, key="k", fresh=True) != id_


async def test_without_a_store_it_is_as_any_other(autojump_clock: object, tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream(), Level.MEMORY) as (_, listener):
        id_ = await done(listener)
        assert await read(listener, id_) == f"{SECRET} two three"
        assert holders(tmp_path, SECRET) == []


async def test_its_prompt_is_in_no_log(tmp_path: Path, autojump_clock: object) -> None:
    async with keeping(tmp_path, FakeUpstream(), log_prompts=True) as (_, listener):
        with structlog.testing.capture_logs() as lines:
            await done(listener)
            await done(listener, transient=False, text="shown")
        assert SECRET not in str(lines)
        assert "shown" in str(lines)


async def test_from_the_cache_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        with pytest.raises(InvalidRequest, match="cache"):
            listener.server.intake.submit(ask(cache=True, transient=True), ANONYMOUS)
        assert not len(listener.server.registry)

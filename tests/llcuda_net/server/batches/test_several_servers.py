"""Batches of several servers on the same objects: each is run by one, and ends once."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.storage.objects import batches
from tests.support.server.batch_rig import (
    BatchRig,
    MemberObjects,
    MemoryObjects,
    Upstream,
    batch_rig,
)

TEXTS = [f"text {n}" for n in range(20)]
A, B = 1, 2


class Servers:
    """The objects of two servers."""

    def __init__(self) -> None:
        kept = MemoryObjects()
        self.fenced: set[int] = set()
        self.a = MemberObjects(kept, self.fenced, A)
        self.b = MemberObjects(kept, self.fenced, B)


def written(rig: BatchRig, id_: str | None) -> list[str]:
    return [one["custom_id"] for one in rig.contents(id_)]


def held() -> Upstream:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    return upstream


async def test_one_whose_server_is_gone_is_finished_by_another(
    autojump_clock: trio.abc.Clock,
) -> None:
    servers, first, second = Servers(), held(), Upstream()
    async with batch_rig(servers.b, second) as b:
        async with batch_rig(servers.a, first) as a:
            batch = a.make(TEXTS)
            await wait_all_tasks_blocked()
            first.release(5)
            await trio.sleep(10)
            assert second.texts == []  # it is another's, which lives
        await trio.sleep(10)
        assert second.texts == []  # it may live
        servers.fenced.add(A)
        batch = await b.over(batch)
        assert (batch.state, batch.completed, batch.server) == ("completed", 20, B)
        assert written(b, batch.output) == TEXTS
        assert sorted(first.texts[:5] + second.texts) == sorted(TEXTS)


async def test_a_server_that_was_taken_for_dead_writes_nothing_more(
    autojump_clock: trio.abc.Clock,
) -> None:
    servers, first, second = Servers(), held(), Upstream()
    async with (
        batch_rig(servers.a, first) as a,
        batch_rig(servers.b, second) as b,
    ):
        batch = a.make(TEXTS)
        await wait_all_tasks_blocked()
        asked = len(first.texts)
        assert asked
        servers.fenced.add(A)
        batch = await b.over(batch)
        assert sorted(second.texts) == sorted(TEXTS)
        first.release(99)
        await trio.sleep(10)
        assert len(first.texts) == asked
        assert a.runner.counts().states == {}
        assert b.get(batch) == batch
        assert written(b, batch.output) == TEXTS
        count = "SELECT count(*) FROM files WHERE purpose = 'batch_output'"
        assert servers.b.db.value(count) == 1


async def test_who_is_no_member_asks_nothing_and_goes_on_as_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    servers, upstream = Servers(), held()
    async with batch_rig(servers.a, upstream) as a:
        batch = a.make(TEXTS)
        servers.a.set_life(None)
        await trio.sleep(10)
        assert upstream.texts == []
        servers.a.set_life(A)
        await trio.sleep(2)
        asked = len(upstream.texts)
        assert 0 < asked < len(TEXTS)
        servers.a.set_life(None)
        upstream.release(99)
        await trio.sleep(10)
        assert len(upstream.texts) <= asked + 1  # one may have been on its way
        servers.a.set_life(A)
        batch = await a.over(batch)
        assert written(a, batch.output) == TEXTS
        assert sorted(upstream.texts) == sorted(TEXTS)


async def test_a_new_life_goes_on_with_what_the_former_one_had(
    autojump_clock: trio.abc.Clock,
) -> None:
    servers, upstream = Servers(), held()
    async with batch_rig(servers.a, upstream) as a:
        batch = a.make(TEXTS)
        await wait_all_tasks_blocked()
        upstream.release(3)
        await trio.sleep(1)
        servers.a.set_life(None)
        servers.fenced.add(A)
        servers.a.set_life(3)
        await trio.sleep(5)
        upstream.release(99)
        batch = await a.over(batch)
        assert (batch.completed, batch.server) == (20, 3)
        assert written(a, batch.output) == TEXTS


@pytest.mark.parametrize("how", ["cancelled", "made"])
async def test_what_happens_elsewhere_is_noticed(autojump_clock: trio.abc.Clock, how: str) -> None:
    servers, upstream = Servers(), held()
    async with batch_rig(servers.a, upstream) as a, batch_rig(servers.b, Upstream()) as b:
        if how == "cancelled":
            batch = a.make(TEXTS)
            await wait_all_tasks_blocked()
            batches.cancel(servers.b.db, batch.seq, 1)
            batch = await b.over(batch)
            assert (batch.state, batch.failed) == ("cancelled", 20)
        else:  # by one that is no member just then: whoever looks first has it
            batch = b.make(TEXTS[:1])
            servers.b.set_life(None)
            servers.b.db.run("UPDATE batches SET server = NULL")
            upstream.release(99)
            assert (await a.over(batch)).server == A

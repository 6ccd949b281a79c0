"""What runs on a server whose standing changes: set aside, taken up again, or dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from llcuda_net.cluster.standing import Standing
from llcuda_net.errors import LeaseLost, RequestError, StorageError, StorageUnavailable
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Left
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.life import LOOK, Hooks, Life
from llcuda_net.storage.records import Level
from llcuda_net.storage.starting import Recovered


class Membership:
    """What somebody says that it is."""

    def __init__(self) -> None:
        self.number = 1
        self.now = Standing.MEMBER
        self.trouble: str | None = None

    def standing(self) -> Standing:
        return self.now


class Entry:
    """An entry of a journal that has all."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.count = generation.count
        self.switches: list[Any] = []


class Listener:
    def __init__(self) -> None:
        self.errors: list[RequestError] = []

    def hand_back(self, error: RequestError) -> None:
        self.errors.append(error)


class Host:
    """A gateway whose generations run until they are stopped, and end a while later."""

    draining = False

    def __init__(self, nursery: trio.Nursery) -> None:
        self.listener = Listener()
        self.registry: list[Generation] = []
        self.resumed: list[str] = []
        self.to_cancel: list[str] = []
        self.begun_again: list[str] = []
        self.forgotten: list[str] = []
        self.adopted: list[int] = []
        self._left: list[Left] = []
        self._nursery = nursery

    def run(self, id_: str, *, level: Level = Level.DISK, accepted: bool = True) -> Generation:
        found = Generation("p", None, {}, 1.0, id=id_, level=level)
        found.accepted, found.visible = accepted, 3
        found.pieces, found.ids, found.counts = ["a", "b", "c"], [1, 2, 3], [1, 1, 1]
        if level.journalled:
            found.entry = Entry(found)  # type: ignore[assignment]
        found.move(State.RUNNING)
        self.registry.append(found)
        self._nursery.start_soon(self._work, found)
        return found

    async def _work(self, generation: Generation) -> None:
        with generation.scope:
            await trio.sleep_forever()
        await trio.sleep(0.5)
        self.registry.remove(generation)
        if generation.suspended:
            assert generation.entry is not None
            self._left.append(Left(generation, generation.entry))
        else:
            generation.end(State.FAILED, generation.error)

    async def adopt(self, other: int, generations: Sequence[Any]) -> None:
        self.adopted.append(other)

    async def resume(self, entries: Sequence[Recovered]) -> None:
        self.resumed += [one.entry.generation.id for one in entries]  # type: ignore[attr-defined]
        self.to_cancel += [one.entry.generation.id for one in entries if one.cancelled]  # type: ignore[attr-defined]

    def begin_again(self, entries: Sequence[Recovered]) -> None:
        self.begun_again += [one.entry.generation.id for one in entries]  # type: ignore[attr-defined]

    def left_aside(self) -> list[Left]:
        found, self._left = self._left, []
        return found

    def forget(self, left: Left) -> None:
        self.forgotten.append(left.generation.id)


class Rig:
    """A life, and all that it has to do with."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.membership = Membership()
        self.host = Host(nursery)
        self.told: list[object] = []
        self.nobodys: set[str] = set()
        self.failures: list[Exception] = []
        hooks = Hooks([lambda: self.told.append("stopped")], [self.told.append])
        self.life = Life(self.membership, hooks, self._begin, self._orphaned)  # type: ignore[arg-type]

    async def _begin(self) -> int:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        self.membership.number += 1
        self.membership.now = Standing.MEMBER
        return self.membership.number

    async def _orphaned(self, ids: Collection[str]) -> Collection[str]:
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        return self.nobodys & {*ids}

    async def becomes(self, standing: Standing, seconds: float = 5.0) -> None:
        self.membership.now = standing
        await trio.sleep(seconds)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with trio.open_nursery() as nursery:
        out = Rig(nursery)
        nursery.start_soon(out.life.follow, cast(Any, out.host))
        yield out
        nursery.cancel_scope.cancel()


async def test_a_member_is_left_alone(autojump_clock: object) -> None:
    async with rig() as all_:
        one = all_.host.run("one")
        await trio.sleep(100)
        assert all_.life.member
        assert all_.told == []
        assert not one.suspended


async def test_who_is_stopped_sets_all_aside_and_shows_nothing_more(autojump_clock: object) -> None:
    async with rig() as all_:
        one, memory = all_.host.run("one"), all_.host.run("memory", level=Level.MEMORY)
        await all_.becomes(Standing.STOPPED, 2 * LOOK)
        assert not all_.life.member
        assert (one.suspended, one.visible) == (True, 0)
        assert isinstance(memory.error, LeaseLost)
        error = all_.host.listener.errors[0]
        assert (error.code, error.retry) == ("lease_lost", True)
        assert "in the cluster: another one may go on" in error.message
        all_.membership.trouble = "the database x does not answer"
        assert "in the cluster: the database x does not answer" in all_.life.error().message
        await trio.sleep(5)
        assert all_.told == ["stopped"]
        assert (all_.host.registry, all_.host.resumed) == ([], [])
        assert memory.state is State.FAILED


async def test_who_comes_back_goes_on_under_the_same_number(autojump_clock: object) -> None:
    async with rig() as all_:
        all_.host.run("one")
        all_.host.run("new", accepted=False)  # its acceptance may be in the database
        await all_.becomes(Standing.STOPPED)
        await all_.becomes(Standing.MEMBER)
        assert sorted(all_.host.resumed) == ["new", "one"]
        assert (all_.host.forgotten, all_.host.begun_again) == ([], [])
        assert all_.told == ["stopped", 1]
        assert all_.life.member


async def test_a_cancel_that_comes_while_it_is_set_aside_is_not_forgotten(
    autojump_clock: object,
) -> None:
    async with rig() as all_:
        early, late, other = (all_.host.run(name) for name in ("early", "late", "other"))
        early.cancel()
        early.suspend()  # before its task has seen the one or the other
        await all_.becomes(Standing.STOPPED, 2 * LOOK)
        late.cancel()
        await trio.sleep(5)
        await all_.becomes(Standing.MEMBER)
        assert sorted(all_.host.resumed) == ["early", "late", "other"]
        assert sorted(all_.host.to_cancel) == ["early", "late"]
        assert not other.cancelled


async def test_who_is_fenced_drops_what_others_have_and_keeps_what_they_never_heard_of(
    autojump_clock: object,
) -> None:
    async with rig() as all_:
        for name in ("theirs", "nobodys", "over"):
            all_.host.run(name)
        all_.host.run("unheard", accepted=False)
        all_.nobodys = {"nobodys", "unheard"}
        await all_.becomes(Standing.FENCED)
        assert all_.told == ["stopped", 2]
        assert all_.host.resumed == all_.host.begun_again == ["nobodys"]
        assert sorted(all_.host.forgotten) == ["over", "theirs", "unheard"]
        assert all_.life.member


@pytest.mark.parametrize("standing", [Standing.MEMBER, Standing.FENCED])
async def test_who_reads_without_a_connection_is_told_too(
    standing: Standing, autojump_clock: object
) -> None:
    """A line of a batch waits for its generation, and another object goes on with that."""
    async with rig() as all_:
        found = [all_.host.run("one"), all_.host.run("two", accepted=False)]
        all_.nobodys = {"one"}
        await all_.becomes(Standing.STOPPED)
        assert not any(one.ended for one in found)
        await all_.becomes(standing)
        for one in found:
            assert one.ended
            assert isinstance(one.error, LeaseLost)
            assert one.error.retry
        assert "one" in all_.host.resumed


async def test_a_new_life_is_begun_once_however_often_the_database_fails(
    autojump_clock: object,
) -> None:
    async with rig() as all_:
        all_.host.run("one")
        all_.failures = [StorageError("away", StorageError.BUSY)] * 3
        await all_.becomes(Standing.FENCED, 2.0)
        assert not all_.life.member
        await trio.sleep(5)
        assert all_.membership.number == 2
        assert all_.host.forgotten == ["one"]


async def test_a_look_that_fails_begins_no_other_life(autojump_clock: object) -> None:
    async with rig() as all_:
        all_.host.run("one")
        begin = all_.life._begin

        async def then_fail() -> int:
            number = await begin()
            all_.failures = [StorageUnavailable("away", retry=True)] * 3
            return number

        all_.life._begin = then_fail
        await all_.becomes(Standing.FENCED, 10.0)
        assert all_.membership.number == 2
        assert all_.told == ["stopped", 2]


async def test_a_second_loss_is_as_the_first(autojump_clock: object) -> None:
    async with rig() as all_:
        for _ in range(3):
            all_.host.run("one")
            await all_.becomes(Standing.STOPPED)
            await all_.becomes(Standing.MEMBER)
        assert all_.host.resumed == ["one"] * 3
        assert {error.code for error in all_.host.listener.errors} == {"lease_lost"}


async def test_what_is_taken_over_just_now_is_stopped_before_a_new_life_begins(
    autojump_clock: object,
) -> None:
    async with rig() as all_:
        async with all_.life.changing:
            await all_.becomes(Standing.FENCED)
            assert all_.told == ["stopped"]
            all_.host.run("adopted")  # it was the former life's to adopt
            await trio.sleep(5)
            assert all_.membership.number == 1
        await trio.sleep(5)
        assert all_.membership.number == 2
        assert (all_.host.registry, all_.host.resumed) == ([], [])
        assert all_.host.forgotten == ["adopted"]

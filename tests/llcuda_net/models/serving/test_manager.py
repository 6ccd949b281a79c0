"""Local models that come and go, with a real pool and scheduler, and engines that are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from llcuda_net.config.upstreams import EMBEDDINGS, RERANK
from llcuda_net.config.users import User
from llcuda_net.errors import RequestError, UnknownModel, Unsupported, UpstreamUnavailable
from llcuda_net.models.need import Budget
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from llcuda_net.server.generations.waiting import Waiting
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Presence, Wishes
from tests.support.models.instances import FakeModel, here


class House:
    """Models, their manager, and the queue of those who need them."""

    def __init__(self, budget: int | None, **models: dict[str, Any]) -> None:
        self.wishes = Wishes()
        self.pool = Pool()
        self.scheduler = Scheduler(
            self._place,
            100,
            explain=lambda ticket: self.pool.why(_requirement(ticket)),
            delay=lambda ticket: self.pool.delay(_requirement(ticket)),
        )
        self.manager = Manager(self.pool, Budget(budget), self.wishes, in_thread=here)
        self.models = {name: FakeModel(name, self.wishes, **more) for name, more in models.items()}
        for model in self.models.values():
            self.manager.add(model)

    def _place(self, ticket: Ticket) -> Any:
        return self.pool.place(_requirement(ticket))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[House]:
        waiting = Waiting(self.pool, self.scheduler, 60.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pool.run)
            nursery.start_soon(self.scheduler.run)
            nursery.start_soon(waiting.follow_pool)
            await nursery.start(self.manager.run, self.scheduler.waiting)
            yield self
            nursery.cancel_scope.cancel()

    def submit(self, name: str, user: str = "u") -> Ticket:
        key = self.pool.key_of(name)
        return self.scheduler.submit(SlotRequest(User(user), key, Requirement(key)))

    async def use(self, name: str, seconds: float = 1.0, user: str = "u") -> float:
        """Wait for a slot, use it for so long; returns how long it waited."""
        began = trio.current_time()
        async with self.submit(name, user):
            waited = trio.current_time() - began
            assert self.models[name].engine.running
            await trio.sleep(seconds)
            assert self.models[name].engine.running
        return waited

    def presences(self) -> str:
        return " ".join(str(model.residence.presence) for model in self.models.values())


def _requirement(ticket: Ticket) -> Requirement:
    assert isinstance(ticket.slot_request.key, Requirement)
    return ticket.slot_request.key


async def test_a_model_is_loaded_when_it_is_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(None, a={"seconds": 3.0}, b={}).running() as house:
        await trio.sleep(10)
        assert house.presences() == "unloaded unloaded"
        assert await house.use("a") == pytest.approx(3.0)
        assert await house.use("a") == 0.0
        assert house.presences() == "loaded unloaded"
        assert house.models["a"].loads == 1


async def test_what_is_to_be_there_at_the_start_is(autojump_clock: trio.testing.MockClock) -> None:
    async with House(None, a={"preload": True}, b={"pinned": True}, c={}).running() as house:
        await house.manager.settled("a")
        await trio.sleep(5)
        assert house.presences() == "loaded loaded unloaded"


async def test_who_waits_is_told_why_and_for_how_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(1, a={"seconds": 20.0}, b={"seconds": 4.0}).running() as house:
        await house.use("a", 0.1)
        await house.use("b", 0.1)
        again = house.submit("a")  # how long a load of it takes is known now
        await trio.sleep(0.5)
        assert again.reason.startswith("model a ")
        assert again.wait is not None
        assert 15 < again.wait < 60


async def test_the_idle_one_makes_room(autojump_clock: trio.testing.MockClock) -> None:
    async with House(2, a={}, b={}, c={}).running() as house:
        await house.use("a")
        await house.use("b")
        await trio.sleep(60)
        await house.use("b")
        await house.use("c")
        assert house.presences() == "unloaded loaded loaded"
        assert not house.models["a"].engine.running


async def test_one_that_generates_is_never_unloaded(autojump_clock: trio.testing.MockClock) -> None:
    async with House(1, a={"slots": 2}, b={}).running() as house:
        ended: list[str] = []

        async def work(name: str, seconds: float) -> None:
            await house.use(name, seconds)
            ended.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, "a", 100.0)
            await trio.sleep(5)
            nursery.start_soon(work, "b", 1.0)
            await trio.sleep(60)
            assert house.models["a"].residence.presence is Presence.LEAVING
            nursery.start_soon(work, "a", 1.0)  # a slot of a is free, and b was first
            await trio.sleep(20)
            assert ended == []
        assert ended == ["a", "b", "a"]


async def test_two_who_alternate_are_served_in_batches(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(1, a={"seconds": 2.0}, b={"seconds": 2.0}).running() as house:
        waits: list[float] = []

        async def user(name: str) -> None:
            for _ in range(30):
                waits.append(await house.use(name, 1.0, name))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(user, "a")
            nursery.start_soon(user, "b")
        loads = sum(model.loads for model in house.models.values())
        assert 2 < loads < 20  # 60 if each request had its swap
        assert max(waits) < 60


async def test_an_idle_one_is_unloaded_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(None, a={"idle_seconds": 30.0}, b={}).running() as house:
        await house.use("a")
        await house.use("b")
        await trio.sleep(25)
        assert house.presences() == "loaded loaded"
        await trio.sleep(7)
        assert house.presences() == "unloaded loaded"


async def test_a_load_that_fails_is_told_to_those_who_wait_and_the_others_go_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(None, a={}, b={}).running() as house:
        house.models["a"].engine.fails = "cannot load a.gguf: no memory"
        with pytest.raises(UpstreamUnavailable, match="no memory"):
            await house.use("a")
        with pytest.raises(RequestError, match="no memory"):  # it is not tried again at once
            house.pool.check(house.pool.key_of("a"))
        assert len(house.models["a"].engine.starts) == 1
        await house.use("b")
        house.models["a"].engine.fails = None
        await trio.sleep(600)
        house.pool.check(house.pool.key_of("a"))
        await house.use("a")


async def test_one_that_can_never_fit_is_refused_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(10, a={"size": 11}, b={}).running() as house:
        with pytest.raises(Unsupported, match="model a needs"):
            await house.use("a")
        await house.use("b")


async def test_what_it_takes_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    async with House(10, a={"size": 1, "takes": 8}, b={"size": 4}).running() as house:
        await house.use("a")
        assert house.manager.report()[0]["memory"] == 8
        await house.use("b")
        assert house.presences() == "unloaded loaded"


async def test_load_and_unload_by_hand(autojump_clock: trio.testing.MockClock) -> None:
    async with House(None, a={"aliases": ("x",)}).running() as house:
        house.manager.load("x")
        await trio.sleep(5)
        assert house.presences() == "loaded"
        house.manager.unload("a")
        await trio.sleep(5)
        assert house.presences() == "unloaded"
        await house.use("a")
        with pytest.raises(UnknownModel, match="nix"):
            house.manager.load("nix")


async def test_a_short_question_loads_it_and_holds_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(1, a={}, b={}).running() as house:
        backend = house.models["a"].backend
        async with backend.there():
            with trio.move_on_after(60):
                await house.use("b")
            assert house.models["a"].engine.running
        await house.use("b")
        house.models["a"].engine.fails = "gone"
        with pytest.raises(RequestError, match="gone"):
            async with backend.there():
                pass


async def test_one_that_leaves_the_settings_ends_when_it_is_idle(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(None, a={}, b={}).running() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.use, "a", 50.0)
            await trio.sleep(5)
            house.manager.remove("a")
            await trio.sleep(5)
            with pytest.raises(UnknownModel):
                house.pool.key_of("a")
            assert house.models["a"].engine.running
        await trio.sleep(5)
        assert not house.models["a"].engine.running
        assert [one.name for one in house.manager.instances] == ["b"]


async def test_no_process_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with House(None, a={}, b={"seconds": 100.0}).running() as house:
        await house.use("a")
        house.manager.load("b")
        await trio.sleep(5)
        assert house.models["b"].engine.running
    assert not any(model.engine.running for model in house.models.values())


async def test_another_model_may_take_the_name_of_one_that_leaves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As where SIGHUP brings a changed table: the old one finishes what it has."""
    async with House(2, a={}).running() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.use, "a", 50.0)
            await trio.sleep(5)
            before = house.models["a"]
            house.manager.remove("a")
            house.models["a"] = FakeModel("a", house.wishes)
            house.manager.add(house.models["a"])
            with trio.fail_after(10):
                await house.use("a")
            assert before.engine.running
            assert len(house.manager.report()) == 1
            # What `use` asserts of the first one is of the second by now; both run.
        await trio.sleep(5)
        assert not before.engine.running
        assert house.models["a"].engine.running


@pytest.mark.parametrize("when", ["unloaded", "loading"])
async def test_one_that_is_removed_while_it_is_not_there(
    when: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with House(None, a={"seconds": 10.0}, b={}).running() as house:
        if when == "loading":
            house.manager.load("a")
            await trio.sleep(1)
        house.manager.remove("a")
        await trio.sleep(60)
        assert not house.models["a"].engine.running
        assert house.manager.taken.host == 0


async def test_too_little_memory_at_a_load_makes_others_leave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(10, a={"size": 4}, b={"size": 5}).running() as house:
        await house.use("a")
        engine = house.models["b"].engine
        await trio.sleep(60)
        engine.fails = "cudaMalloc failed: out of memory"
        ticket = house.submit("b")
        await trio.sleep(1.2)  # that load has failed
        engine.fails = None
        with trio.fail_after(60):
            await ticket.granted.wait()
        assert ticket.error is None
        assert house.presences() == "unloaded loaded"
        assert house.manager.report()[1]["failed_loads"] == 1
        house.scheduler.remove(ticket)


async def test_too_little_memory_with_nobody_to_leave_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(10, a={}, b={}).running() as house:
        house.models["a"].engine.fails = "cudaMalloc failed: out of memory"
        with pytest.raises(UpstreamUnavailable, match="out of memory"):
            await house.use("a")


async def test_a_short_question_is_not_starved(autojump_clock: trio.testing.MockClock) -> None:
    """It waits since it began to wait, as those who have tickets do."""
    async with House(1, a={}, b={}, c={}).running() as house:

        async def flood(name: str, user: str) -> None:
            while True:
                await house.use(name, 5.0, user)

        async with trio.open_nursery() as nursery:
            for user in "uvwxyz":
                nursery.start_soon(flood, "a" if user in "uvw" else "b", user)
            await trio.sleep(100)
            with trio.fail_after(200):
                async with house.models["c"].backend.there():
                    pass
            nursery.cancel_scope.cancel()


async def test_who_waits_for_one_that_finishes_is_told_how_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(1, a={}, b={}).running() as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.use, "a", 60.0)
        await trio.sleep(30)
        ticket = house.submit("b")
        await trio.sleep(3)
        assert "finish" in ticket.reason or "room" in ticket.reason, ticket.reason
        assert ticket.wait is not None
        nursery.cancel_scope.cancel()


async def test_one_that_was_down_is_up_when_it_is_loaded_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As one whose engine died while it left: nobody else asks it for anything then."""
    async with House(1, a={"seconds": 2.0}, b={}).running() as house:
        await house.use("a")
        house.models["a"].backend.mark_down("its engine died")
        house.manager.unload("a")
        await trio.sleep(1)
        assert house.presences() == "unloaded unloaded"
        with trio.fail_after(10):
            await house.use("a")
        assert house.models["a"].backend.breaker.closed


async def test_who_waits_for_one_whose_table_changes_gets_the_new_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(1, a={}, b={}).running() as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.use, "b", 20.0)
        await trio.sleep(5)
        waiting = house.submit("a")
        house.manager.remove("a")
        await trio.sleep(1)
        house.models["a"] = FakeModel("a", house.wishes)
        house.manager.add(house.models["a"])
        with trio.fail_after(60):
            async with waiting:
                assert house.models["a"].engine.running


async def test_the_reason_of_a_wait_ends_with_it(autojump_clock: trio.testing.MockClock) -> None:
    async with House(1, a={}, b={}).running() as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.use, "a", 20.0)
        await trio.sleep(5)
        waiting = house.submit("b")
        await trio.sleep(1)
        residence = house.models["b"].residence
        assert (residence.reason, residence.ready_in) != ("not loaded", None)
        house.scheduler.remove(waiting)
        house.wishes.notify()
        await trio.sleep(1)
        assert (residence.reason, residence.ready_in) == ("not loaded", None)


async def test_a_model_that_ranks_is_found_before_it_was_loaded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(1, a={"roles": frozenset({RERANK})}, b={}).running() as house:
        assert house.pool.names(RERANK) == ["a"]
        assert house.pool.names(EMBEDDINGS) == ["b"]


async def test_one_that_is_killed_while_it_loads_is_loaded_once_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with House(None, a={"seconds": 2.0}).running() as house, trio.open_nursery() as nursery:
        engine = house.models["a"].engine
        engine.fails = "cannot load a.gguf: the engine was ended by SIGKILL (out of memory?)"
        nursery.start_soon(house.use, "a")
        await trio.sleep(3)  # the second load is on its way
        assert (len(engine.starts), house.manager.report()[0]["failed_loads"]) == (2, 1)
        engine.fails = None


async def test_one_that_is_always_killed_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with House(None, a={}).running() as house:
        engine = house.models["a"].engine
        engine.fails = "cannot load a.gguf: the engine was ended by SIGKILL (out of memory?)"
        with pytest.raises(UpstreamUnavailable, match="SIGKILL"):
            await house.use("a")
        assert len(engine.starts) == 2


async def test_a_model_that_is_not_loaded_is_no_outage(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What waits for it is not failed after --failover-seconds, however long another one works."""
    async with House(1, a={}, b={}).running() as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.use, "a", 500.0)
        await trio.sleep(5)
        house.submit("b")
        await trio.sleep(400)
        assert house.presences() == "leaving unloaded"
        assert house.pool.outage(Requirement(house.pool.key_of("b"))) == 0.0
        nursery.cancel_scope.cancel()

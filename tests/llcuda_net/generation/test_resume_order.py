"""Who waits after a restart for a model that is not there does not hold up the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import UpstreamUnavailable
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.runner import Resumer, Runner
from llcuda_net.generation.state import State
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from llcuda_net.storage.records import Dispatched, TokenLog
from llcuda_net.storage.starting import Recovered
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Properties, Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.lease import Lease
from tests.support.server.memory_server import FakeUpstream
from tests.support.storage.journals import packed


class Away(FakeUpstream):
    back = False

    async def ask(self) -> Properties:
        if self.back:
            return await super().ask()
        await trio.lowlevel.checkpoint()
        raise UpstreamUnavailable("not there", retry=True)


class Recorder:
    """Stands for the runner and its dispatcher: notes who gets to run, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.dispatcher = self

    async def to_its_end(self, _: Generation, work: Callable[[], Awaitable[State]]) -> None:
        await work()

    async def check(self, _: Generation) -> None:
        await trio.lowlevel.checkpoint()

    async def verified(self, _: Generation) -> State:
        return State.DONE

    def slot_request(self, generation: Generation, model_key: str) -> SlotRequest:
        return SlotRequest(generation.user, model_key, Requirement(model_key))

    async def complete(self, generation: Generation, _: Ticket) -> None:
        self.ran.append(generation.id)


class Entry:
    """Of a recovered generation what the resumer looks at."""

    concluded = None

    def __init__(self, model: str) -> None:
        self.dispatched = Dispatched(upstream="fake://", model={"name": model})


def begun(id_: str) -> Generation:
    generation = Generation("tell:", None, {}, 60.0, id=id_)
    generation.restore(packed(TokenLog([" a"], [1])), [])
    return generation


async def test_others_go_on_while_one_waits_for_its_model(autojump_clock: object) -> None:
    there, away = FakeUpstream(slots=4), Away(slots=4)
    away.properties = None
    pool = Pool(
        [
            Backend(UpstreamSpec("fake://away", "away", model="one"), away),
            Backend(UpstreamSpec("fake://there", "there", model="two"), there),
        ]
    )
    await pool.prepare()

    def place(ticket: Ticket) -> Lease | None:
        assert isinstance(ticket.slot_request.key, Requirement)
        return pool.place(ticket.slot_request.key)

    scheduler = Scheduler(place, 10)
    recorder = Recorder()
    runner = cast(Runner, recorder)

    def enter(_: Generation, slot_request: SlotRequest) -> Ticket:
        return scheduler.submit(slot_request, always=True)

    def ready(_: Generation) -> None:
        pass

    resumer = Resumer(runner, pool, scheduler, enter, ready)

    async def resume(id_: str, model: str) -> None:
        await resumer.run(begun(id_), cast(Recovered, Entry(model)))

    async with trio.open_nursery() as nursery:
        for id_, model in [("stuck", "gone"), ("x", "fake"), ("y", "fake"), ("z", "fake")]:
            nursery.start_soon(resume, id_, model)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(10)
        found: Any = list(recorder.ran)
        nursery.cancel_scope.cancel()
    assert found == ["x", "y", "z"]


async def test_who_waits_looks_again_when_the_pool_changes(autojump_clock: object) -> None:
    upstream = Away(slots=4)
    properties, upstream.properties = upstream.properties, None
    pool = Pool([Backend(UpstreamSpec("fake://away", "away", model="fake"), upstream)])

    def place(ticket: Ticket) -> Lease | None:
        assert isinstance(ticket.slot_request.key, Requirement)
        return pool.place(ticket.slot_request.key)

    scheduler, recorder = Scheduler(place, 10), Recorder()

    def enter(_: Generation, slot_request: SlotRequest) -> Ticket:
        return scheduler.submit(slot_request, always=True)

    resumer = Resumer(cast(Runner, recorder), pool, scheduler, enter, lambda _: None)
    async with trio.open_nursery() as nursery:
        entry = cast(Recovered, Entry("fake"))
        nursery.start_soon(resumer.run, begun("x"), entry)
        await trio.sleep(0.3)
        resumer.look()  # for nothing
        await trio.sleep(0.3)
        assert recorder.ran == []
        upstream.back, upstream.properties = True, properties
        resumer.look()
        await trio.sleep(0.1)
        scheduler.dispatch()
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.ran == ["x"]
        nursery.cancel_scope.cancel()

"""The manager, a pool and a scheduler in virtual time, with many models, users and mishaps."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from llcuda_net.config.users import User
from llcuda_net.errors import RequestError
from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.manager import Manager
from llcuda_net.models.serving.policy import RULES
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from llcuda_net.server.generations.waiting import Waiting
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Wishes
from tests.support.models.instances import FakeModel

#: Seconds that a request generates at most.
LONGEST = 30.0


async def _here(work: Callable[[], Need | None]) -> Need | None:
    """In this thread: virtual time jumps ahead while only others work."""
    await trio.lowlevel.checkpoint()
    return work()


class Town:
    """Models and their users; what happens to each request is checked while it happens.

    Attributes:
        waits: seconds until a slot, of each request.
        served: requests that were served, by user.
        refused: why others were not, by what failed.
    """

    def __init__(self, seed: int, sizes: list[int], budget: int, slots: int = 2) -> None:
        self.random = random.Random(seed)
        self.budget = budget
        self.wishes = Wishes()
        self.pool = Pool()
        self.scheduler = Scheduler(
            lambda ticket: self.pool.place(_requirement(ticket), ticket.slot_request.user.name),
            1000,
            explain=lambda ticket: self.pool.why(_requirement(ticket)),
            delay=lambda ticket: self.pool.delay(_requirement(ticket)),
        )
        self.manager = Manager(self.pool, Budget(budget), self.wishes, in_thread=_here)
        self.models = [
            FakeModel(f"m{n}", self.wishes, size=size, seconds=0.5 + size / 2, slots=slots)
            for n, size in enumerate(sizes)
        ]
        self.sizes = {model.name: size for model, size in zip(self.models, sizes, strict=True)}
        self.waits: list[float] = []
        self.served: Counter[str] = Counter()
        self.refused: list[str] = []
        for model in self.models:
            self.manager.add(model)

    @property
    def loads(self) -> int:
        """Loads that were begun."""
        return sum(len(model.engine.starts) for model in self.models)

    def check(self) -> None:
        """No more memory is taken than there is."""
        taken = sum(self.sizes[one.name] for one in self.models if one.engine.running)
        assert taken <= self.budget

    async def use(self, name: str, seconds: float, user: str) -> None:
        """One request: its model's process is the same all along."""
        began = trio.current_time()
        model = next(one for one in self.models if one.name == name)
        key = self.pool.key_of(name)
        async with self.scheduler.submit(SlotRequest(User(user), key, Requirement(key))):
            self.waits.append(trio.current_time() - began)
            starts = len(model.engine.starts)
            assert model.engine.running
            self.check()
            await trio.sleep(seconds)
            assert model.engine.running
            assert len(model.engine.starts) == starts
            self.check()
        self.served[user] += 1

    async def user(self, name: str, choose: Callable[[], str], think: float) -> None:
        """Somebody who asks, reads and asks again; some give up, and errors are no reason to."""
        while True:
            await trio.sleep(self.random.expovariate(1 / think) if think else 0.0)
            seconds = min(LONGEST, self.random.lognormvariate(1.0, 0.8))
            patience = math.inf if self.random.random() < 0.9 else 20.0
            try:
                with trio.move_on_after(patience):
                    await self.use(choose(), seconds, name)
            except RequestError as error:
                self.refused.append(str(error))
                await trio.sleep(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        waiting = Waiting(self.pool, self.scheduler, 60.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pool.run)
            nursery.start_soon(self.scheduler.run)
            nursery.start_soon(waiting.follow_pool)
            await nursery.start(self.manager.run, self.scheduler.waiting)
            yield nursery
            nursery.cancel_scope.cancel()

    def bound(self) -> float:
        """Seconds for which a request waits at most whose user has one at a time."""
        longest = 0.5 + max(self.sizes.values()) / 2
        quantum = max(RULES.least_quantum, RULES.quantum_loads * 2 * longest)
        step = quantum + LONGEST + longest
        return RULES.overdue + (len(self.models) + 1) * step


def _requirement(ticket: Ticket) -> Requirement:
    assert isinstance(ticket.slot_request.key, Requirement)
    return ticket.slot_request.key


def _zipf(town: Town) -> Callable[[], str]:
    names = [model.name for model in town.models]
    weights = [1 / (rank + 1) for rank in range(len(names))]
    return lambda: town.random.choices(names, weights)[0]


@pytest.mark.parametrize("seed", [1, 2])
async def test_many_users_of_many_models(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    sizes = [2, 3, 4, 6, 8, 2, 3, 4, 6, 8, 12, 16]
    town = Town(seed, sizes, 4 * sum(sizes) // len(sizes))
    choose = _zipf(town)
    async with town.running() as nursery:
        for number in range(20):
            nursery.start_soon(town.user, f"u{number}", choose, 30.0)
        await trio.sleep(500)
    assert town.refused == []
    assert len(town.served) == 20
    assert sum(town.served.values()) > 100
    assert max(town.waits) < town.bound()
    assert town.loads < 0.9 * len(town.waits)
    assert not any(model.engine.running for model in town.models)


async def test_endless_queues_for_more_models_than_fit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    town = Town(3, [4, 4, 8, 2], 8)
    async with town.running() as nursery:
        for number in range(12):
            name = f"m{number % 4}"
            nursery.start_soon(town.user, f"u{number}", lambda name=name: name, 0.0)
        await trio.sleep(400)
    assert town.refused == []
    # The big one needs the place of all the others, and gets it.
    assert all(town.served[f"u{number}"] > 2 for number in range(12))
    rounds = math.ceil(3 / 2)
    assert max(town.waits) < rounds * town.bound()
    assert town.loads < 0.4 * len(town.waits)


async def test_loads_that_fail_leave_the_others_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    town = Town(4, [4, 4, 4, 4], 8)
    choose = _zipf(town)
    town.models[0].engine.fails = "cannot load m0.gguf: no memory"

    async def mend() -> None:
        await trio.sleep(400)
        town.models[0].engine.fails = None

    async with town.running() as nursery:
        nursery.start_soon(mend)
        for number in range(8):
            nursery.start_soon(town.user, f"u{number}", choose, 10.0)
        await trio.sleep(390)
        assert town.models[0].loads == 0
        failed = len(town.models[0].engine.starts)
        assert 3 <= failed <= 8  # it is not tried for each request
        assert sum(town.served.values()) > 40
        await trio.sleep(410)
    assert town.models[0].loads > 0
    assert set(town.refused) == {town.refused[0]}
    assert "no memory" in town.refused[0]


async def test_more_memory_than_there_is_would_be_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    town = Town(5, [4, 4, 4], 8)
    town.manager.budget = Budget()
    with pytest.RaisesGroup(AssertionError, allow_unwrapped=True, flatten_subgroups=True):
        async with town.running() as nursery:
            for number in range(3):
                name = f"m{number}"
                nursery.start_soon(town.user, f"u{number}", lambda name=name: name, 0.0)
            await trio.sleep(60)

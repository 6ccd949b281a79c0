"""When the guard has garbage collected, and gives free memory back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.budget import Bounds, MemoryBudget
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.server import memory_guard
from llcuda_net.server.garbage import Garbage
from llcuda_net.server.memory_guard import MemoryGuard
from llcuda_net.storage.records import Result
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.util import process_memory

MIB = 1 << 20


async def _nothing(generation: Generation) -> Result | None:
    return None


class Looked(Garbage):
    """Collects nothing.

    Attributes:
        idle: of each look, whether nobody waited for a token.
        finds: whether a look says that it collected.
        collected: at how many bytes it was to collect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.idle: list[bool] = []
        self.finds = False
        self.collected: list[int] = []

    def look(self, resident: int, *, idle: bool) -> bool:
        self.idle.append(idle)
        return self.finds

    def collect(self, resident: int) -> None:
        self.collected.append(resident)


class Scene:
    """A guard, and what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bounds = Bounds.of(1 << 30)
        self.budget = MemoryBudget(bounds, [])
        self.shelf = Shelf(bounds.finished, _nothing)
        self.guard = MemoryGuard(bounds, self.budget, self.shelf)
        self.garbage = self.guard.garbage = Looked()
        self.trimmed = 0
        self.resident = 0
        monkeypatch.setattr(process_memory, "resident", lambda: self.resident)
        monkeypatch.setattr(self.guard._allocator, "trim", self._trim)

    def _trim(self) -> None:
        self.trimmed += 1

    def look(self, resident: int) -> None:
        self.resident = resident
        self.guard.look(resident)

    @contextmanager
    def request(self, size: int) -> Iterator[None]:
        with self.budget.holding("ann", size):
            yield


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    found = Scene(monkeypatch)
    # As after a look at what the start took.
    found.guard._trimmed = 100 * MIB
    return found


async def test_what_ended_is_collected_when_nobody_waits(scene: Scene) -> None:
    with scene.request(9 * MIB):
        scene.look(110 * MIB)
        assert (scene.trimmed, scene.garbage.collected) == (0, [])
    scene.look(110 * MIB)
    assert (scene.trimmed, scene.garbage.collected) == (1, [110 * MIB])
    scene.look(110 * MIB)  # once
    assert (scene.trimmed, scene.garbage.collected) == (1, [110 * MIB])
    assert scene.garbage.idle == [False, True, True]


async def test_nothing_is_collected_while_somebody_waits(scene: Scene) -> None:
    with scene.request(MIB):
        with scene.request(9 * MIB):
            scene.look(110 * MIB)
        scene.look(110 * MIB)
        assert (scene.trimmed, scene.garbage.collected) == (1, [])
    assert scene.garbage.idle == [False, False]


async def test_nothing_is_collected_twice(scene: Scene) -> None:
    with scene.request(9 * MIB):
        scene.look(110 * MIB)
    scene.garbage.finds = True
    scene.look(110 * MIB)
    assert (scene.trimmed, scene.garbage.collected) == (1, [])


async def test_little_that_ended_is_not_worth_it(scene: Scene) -> None:
    with scene.request(8 * MIB):
        scene.look(110 * MIB)
    scene.look(110 * MIB)
    assert (scene.trimmed, scene.garbage.collected) == (0, [])


async def test_a_process_that_has_grown_gives_back_now_and_then(
    scene: Scene, autojump_clock: object
) -> None:
    scene.look(116 * MIB)
    assert scene.trimmed == 0
    scene.look(117 * MIB)
    assert (scene.trimmed, scene.garbage.collected) == (1, [117 * MIB])
    scene.look(133 * MIB)  # from 117
    await trio.sleep(memory_guard._PAUSE)
    scene.look(133 * MIB)
    assert scene.trimmed == 1
    scene.look(134 * MIB)
    assert scene.trimmed == 2
    scene.look(151 * MIB)  # too soon
    await trio.sleep(memory_guard._PAUSE / 2)
    scene.look(151 * MIB)
    assert scene.trimmed == 2
    await trio.sleep(memory_guard._PAUSE / 2)
    scene.look(151 * MIB)
    assert scene.trimmed == 3


async def test_near_the_limit_it_gives_back_each_time(scene: Scene) -> None:
    near = scene.guard.bounds.limit * 9 // 10 + 1
    with scene.request(33 * MIB):
        over = Generation("a prompt", None, {}, 60.0)
        over.extend([CompletionEvent("a", [1])])
        scene.shelf.keep(over, stored=True)
        assert scene.shelf.size > 0
        for _ in range(3):
            scene.look(near)
        assert scene.budget.pressed
        assert (scene.shelf.size, over.shelved) == (0, 1)  # the store has it
        assert (scene.trimmed, scene.garbage.collected) == (3, [])
    scene.look(near)
    assert not scene.budget.pressed
    assert scene.garbage.collected == [near]

"""Requests leave no cycles, and all containers are looked through only when that is due."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from llcuda_net.server import garbage
from llcuda_net.server.garbage import Garbage
from tests.support.server.scripted_server import ended, running, settled

MIB = 1 << 20


@pytest.fixture
def looks() -> Iterator[Counter[int]]:
    """How often each of Python's generations was collected."""
    found: Counter[int] = Counter()

    def count(phase: str, info: dict[str, int]) -> None:
        found[info["generation"]] += phase == "start"

    gc.callbacks.append(count)
    yield found
    gc.callbacks.remove(count)


@pytest.fixture
def none_by_itself() -> Iterator[None]:
    """Python looks for garbage only when it is told to."""
    gc.disable()
    yield
    gc.enable()


def cycles() -> list[str]:
    """The types of all that only a collection frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    return sorted(type(one).__qualname__ for one in gc.garbage)


@pytest.mark.parametrize("what", [{}, {"messages": [{"role": "user", "content": "hello"}]}])
async def test_a_request_leaves_no_cycles(
    what: dict[str, Any], tmp_path: Path, still_clock: MockClock
) -> None:
    async with running(tmp_path, slots=64) as (script, connect, storage):
        reader = await connect()
        for number in (1, 2, 3):  # what happens once is over then
            await ended(reader, script, number, **what)
        await settled(storage)
        gc.collect()
        gc.disable()
        try:
            for number in range(4, 9):
                await ended(reader, script, number, **what)
            await settled(storage)
            assert cycles() == []
        finally:
            gc.garbage.clear()
            gc.enable()


async def test_requests_that_flow_are_not_looked_through(
    tmp_path: Path, looks: Counter[int], still_clock: MockClock
) -> None:
    async with running(tmp_path, slots=64) as (script, connect, _):
        reader = await connect()
        found = Garbage()
        with found.sparing():
            looks.clear()
            held = []
            for number in range(1, 21):
                await ended(reader, script, number)
                held.append([[number] for _ in range(10_000)])
                found.look(80 * MIB + number, idle=False)
            assert looks[0] > 0
            assert looks[2] == 0


def test_the_process_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    with Garbage().sparing():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("none_by_itself")
def test_all_are_looked_through_when_the_process_has_grown(looks: Counter[int]) -> None:
    found = Garbage()
    assert not found.look(100 * MIB, idle=False)
    assert not found.look(228 * MIB, idle=False)
    assert found.look(229 * MIB, idle=False)
    # By half of what it takes, where that is more.
    found.collect(400 * MIB)
    assert not found.look(600 * MIB, idle=False)
    assert found.look(601 * MIB, idle=False)
    assert looks[2] == 3


@pytest.mark.usefixtures("none_by_itself")
def test_an_idle_server_looks_when_there_may_be_something(
    looks: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Garbage()
    waiting = garbage._WORTH
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, waiting))
    assert not found.look(100 * MIB, idle=True)  # a request may come at once
    assert found.look(100 * MIB, idle=True)
    waiting = 0
    assert not found.look(100 * MIB, idle=True)
    waiting = garbage._WORTH
    assert not found.look(100 * MIB, idle=False)
    assert not found.look(100 * MIB, idle=True)
    assert looks[2] == 1

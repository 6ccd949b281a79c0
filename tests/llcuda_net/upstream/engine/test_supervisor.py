"""When the engine is started again, and with what settings: with children that are fakes."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.process import ChildEnd, ChildSettings
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.model.gguf import read_model_file


class Lives:
    """A fake child: the lives it is given, one after the other, then one without end."""

    def __init__(self, lives: list[tuple[float, bool]]) -> None:
        self.lives = lives
        self.starts: list[float] = []
        self.settings: ChildSettings | None = None
        self.settled = trio.Event()  # the life without end has begun

    async def launch(
        self,
        settings: ChildSettings,
        on_start: Callable[[int], None],
        on_ready: Callable[[str], None],
    ) -> ChildEnd:
        self.settings = settings
        self.starts.append(trio.current_time())
        if not self.lives:
            self.settled.set()
        seconds, ready = self.lives.pop(0) if self.lives else (float("inf"), True)
        on_start(1000 + len(self.starts))
        if ready:
            on_ready(f"http://127.0.0.1:{len(self.starts)}")
        await trio.sleep(seconds)
        return ChildEnd("it had to be", -9)


async def starts_of(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, lives: list[tuple[float, bool]]
) -> list[float]:
    """When each child was started, with the longest jitter."""
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    fake = Lives(lives)
    engine = Engine(EngineOptions(tiny), launch=fake.launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await fake.settled.wait()
        nursery.cancel_scope.cancel()
    return [start - fake.starts[0] for start in fake.starts]


async def test_backoff_grows_to_a_bound(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    starts = await starts_of(tiny, monkeypatch, [(0, True)] * 10)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert gaps == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30])


async def test_backoff_starts_anew_after_a_healthy_while(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    starts = await starts_of(tiny, monkeypatch, [(0, True), (0, True), (60, True), (59, True)])
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert gaps == pytest.approx([0.25, 0.5, 60.25, 59.5])


async def test_a_slow_failing_load_is_not_healthy(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    starts = await starts_of(
        tiny, monkeypatch, [(0, True), (100, False), (100, False), (100, False)]
    )
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert gaps == pytest.approx([0.25, 100.5, 101, 102])


async def test_the_first_failure_ends_it_and_later_ones_do_not(
    tiny: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(EngineError, match=r"tiny\.gguf: it had to be"):
        await Engine(EngineOptions(tiny), launch=Lives([(1, False)]).launch).run()
    fake = Lives([(1, True), (1, False)])
    engine = Engine(EngineOptions(tiny), launch=fake.launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await trio.sleep(1.5)
        with trio.fail_after(60):
            await fake.settled.wait()
        assert engine.base_url == "http://127.0.0.1:3"
        nursery.cancel_scope.cancel()
    assert engine.base_url is None


async def test_a_process_that_cannot_be_started(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(EngineError, match="could not be started: No such file"):
        await Engine(EngineOptions(tiny)).run()


async def test_what_the_child_is_told(tiny: Path, autojump_clock: trio.testing.MockClock) -> None:
    fake = Lives([])
    async with trio.open_nursery() as nursery:
        await nursery.start(Engine(EngineOptions(tiny), launch=fake.launch).run)
        nursery.cancel_scope.cancel()
    assert fake.settings is not None
    assert fake.settings.ctx == 512  # what the model was trained for, being under 4096
    assert (fake.settings.slots, fake.settings.threads, fake.settings.pooling) == (4, 1, None)


@pytest.mark.parametrize(("size", "given", "told"), [(1, 3, 3), (1 << 30, None, None)])
async def test_only_a_small_model_is_computed_by_one_thread(
    tiny: Path, size: int, given: int | None, told: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(read_model_file(tiny), size=size)
    monkeypatch.setattr("llcuda_net.upstream.engine.supervisor.read_model_file", lambda path: model)
    fake = Lives([])
    async with trio.open_nursery() as nursery:
        await nursery.start(Engine(EngineOptions(tiny, threads=given), launch=fake.launch).run)
        nursery.cancel_scope.cancel()
    assert fake.settings is not None
    assert fake.settings.threads == told

"""The second engine: when there is one, that its vectors are the first one's, that it is gone."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from llcuda_net.errors import UpstreamUnavailable
from llcuda_net.upstream.engine import spare
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.process import ChildEnd, ChildSettings, run_child
from llcuda_net.upstream.engine.supervisor import Engine

TEXTS = ["What is a slot?", "the journal " * 20, "b"]


class Fake:
    """A fake child: the first life is the engine's; the others end as they are told."""

    def __init__(self) -> None:
        self.settings: list[ChildSettings] = []
        self.ends = False
        self.fails: OSError | None = None
        self.running = 0

    async def launch(
        self,
        settings: ChildSettings,
        on_start: Callable[[int], None],
        on_ready: Callable[[str], None],
    ) -> ChildEnd:
        self.settings.append(settings)
        if len(self.settings) > 1:
            if self.fails is not None:
                raise self.fails
            if self.ends:
                return ChildEnd("it had to be", -9)
        on_start(len(self.settings))
        on_ready(f"http://127.0.0.1:{len(self.settings)}")
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1
        raise AssertionError


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "memory_here", lambda: 8 << 30)


async def test_it_computes_on_all_cores_and_yields_to_everybody(tiny: Path) -> None:
    fake = Fake()
    engine = Engine(EngineOptions(tiny), launch=fake.launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        async with engine.spare() as found:
            first, second = fake.settings
            assert found == ("http://127.0.0.1:2", second.api_key)
            assert (first.threads, first.nice) == (1, 0)
            assert (second.threads, second.nice, second.prompt_cache) == (None, 19, 0)
            assert (second.model, second.pooling) == (first.model, first.pooling)
            assert second.api_key != first.api_key
            assert fake.running == 2
        assert fake.running == 1
        with pytest.raises(UpstreamUnavailable):  # as it is, in no group
            async with engine.spare():
                raise UpstreamUnavailable("gone")
        assert fake.running == 1
        with trio.move_on_after(0):
            async with engine.spare():
                await trio.sleep_forever()
        assert fake.running == 1
        nursery.cancel_scope.cancel()


async def test_none_where_it_does_not_start(tiny: Path) -> None:
    fake = Fake()
    engine = Engine(EngineOptions(tiny), launch=fake.launch)
    async with trio.open_nursery() as nursery:
        async with engine.spare() as found:
            assert found is None  # before the first
        await nursery.start(engine.run)
        fake.ends = True
        async with engine.spare() as found:
            assert found is None
        fake.fails = OSError(12, "Cannot allocate memory")
        async with engine.spare() as found:
            assert found is None
        assert len(fake.settings) == 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("memory", [None, 1 << 20])
async def test_none_beside_a_gpu_or_with_little_memory(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, memory: int | None
) -> None:
    monkeypatch.setattr(spare, "memory_here", lambda: memory)
    fake = Fake()
    engine = Engine(EngineOptions(tiny), launch=fake.launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        async with engine.spare() as found:
            assert found is None
        assert len(fake.settings) == 1
        nursery.cancel_scope.cancel()


async def test_none_where_the_file_is_another_one_now(tiny: Path, tmp_path: Path) -> None:
    """Its vectors would be of another model than those that are searched with."""
    model = tmp_path / "model.gguf"
    shutil.copyfile(tiny, model)
    fake = Fake()
    engine = Engine(EngineOptions(model), launch=fake.launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        os.utime(model, ns=(1, 1))
        async with engine.spare() as found:
            assert found is None
        model.unlink()
        async with engine.spare() as found:
            assert found is None
        assert len(fake.settings) == 1
        nursery.cancel_scope.cancel()


async def test_its_vectors_are_those_of_the_first(tiny: Path) -> None:
    pids: list[int] = []

    async def launch(
        settings: ChildSettings, on_start: Callable[[int], None], on_ready: Callable[[str], None]
    ) -> ChildEnd:
        def started(pid: int) -> None:
            pids.append(pid)
            on_start(pid)

        return await run_child(settings, started, on_ready)

    engine = Engine(EngineOptions(tiny), launch=launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        assert engine.base_url is not None
        first = await _embedded(engine.base_url, engine.api_key)
        async with engine.spare() as found:
            assert found is not None
            assert os.getpriority(os.PRIO_PROCESS, pids[1]) == 19
            second = await _embedded(*found)
        with pytest.raises(ProcessLookupError):
            os.kill(pids[1], 0)
        nursery.cancel_scope.cancel()
    for one, other in zip(first, second, strict=True):
        assert _cosine(one, other) > 0.9999


async def _embedded(url: str, key: str) -> list[list[float]]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=None) as client:
        answer = await client.post(
            "/embedding", json={"content": TEXTS}, headers={"Authorization": f"Bearer {key}"}
        )
    return [one["embedding"][0] for one in answer.json()]


def _cosine(one: list[float], other: list[float]) -> float:
    dot = sum(x * y for x, y in zip(one, other, strict=True))
    return dot / math.sqrt(sum(x * x for x in one) * sum(x * x for x in other))

"""Joules of windows, by devices that take a known number of watts."""

from __future__ import annotations

import sys

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.bench.energy import rapl
from llcuda_net.bench.energy.meters import MeterError, Missing
from llcuda_net.bench.energy.sampler import Sampler, sampling
from tests.support.fake_nvml import Device, FakeNvml


class Known:
    """Takes 50 W, and from second 10 on 250 W; from `dies` on it tells nothing."""

    kind = "gpu"
    method = "energy counter"
    blocks = False

    def __init__(self, name: str = "GPU 0", dies: float = 1e9) -> None:
        self.name = name
        self._dies = dies
        self._begin: float | None = None

    def joules(self, now: float) -> float:
        self._begin = now if self._begin is None else self._begin
        at = now - self._begin
        if at >= self._dies:
            raise MeterError(f"{self.name} is gone")
        return 1000 + 50 * at + 200 * max(0.0, at - 10)


async def beside(sampler: Sampler, *, idle: bool = False) -> float:
    """Read for 20 s, of what is idle first where wanted; returns when it began."""
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        if idle:
            await sampler.idle()
        await trio.sleep_until(begin + 20)
        await sampler.read()
        nursery.cancel_scope.cancel()
    return begin


async def test_joules_of_any_window(autojump_clock: MockClock) -> None:
    sampler = Sampler([Known()])
    begin = await beside(sampler)

    def joules(a: float, b: float) -> float | None:
        return sampler.joules(begin + a, begin + b)["GPU 0"]

    assert joules(1.03, 9.41) == pytest.approx(50 * 8.38)
    assert joules(9.0, 11.0) == pytest.approx(50 + 250)
    assert joules(12.0, 13.0) == pytest.approx(250)
    assert joules(-1.0, 5.0) is None  # nothing was read before
    assert joules(19.0, 21.0) is None  # nor after


async def test_what_is_taken_before_anything_is_asked(autojump_clock: MockClock) -> None:
    sampler = Sampler([Known()])
    await beside(sampler, idle=True)
    assert sampler.idle_watts == {"GPU 0": pytest.approx(50)}


async def test_a_device_that_dies_is_missing(autojump_clock: MockClock) -> None:
    sampler = Sampler([Known(), Known("GPU 1", dies=15)])
    begin = await beside(sampler)
    assert [meter.name for meter in sampler.meters] == ["GPU 0"]
    assert sampler.missing == [Missing("gpu", "GPU 1 is gone")]
    found = sampler.joules(begin + 12, begin + 18)
    assert found == {"GPU 0": pytest.approx(1500), "GPU 1": None}
    assert sampler.joules(begin + 11, begin + 12)["GPU 1"] == pytest.approx(250)


async def test_a_gpu_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(millijoules=1_000)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([device]))
    monkeypatch.setattr(rapl, "meters", lambda: ([], [Missing("cpu", "none")]))
    async with sampling(local=True) as sampler:
        await sampler.read()
        begin = trio.current_time()
        await sampler.read()
        device.millijoules = 61_000
        end = trio.current_time()
        await sampler.read()
        assert sampler.missing == [Missing("cpu", "none")]
        (name,) = sampler.joules(begin, end)
        assert name == "GPU 0, NVIDIA Test"
    moments = sampler._moments[name]
    assert list(moments) == sorted(moments)
    assert moments[0] < begin < end < moments[-1]


async def test_an_error_of_the_block_leaves_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml([Device()])
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with pytest.raises(KeyError, match="own"):
        async with sampling(local=True):
            raise KeyError("own")
    assert library.opened == 0


async def test_another_machine_is_not_measured_here() -> None:
    async with sampling(local=False) as sampler:
        await sampler.idle()
        assert sampler.missing == [Missing("all", "the server is on another machine")]
        assert sampler.joules(0, 1) == {}
    async with sampling(local=True, wanted=False) as sampler:
        assert (sampler.meters, sampler.missing) == ([], [])

"""Pools with a stand-in for the driver: what they count, refuse and give back."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

import llcuda_kernels as k
from llcuda_kernels.runtime import memory


class Buffer:
    def __init__(self, source: Source, size: int) -> None:
        self.source, self.size, self.handle = source, size, id(self)

    def close(self) -> None:
        assert self.size >= 0, "closed twice"
        with self.source.lock:
            self.source.held -= self.size
        self.size = -1


class Source:
    """Memory as cuda.core gives it, from nowhere."""

    def __init__(self, fails: bool = False) -> None:
        self.held, self.fails, self.lock = 0, fails, threading.Lock()

    def allocate(self, size: int, *, stream: Any) -> Buffer:
        assert stream == "stream"
        if self.fails:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        with self.lock:
            self.held += size
        return Buffer(self, size)


def pool(**more: Any) -> tuple[k.MemoryPool, Source]:
    source = more.pop("source", Source())
    return k.MemoryPool(source=source, stream="stream", **more), source


def test_it_counts_what_is_in_use_and_was() -> None:
    made, source = pool()
    a, b = made.allocate(100), made.allocate(50)
    assert made.statistics() == k.PoolStatistics(150, 150, 2, 0)
    a.close()
    a.close()
    assert (made.statistics().in_use, source.held) == (50, 50)
    assert made.statistics().peak == 150
    del b
    gc.collect()
    assert (made.statistics().in_use, source.held) == (0, 0)


def test_the_limit_holds_until_memory_comes_back() -> None:
    made, _ = pool(limit=100)
    a = made.allocate(60)
    with pytest.raises(k.MemoryLimitError, match="exceed the pool's limit of 100"):
        made.allocate(41)
    assert made.statistics().refused == 1
    made.allocate(40).close()
    a.close()
    made.allocate(100).close()
    with pytest.raises(ValueError, match="negative"):
        made.allocate(-1)
    with pytest.raises(ValueError, match="negative"):
        pool(limit=-1)
    with pytest.raises(ValueError, match="kind"):
        pool(kind="managed")


def test_a_failure_of_the_driver_counts_nothing() -> None:
    made, _ = pool(source=Source(fails=True), limit=100)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="OUT_OF_MEMORY"):
            made.allocate(60)
    assert made.statistics() == k.PoolStatistics(0, 0, 0, 0)


def test_a_hundred_thousand_cycles_lose_nothing() -> None:
    made, source = pool(limit=1 << 20)
    for i in range(100_000):
        made.allocate(i % 4096).close()
    assert (made.statistics().in_use, source.held) == (0, 0)
    assert made.statistics().allocations == 100_000


def test_many_threads_take_and_give_back() -> None:
    made, source = pool(limit=8 * 64)

    def work() -> None:
        for _ in range(500):
            held = [made.allocate(32) for _ in range(2)]
            for each in held:
                each.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made.statistics().in_use, source.held) == (0, 0)
    assert made.statistics().allocations == 8000
    assert made.statistics().peak <= 8 * 64


def test_pinned_memory_is_viewed_as_an_array() -> None:
    import ctypes

    space = ctypes.create_string_buffer(64)

    class Held:
        handle = ctypes.addressof(space)

    view = memory.PinnedBytes(Held(), 64).array((2, 4), "float32")
    view[:] = 3
    assert space.raw[:4] == view[0, 0].tobytes()
    with pytest.raises(ValueError, match="does not fit"):
        memory.PinnedBytes(Held(), 64).array((17,), "float32")
    made, _ = pool()
    with pytest.raises(ValueError, match="kind 'pinned'"):
        made.pinned(10)


@pytest.mark.parametrize("make", [k.MemoryPool, k.StreamManager, lambda: k.capture(lambda: None)])
def test_without_a_gpu_they_say_so(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llcuda_kernels.runtime import device

    monkeypatch.setattr(device, "gpu", lambda: device.Gpu(False, "no driver"))
    with pytest.raises(k.BackendError, match="no driver"):
        make()

"""What is not about size: launches, graphs, and copies beside kernels."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import llcuda_kernels as k
from llcuda_kernels.cuda import synthetic_load
from llcuda_kernels.cuda.runtime import driver
from llcuda_kernels.cuda.runtime.array import DeviceArray, empty, to_device
from tools.kernels_bench.clock import host_time


def launches() -> dict[str, float]:
    """Microseconds: of the host for an operation on a small array, and replayed in a graph."""
    x, out = to_device(np.ones(1024, np.float32)), empty((1024,), np.float32)

    def once() -> None:
        k.relu(x, out=out)

    once()
    figures = {"relu_us": host_time(once, 2000)}
    figures["vector_add_us"] = host_time(lambda: k.vector_add(x, x, out=out), 2000)
    count = 100

    def many() -> None:
        for _ in range(count):
            k.relu(x, out=out)

    graph = k.capture(many)
    graph.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        graph.replay()
    graph.synchronize()
    figures["replayed_us"] = (time.perf_counter() - start) / (20 * count) * 1e6
    return figures


def overlap() -> dict[str, float]:
    """Milliseconds: copies to the device and kernels one after the other, and side by side."""
    size, rounds = 1 << 26, 8
    pool = k.MemoryPool("pinned")
    memory = pool.pinned(size)
    host: Any = memory.array((size // 4,), np.float32)
    host[:] = 1.0
    parts = [empty((size // 4,), np.float32) for _ in range(2)]
    out = empty((size // 4,), np.float32)

    def compute(x: DeviceArray) -> None:
        synthetic_load.run("post", x, 3000, out)

    def timed(run: Any) -> float:
        run()
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3

    with k.StreamManager() as streams:

        def alone(copies: bool, kernels: bool) -> None:
            with streams.use("compute"):
                for i in range(rounds):
                    if copies:
                        driver.copy_in(parts[i % 2].address, host)
                    if kernels:
                        compute(parts[i % 2])
            streams.synchronize()

        def beside() -> None:
            done: list[Any] = [None, None]
            for i in range(rounds):
                with streams.use("copy"):
                    if done[i % 2] is not None:
                        streams.wait("copy", done[i % 2])
                    driver.copy_in(parts[i % 2].address, host)
                    copied = streams.record("copy")
                with streams.use("compute"):
                    streams.wait("compute", copied)
                    compute(parts[i % 2])
                    done[i % 2] = streams.record("compute")
            streams.synchronize()

        return {
            "copies_ms": timed(lambda: alone(True, False)),
            "kernels_ms": timed(lambda: alone(False, True)),
            "one_after_the_other_ms": timed(lambda: alone(True, True)),
            "side_by_side_ms": timed(beside),
        }


def leak(cycles: int = 100_000) -> dict[str, float]:
    """Allocate and let go, again and again: the device's free memory before and after."""
    pool = k.MemoryPool("device", limit=1 << 30)
    for _ in range(100):
        pool.allocate(1 << 20).close()
    driver.stream().sync()
    before = driver.free_memory()
    start = time.perf_counter()
    for i in range(cycles):
        pool.allocate(1 + (i * 7919) % (1 << 20)).close()
    driver.stream().sync()
    took = time.perf_counter() - start
    return {
        "cycles": float(cycles),
        "us_a_cycle": took / cycles * 1e6,
        "bytes_lost": float(before - driver.free_memory()),
        "in_use": float(pool.statistics().in_use),
    }

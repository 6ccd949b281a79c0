"""Time on a device: events around the work, caches emptied before, the median of many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import driver, shim
from llcuda_kernels.cuda.runtime.array import DeviceArray, empty

#: Written between two runs: several times any device's second-level cache.
FLUSH_BYTES = 1 << 28
RUNS, WARM = 21, 3


@dataclass(frozen=True)
class Timed:
    """Milliseconds: the median of the runs, and the least and the greatest."""

    median: float
    least: float
    greatest: float


class DeviceClock:
    """Times what is queued on the current stream."""

    def __init__(self) -> None:
        self._flush = empty((FLUSH_BYTES,), np.uint8)
        self._timing = shim.core.EventOptions(timing_enabled=True)
        try:
            self._event()
        except TypeError:
            self._timing = None

    def _event(self) -> Any:
        return driver.stream().record(options=self._timing)

    def time(self, run: Callable[[], Any], runs: int = RUNS, cold: bool = True) -> Timed:
        """Run it `WARM` times, then `runs` times between events."""
        for _ in range(WARM):
            run()
        pairs = []
        for _ in range(runs):
            if cold:
                driver.fill(self._flush.address, 0xAA, FLUSH_BYTES)
            start = self._event()
            run()
            pairs.append((start, self._event()))
        driver.stream().sync()
        took = [float(end - start) for start, end in pairs]
        return Timed(statistics.median(took), min(took), max(took))


def host_time(run: Callable[[], Any], count: int) -> float:
    """Microseconds of host time a call takes when its work is queued, median of five rounds."""
    rounds = []
    for _ in range(5):
        driver.stream().sync()
        start = time.perf_counter()
        for _ in range(count):
            run()
        rounds.append((time.perf_counter() - start) / count * 1e6)
    driver.stream().sync()
    return statistics.median(rounds)


def part_of(array: DeviceArray, start: int, shape: tuple[int, ...]) -> DeviceArray:
    """Some of an array's numbers, from number `start` on; no copy."""
    address = array.address + start * array.dtype.itemsize
    return DeviceArray(address, shape, array.dtype, array.keeps, array.where)


def random_words(words: int, seed: int) -> DeviceArray:
    """Random uint32 in device memory, made there: xorshift, part from part."""
    from llcuda_kernels import spin, to_device

    part = min(words, 1 << 25)
    rng = np.random.default_rng(seed)
    current = to_device(rng.integers(1, 2**32, part, dtype=np.uint32))
    out = empty((words,), np.uint32)
    for start in range(0, words, part):
        count = min(part, words - start)
        target = part_of(out, start, (count,))
        spin(part_of(current, 0, (count,)), 5, out=target)
        current = target if count == part else current
    return out


def normals(count: int, seed: int) -> DeviceArray:
    """Random float32, nearly normal: a host's block of them, repeated on the device."""
    from llcuda_kernels import to_device

    part = min(count, 1 << 24)
    block: DeviceArray = to_device(
        np.random.default_rng(seed).standard_normal(part, dtype=np.float32)
    )
    if part == count:
        return block
    out = empty((count,), np.float32)
    source = block
    for start in range(0, count, part):
        size = min(part, count - start)
        copy(out.address + 4 * start, source.address, 4 * size)
    return out


def copy(to: int, source: int, size: int) -> None:
    """Device to device, on the current stream."""
    handle = shim.native.CUstream(int(driver.stream().handle))
    code = shim.native.cuMemcpyDtoDAsync(to, source, size, handle)[0]
    if int(code):
        raise RuntimeError(f"cuMemcpyDtoDAsync: {code}")

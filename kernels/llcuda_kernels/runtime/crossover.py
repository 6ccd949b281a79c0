"""From what size on CUDA wins for data in the host's memory: measured, once a process.

The first call of an operation with "auto" on a machine with a GPU times both paths, copies
included, at three sizes, and keeps the least size from which CUDA won. Below `SMALL` bytes nothing
is measured: no copy to a device and back pays there.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from .device import gpu

#: Bytes under which the CPU is taken without asking.
SMALL = 1 << 18
#: The sizes tried, in bytes moved.
SIZES = (1 << 20, 1 << 23, 1 << 26)

Probe = Callable[[str, int], None]

_lock = threading.Lock()
_probes: dict[str, Probe] = {}
_thresholds: dict[str, float] = {}


def probe(operation: str) -> Callable[[Probe], Probe]:
    """Register what to time: a function of the backend and a size in bytes that runs it once."""

    def keep(function: Probe) -> Probe:
        _probes[operation] = function
        return function

    return keep


def _best_of(run: Probe, backend: str, size: int, clock: Callable[[], float]) -> float:
    run(backend, size)  # compiles, and takes memory
    times = []
    for _ in range(3):
        start = clock()
        run(backend, size)
        times.append(clock() - start)
    return min(times)


def measure(operation: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time both paths now; the least size in bytes from which CUDA is faster, or infinity."""
    run = _probes[operation]
    threshold = math.inf
    for size in reversed(SIZES):
        if _best_of(run, "cuda", size, clock) >= _best_of(run, "cpu", size, clock):
            break
        threshold = size
    _thresholds[operation] = threshold
    return threshold


def cuda_is_faster(operation: str, work: int) -> bool:
    """Whether the measured crossover says CUDA for `work` bytes in the host's memory."""
    if work < SMALL or operation not in _probes or not gpu().usable:
        return False
    with _lock:
        threshold = _thresholds.get(operation)
        if threshold is None:
            threshold = measure(operation)
    return work >= threshold


def known() -> dict[str, float]:
    """What has been measured so far: operation to bytes."""
    return dict(_thresholds)

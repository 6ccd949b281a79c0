"""A float32 vector as three bfloat16 vectors whose sum it is: what tensor cores multiply exactly.

Of the 24 bits of a float32's fraction each plane holds eight: ``x = h + m + l``. Codes of up to
eight bits are exact in bfloat16, too, so each product is exact, and sums are made in float32.
Infinity and NaN are in the first plane alone, so that they meet each weight once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import DeviceArray
from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    cluster_arrive,
    cluster_put,
    cluster_wait,
    float_bits,
    load_past,
    pick_bytes,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer

#: Blocks a multiprocessor that K is cut for; finer cuts were slower.
MOST_BLOCKS = 2
THREADS = 256
_ZERO = np.float32(0.0)
_HIGH = np.int32(-65536)  # 0xFFFF0000
_EXPONENT = np.int32(0x7F800000)
_FRACTION = np.int32(0x007FFFFF)
_QUIET = np.int32(0x00400000)
_UPPER = np.int32(0x7632)


@device
def split(x: Any) -> Any:
    """The planes of a float32, each in the high half of a word."""
    bits = float_bits(x)
    h, m, rest = bits & _HIGH, np.int32(0), np.int32(0)
    if (bits & _EXPONENT) == _EXPONENT:
        if (bits & _FRACTION) != np.int32(0):
            h = h | _QUIET  # its low bits are cut: it must not become infinity
    else:
        r = x - bits_float(h)
        m = float_bits(r) & _HIGH
        rest = float_bits(r - bits_float(m)) & _HIGH
    return h, m, rest


@device
def early(x: Any, first: Any, i: Any, rest: Any) -> Any:
    """Number i of a share of x, before it is needed; 0 beyond the share's end."""
    return x[first + np.int64(i)] if i < rest else _ZERO


@device
def joined(low: Any, high: Any) -> Any:
    """The high halves of two words as a pair."""
    return pick_bytes(low, high, _UPPER)


@device
def twice(word: Any) -> Any:
    """The high half of a word in both halves."""
    return pick_bytes(word, word, np.int32(0x3232))


def finish(tile: int, warps: int, threads: int, cluster: int) -> Any:
    """The sums of a block's warps, (warps, tile) in shared memory, added over warps and a cluster.

    out: (parts / cluster, columns).
    """
    own = tile // cluster

    @device
    def run(sums: Any, got: Any, out: Any, tile_at: Any, columns: Any, part: Any, t: Any) -> None:
        rank, segment = part % np.int32(cluster), np.int64(part // np.int32(cluster))
        cuda.syncthreads()
        i = np.int32(t)
        while i < tile:
            y = _ZERO
            for w in range(warps):
                y += load_past(sums, i, w * tile)
            if cluster > 1:
                cluster_put(
                    got, rank * np.int32(own) + i % np.int32(own), float_bits(y),
                    np.int32(i // np.int32(own)),
                )  # fmt: skip
            elif tile_at * np.int32(tile) + i < columns:
                out[segment * columns + np.int64(tile_at * np.int32(tile) + i)] = y
            i = np.int32(i + np.int32(threads))
        if cluster > 1:
            cluster_arrive()
            cluster_wait()
            i = np.int32(t)
            while i < own:
                n = tile_at * np.int32(tile) + rank * np.int32(own) + i
                if n < columns:
                    y = _ZERO
                    for p in range(cluster):
                        y += bits_float(load_past(got, i, p * own))
                    out[segment * columns + np.int64(n)] = y
                i = np.int32(i + np.int32(threads))

    return run


@kernel("sum_parts", pointer(F32), pointer(F32), I32, I32, bounds=THREADS)
def _sum_parts(parts: Any, out: Any, count: Any, columns: Any) -> None:
    """The parts of each column, added."""
    n = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    if n < columns:
        y = _ZERO
        for p in range(count):
            y += parts[np.int64(p) * columns + n]
        out[n] = y


def add_parts(parts: DeviceArray, to: Any) -> None:
    """Write the sum over the first axis to an address."""
    count, columns = parts.shape
    _sum_parts.launch(divide_up(columns, THREADS), THREADS, parts.address, to, count, columns)


def parts_for(made: Kernel, tiles: int, steps: int, shared: Callable[[int], int]) -> int:
    """How many blocks share K: enough to fill the device, each with a step, in whole clusters.

    shared: the bytes of shared memory of a block, by how many steps it has at most. 0 where no
    number of parts lets a block fit.
    """
    if shim.SIMULATED:
        wanted = 2 * made.cluster
    else:
        from llcuda_kernels.cuda.runtime import driver

        resident = made.bounds[1] if isinstance(made.bounds, tuple) else 1
        wanted = divide_up(driver.multiprocessors() * min(MOST_BLOCKS, resident), tiles)
    parts = made.cluster * max(1, min(wanted, steps) // made.cluster)
    while not made.fits(shared(divide_up(steps, parts))):
        if parts >= steps:
            return 0
        parts += made.cluster
    return parts


def capability() -> tuple[int, int]:
    """The device's compute capability, by which kernels are chosen; in the simulator 9.0."""
    if shim.SIMULATED:
        return (9, 0)
    from llcuda_kernels.cuda.runtime import driver

    return driver.compute_capability()

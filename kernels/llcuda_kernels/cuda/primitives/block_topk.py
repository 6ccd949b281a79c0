"""The k best by cosine, each block its own: any rows, in steps of 128.

Eight lanes share a row: each loads 16 bytes of 128 in turn, multiplies them with the same part of
each query (in shared memory), and three exchanges add the lanes up. A block goes through rows in
steps of 128 and keeps its k best a query (`topk`).

::

    warp: lanes 0-7 → row r, 8-15 → row r + 1, 16-23 → row r + 2, 24-31 → row r + 3
    and the same again for the rows 32, 64 and 96 further: four loads under way a lane
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import dp4a, lane, load4, multiply_add, shuffle_xor
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .topk import NOTHING, clear, cut, key_of, sort_descending

THREADS = 256
#: Rows a block takes in one step.
STEP = 128
#: Up to this k a small buffer is enough, and eight queries share a pass.
SMALL_K = 128
SMALL_BUFFER, LARGE_BUFFER = 256, 2048
_ZERO, _NAN = np.float32(0.0), np.float32(np.nan)


@device
def _dot_codes(a: Any, b: Any, total: Any) -> Any:
    """Sixteen products."""
    total = dp4a(a[0], b[0], total)
    total = dp4a(a[1], b[1], total)
    total = dp4a(a[2], b[2], total)
    return dp4a(a[3], b[3], total)


@device
def _dot_codes_plain(a: Any, b: Any, total: Any) -> Any:
    """The same where there is no dp4a (below compute capability 6.1)."""
    for shift in range(0, 32, 8):
        up, down = np.int32(24 - shift), np.int32(24)
        for i in range(4):
            left, right = np.int32(a[i] << up), np.int32(b[i] << up)
            total += np.int32((left >> down) * (right >> down))
    return total


@device
def _dot_floats(a: Any, b: Any, total: Any) -> Any:
    """Four products."""
    total = multiply_add(a[0], b[0], total)
    total = multiply_add(a[1], b[1], total)
    total = multiply_add(a[2], b[2], total)
    return multiply_add(a[3], b[3], total)


@device
def _sum8(value: Any) -> Any:
    """The sum over eight neighbouring lanes."""
    value = value + shuffle_xor(value, 1)
    value = value + shuffle_xor(value, 2)
    return value + shuffle_xor(value, 4)


@device
def _near(near: Any, query: Any, at: Any) -> Any:
    return load4(near, at)


@device
def _far(near: Any, query: Any, at: Any) -> Any:
    return load4(query, at)


def _topk(
    name: str, kind: Any, dot: Any, zero: Any, queries: int, buffer: int, least: tuple[int, int],
    query4: Any,
) -> Kernel:  # fmt: skip
    """A kernel for so many queries a pass and so large a buffer; query4: where it reads them.

    Arguments: queries (padded, as words of `kind`), 1 / |q|, rows, 1 / |v|, the number of queries
    and of rows, the words a row (a multiple of four), k, and out: (queries, blocks, k) keys.
    """
    most = buffer - STEP  # a step may add as many as it has rows
    capacity, each = queries * buffer, 4 * queries
    copied = queries if query4 is _near else 0

    @kernel(
        name, pointer(kind), pointer(F32), pointer(kind), pointer(F32), I32, I64, I32, I32,
        pointer(I64), bounds=(THREADS, 1 if "plain" in name else 2), least=least,
        shared=divide_up(8 * capacity + 12 * queries, 16) * 16,
    )  # fmt: skip
    def run(
        query: Any, inverse_q: Any, rows: Any, inverse_v: Any,
        count: Any, total: Any, words: Any, k: Any, out: Any,
    ) -> None:  # fmt: skip
        near = cuda.shared.array(0, kind, 16)
        keys = cuda.shared.array(capacity, I64)
        counts = cuda.shared.array(queries, I32)
        limits = cuda.shared.array(queries, I64)
        t = np.int32(cuda.threadIdx.x)
        for i in range(t, copied * words, THREADS):
            near[i] = query[i] if i < count * words else zero
        clear(keys, capacity, THREADS)
        if t < queries:
            counts[t] = 0
            limits[t] = NOTHING
        cuda.syncthreads()
        part = np.int32(4) * (np.int32(lane()) & np.int32(7))
        group = t >> np.int32(3)
        start = np.int64(cuda.blockIdx.x) * STEP
        while start < total:
            r0 = start + group
            r1, r2, r3 = r0 + 32, r0 + 64, r0 + 96
            # rows beyond the end: the last one instead, and its scores are dropped
            b0, b1 = min(r0, total - 1) * words, min(r1, total - 1) * words
            b2, b3 = min(r2, total - 1) * words, min(r3, total - 1) * words
            sums = cuda.local.array(each, kind)
            for i in range(4 * queries):
                sums[i] = zero
            for i in range(part, words, 32):
                v0, v1 = load4(rows, b0 + i), load4(rows, b1 + i)
                v2, v3 = load4(rows, b2 + i), load4(rows, b3 + i)
                for q in range(queries):
                    w = query4(near, query, q * words + i)
                    sums[4 * q] = dot(v0, w, sums[4 * q])
                    sums[4 * q + 1] = dot(v1, w, sums[4 * q + 1])
                    sums[4 * q + 2] = dot(v2, w, sums[4 * q + 2])
                    sums[4 * q + 3] = dot(v3, w, sums[4 * q + 3])
            # lanes 0 to 3 of the eight take a row each
            own = np.int32(lane()) & np.int32(7)
            row = r0 + 32 * np.int64(own)
            inverse = _NAN
            if own < 4 and row < total:
                inverse = inverse_v[row]
            full = np.int32(0)
            for q in range(queries):
                s0, s1 = _sum8(sums[4 * q]), _sum8(sums[4 * q + 1])
                s2, s3 = _sum8(sums[4 * q + 2]), _sum8(sums[4 * q + 3])
                mine = s0 if own == 0 else s1
                mine = s2 if own == 2 else mine
                mine = s3 if own == 3 else mine
                if q < count:
                    score = np.float32(mine) * inverse_q[q] * inverse
                    if score == score:
                        key = key_of(score, row)
                        if key > limits[q]:
                            place = cuda.atomic.add(counts, q, 1)
                            keys[q * buffer + place] = key
                            if place >= most - 1:
                                full = np.int32(1)
            if cuda.syncthreads_or(full) != 0:
                for q in range(queries):
                    if counts[q] >= most:
                        cut(keys, q * buffer, buffer, k, counts, limits, q, THREADS)
                cuda.syncthreads()
            start += np.int64(cuda.gridDim.x) * STEP
        cuda.syncthreads()
        for q in range(queries):
            if q < count:
                sort_descending(keys, q * buffer, buffer, THREADS)
                place = (np.int64(q) * cuda.gridDim.x + cuda.blockIdx.x) * k
                for i in range(t, k, THREADS):
                    out[place + i] = keys[q * buffer + i]

    return run


@dataclass(frozen=True)
class Family:
    """The kernels for one type of rows: how many queries go together, how large k may be."""

    one: Kernel
    large: Kernel  # for k above SMALL_K
    far: Kernel  # for any k: queries too long for shared memory are read from global memory
    by_8: Kernel | None = None


def _family(
    name: str, kind: Any, dot: Any, zero: Any, least: tuple[int, int], together: bool
) -> Family:
    given = kind, dot, zero
    return Family(
        _topk(f"topk_{name}", *given, 1, SMALL_BUFFER, least, _near),
        _topk(f"topk_{name}_large", *given, 1, LARGE_BUFFER, least, _near),
        _topk(f"topk_{name}_far", *given, 1, LARGE_BUFFER, least, _far),
        _topk(f"topk_{name}_by_8", *given, 8, SMALL_BUFFER, least, _near) if together else None,
    )


DP4A = (6, 1)
FAMILIES = {
    "int8": _family("int8", I32, _dot_codes, np.int32(0), DP4A, True),
    "int8 plain": _family("int8_plain", I32, _dot_codes_plain, np.int32(0), (5, 0), False),
    "float32": _family("float32", F32, _dot_floats, _ZERO, (5, 0), True),
}


def choose(family: Family, count: int, words: int, k: int) -> tuple[Kernel, int, int]:
    """The kernel for so many queries of so many words, how many of them go together, and the bytes
    of shared memory that they take: the best that fits this device.
    """
    if k <= SMALL_K and count > 1 and family.by_8 and family.by_8.fits(8 * 4 * words):
        return family.by_8, 8, 8 * 4 * words
    near = family.one if k <= SMALL_K else family.large
    if near.fits(4 * words):
        return near, 1, 4 * words
    return family.far, 1, 0

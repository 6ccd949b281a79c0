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

from llcuda_kernels.cuda.primitives.topk import NOTHING, clear, cut, key_of, sort_descending
from llcuda_kernels.cuda.runtime.intrinsics import lane, load4, shuffle_xor
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .row_kinds import CODES, DP4A, FLOATS, PLAIN_CODES, RowKind
from .segments import enter, norms_of, rows_of

THREADS = 256
#: Rows a block takes in one step.
STEP = 128
#: Up to this k a small buffer is enough, and eight queries share a pass.
SMALL_K = 128
SMALL_BUFFER, LARGE_BUFFER = 256, 2048
_STEP, _NONE, _NAN = np.int32(STEP), np.int32(0), np.float32(np.nan)


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
    name: str, of: RowKind, queries: int, buffer: int, least: tuple[int, int], query4: Any
) -> Kernel:
    """A kernel for so many queries a pass and so large a buffer; query4: where it reads them.

    Arguments: queries (padded, as words), 1 / |q|, rows, 1 / |v|, the number of queries and of
    rows, the end of the first piece and the table (`segments`), the words a row (a multiple of
    four), k, how many passed a scan and may have (`scan`; 0: there was none), and out: (queries,
    blocks, k) keys. After a scan that has all there is to find, nothing is done.
    """
    kind, zero, dot = of.type, of.zero, of.dot
    factor, scaled, cosine = of.factor, of.scaled, of.cosine
    most = buffer - STEP  # a step may add as many as it has rows
    capacity, each = queries * buffer, 4 * queries
    # with eight queries registers are scarce; with one the compiler does better on wide numbers
    number = np.int32 if queries > 1 else np.int64
    copied = queries if query4 is _near else 0

    @kernel(
        name, pointer(kind), pointer(F32), pointer(kind), pointer(F32), I32, I64, I32,
        pointer(I64), I32, I32, pointer(I32), I64, pointer(I64),
        # with two blocks a multiprocessor these spill
        bounds=(THREADS, 1 if "plain" in name or name == "topk_int8" else 2), least=least,
        shared=divide_up(8 * capacity + 12 * queries, 16) * 16,
    )  # fmt: skip
    def run(
        query: Any, inverse_q: Any, first: Any, norms: Any, count: Any, total: Any, end: Any,
        table: Any, words: Any, k: Any, passed: Any, room: Any, out: Any,
    ) -> None:  # fmt: skip
        wanted = room == 0
        for q in range(queries):
            if room > 0 and q < count and (passed[q] < k or passed[q] > room):
                wanted = True
        if not wanted:
            return
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
        start = number(cuda.blockIdx.x) * _STEP
        last, far = number(total - 1), np.int32(32) * words
        entry = np.int32(0)
        while start <= last:
            end, entry = enter(start, end, table, entry)
            rows = rows_of(first, table, entry)
            inverse_v = norms_of(norms, table, entry)
            r0 = number(start + group)
            # rows beyond the end: the first one instead, and its scores are dropped
            r1 = min(r0, last)
            p1, p2, p3 = r0 + 32 <= last, r0 + 64 <= last, r0 + 96 <= last
            f0, f1 = factor(inverse_v, r1), factor(inverse_v, r0 + 32 if p1 else r1)
            f2 = factor(inverse_v, r0 + 64 if p2 else r1)
            f3 = factor(inverse_v, r0 + 96 if p3 else r1)
            b0 = np.int64(r1) * words
            o1 = far if p1 else _NONE
            o2 = np.int32(far + far) if p2 else _NONE
            o3 = np.int32(far * 3) if p3 else _NONE
            sums = cuda.local.array(each, kind)
            for i in range(4 * queries):
                sums[i] = zero
            for i in range(part, words, 32):
                v0 = scaled(load4(rows, b0 + i), f0)
                v1 = scaled(load4(rows, b0 + o1 + i), f1)
                v2 = scaled(load4(rows, b0 + o2 + i), f2)
                v3 = scaled(load4(rows, b0 + o3 + i), f3)
                for q in range(queries):
                    w = query4(near, query, q * words + i)
                    sums[4 * q] = dot(v0, w, sums[4 * q])
                    sums[4 * q + 1] = dot(v1, w, sums[4 * q + 1])
                    sums[4 * q + 2] = dot(v2, w, sums[4 * q + 2])
                    sums[4 * q + 3] = dot(v3, w, sums[4 * q + 3])
            # lanes 0 to 3 of the eight take a row each
            own = np.int32(lane()) & np.int32(7)
            row = number(r0 + np.int32(32) * own)
            inverse = _NAN
            if own < 4 and row <= last:
                inverse = norms_of(norms, table, entry)[row]
            full = np.int32(0)
            for q in range(queries):
                s0, s1 = _sum8(sums[4 * q]), _sum8(sums[4 * q + 1])
                s2, s3 = _sum8(sums[4 * q + 2]), _sum8(sums[4 * q + 3])
                mine = s0 if own == 0 else s1
                mine = s2 if own == 2 else mine
                mine = s3 if own == 3 else mine
                if q < count:
                    begin = np.int64(min(row, last)) * words
                    score = cosine(mine, inverse_q[q], inverse, rows, begin, words)
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
            start = number(start + number(cuda.gridDim.x) * _STEP)
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


def _family(name: str, of: RowKind, least: tuple[int, int], together: bool) -> Family:
    return Family(
        _topk(f"topk_{name}", of, 1, SMALL_BUFFER, least, _near),
        _topk(f"topk_{name}_large", of, 1, LARGE_BUFFER, least, _near),
        _topk(f"topk_{name}_far", of, 1, LARGE_BUFFER, least, _far),
        _topk(f"topk_{name}_by_8", of, 8, SMALL_BUFFER, least, _near) if together else None,
    )


FAMILIES = {
    "int8": _family("int8", CODES, DP4A, True),
    "int8 plain": _family("int8_plain", PLAIN_CODES, (5, 0), False),
    "float32": _family("float32", FLOATS, (5, 0), True),
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

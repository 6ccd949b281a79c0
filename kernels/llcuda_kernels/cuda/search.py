"""The exact nearest by cosine on the device: one pass, scores never leave the chip.

Eight lanes share a row: each loads 16 bytes of 128 in turn, multiplies them with the same part of
each query (in shared memory), and three exchanges add the lanes up. A block goes through rows in
steps of 128 and keeps its k best a query (`topk`); a second kernel merges what the blocks kept.

::

    warp: lanes 0-7 → row r, 8-15 → row r + 1, 16-23 → row r + 2, 24-31 → row r + 3
    and the same again for the rows 32, 64 and 96 further: four loads under way a lane
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .norms import inverse_norms_int8, l2_normalize
from .primitives import scan
from .primitives.padding import padded
from .primitives.topk import (
    NOTHING,
    clear,
    cut,
    in_use,
    index_of,
    key_of,
    sort_descending,
    value_of,
)
from .runtime import shim
from .runtime.array import Call, DeviceArray, at, empty, to_device
from .runtime.intrinsics import dp4a, lane, load4, multiply_add, shuffle_xor
from .runtime.kernel import Kernel, divide_up, kernel
from .runtime.shim import F32, I32, I64, cuda, device, pointer

THREADS = 256
#: Rows a block takes in one step.
STEP = 128
#: Up to this k a small buffer is enough, and eight queries share a pass.
SMALL_K = 128
SMALL_BUFFER, LARGE_BUFFER = 256, 2048
MERGE_THREADS, MERGE_BUFFER = 256, 4096
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


def _topk(
    name: str, kind: Any, dot: Any, zero: Any, queries: int, buffer: int, least: tuple[int, int]
) -> Kernel:
    """A kernel for so many queries a pass and so large a buffer.

    Arguments: queries (padded, as words of `kind`), 1 / |q|, rows, 1 / |v|, the number of queries
    and of rows, the words a row (a multiple of four), k, and out: (queries, blocks, k) keys.
    """
    most = buffer - STEP  # a step may add as many as it has rows
    capacity, each = queries * buffer, 4 * queries

    @kernel(
        name, pointer(kind), pointer(F32), pointer(kind), pointer(F32), I32, I64, I32, I32,
        pointer(I64), bounds=(THREADS, 1 if "plain" in name else 2), least=least,
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
        for i in range(t, queries * words, THREADS):
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
                    w = load4(near, q * words + i)
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


_DP4A = (6, 1)
_PLAIN = _topk("topk_int8_plain", I32, _dot_codes_plain, np.int32(0), 1, SMALL_BUFFER, (5, 0))
KERNELS = {
    "int8": (
        _topk("topk_int8", I32, _dot_codes, np.int32(0), 1, SMALL_BUFFER, _DP4A),
        _topk("topk_int8_by_8", I32, _dot_codes, np.int32(0), 8, SMALL_BUFFER, _DP4A),
        _topk("topk_int8_large", I32, _dot_codes, np.int32(0), 1, LARGE_BUFFER, _DP4A),
    ),
    "int8 plain": (
        _PLAIN,
        _PLAIN,
        _topk("topk_int8_plain_large", I32, _dot_codes_plain, np.int32(0), 1, LARGE_BUFFER, (5, 0)),
    ),
    "float32": (
        _topk("topk_float32", F32, _dot_floats, _ZERO, 1, SMALL_BUFFER, (5, 0)),
        _topk("topk_float32_by_8", F32, _dot_floats, _ZERO, 8, SMALL_BUFFER, (5, 0)),
        _topk("topk_float32_large", F32, _dot_floats, _ZERO, 1, LARGE_BUFFER, (5, 0)),
    ),
}


@kernel(
    "topk_merge",
    pointer(I64), I64, pointer(I32), I32, I32, pointer(F32), pointer(I64), bounds=MERGE_THREADS,
)  # fmt: skip
def _merge(given: Any, each: Any, found: Any, counted: Any, k: Any, scores: Any, rows: Any) -> None:
    """A block a query: the k best of `each` keys, as scores and rows.

    With `counted` only the first found[query] of them are there.
    """
    keys = cuda.shared.array(MERGE_BUFFER, I64)
    counts = cuda.shared.array(1, I32)
    limits = cuda.shared.array(1, I64)
    t = np.int32(cuda.threadIdx.x)
    clear(keys, MERGE_BUFFER, MERGE_THREADS)
    if t == 0:
        counts[0] = 0
        limits[0] = NOTHING
    cuda.syncthreads()
    base = np.int64(cuda.blockIdx.x) * each
    most = MERGE_BUFFER - 4 * MERGE_THREADS
    there = each
    if counted != 0:
        there = min(there, np.int64(found[cuda.blockIdx.x]))
    for start in range(0, there, 4 * MERGE_THREADS):
        full = np.int32(0)
        for j in range(4):
            at = start + j * MERGE_THREADS + t
            if at < there:
                key = given[base + at]
                if key > limits[0]:
                    place = cuda.atomic.add(counts, 0, 1)
                    keys[place] = key
                    if place >= most - 1:
                        full = np.int32(1)
        if cuda.syncthreads_or(full) != 0:
            cut(keys, 0, MERGE_BUFFER, k, counts, limits, 0, MERGE_THREADS)
    cuda.syncthreads()
    sort_descending(keys, 0, in_use(counts[0], np.int32(MERGE_BUFFER)), MERGE_THREADS)
    to = np.int64(cuda.blockIdx.x) * k
    for i in range(t, k, MERGE_THREADS):
        key = keys[i]
        if key == NOTHING:
            scores[to + i] = -np.float32(np.inf)
            rows[to + i] = -1
        else:
            scores[to + i] = value_of(key)
            rows[to + i] = index_of(key)


@kernel("known_or_nan", pointer(F32), pointer(F32), I64, bounds=THREADS)
def _known_or_nan(given: Any, out: Any, n: Any) -> None:
    """1, and NaN where the given is NaN."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        v = given[i]
        out[i] = np.float32(1.0) if v == v else v


def _ones(count: int, known: DeviceArray | None) -> DeviceArray:
    if known is None:
        return to_device(np.ones(count, np.float32))
    out = empty((count,), np.float32)
    if count:
        grid = divide_up(count, THREADS)
        _known_or_nan.launch(grid, THREADS, known.address, out.address, count)
    return out


def search_codes(
    queries: DeviceArray, inverse_q: DeviceArray, rows: DeviceArray, inverse_v: DeviceArray, k: int
) -> tuple[DeviceArray, DeviceArray]:
    """The k best of each query: padded rows and queries of one type, all on the device.

    Many int8 rows are scanned against a limit that a sample gives (`scan`); should the rows lie so
    that too many pass it, and for all else, each block keeps its own best.
    """
    count, total = queries.shape[0], rows.shape[0]
    scores, found = empty((count, k), np.float32), empty((count, k), np.int64)
    if not count:
        return scores, found
    if rows.dtype == np.int8 and k <= SMALL_K and total >= scan.LEAST_ROWS and _has_dp4a():
        sample = _part(rows, scan.sample(total))
        _by_blocks(queries, inverse_q, sample, inverse_v, k, scores, found)
        if scan.run(queries, inverse_q, rows, inverse_v, k, scores, found, _merge):
            return scores, found
    _by_blocks(queries, inverse_q, rows, inverse_v, k, scores, found)
    return scores, found


def _part(rows: DeviceArray, count: int) -> DeviceArray:
    """The first rows."""
    made = DeviceArray(rows.address, (count, rows.shape[1]), rows.dtype, rows)
    if shim.SIMULATED:
        made.address = made.address[: made.size]
    return made


def _by_blocks(
    queries: DeviceArray, inverse_q: DeviceArray, rows: DeviceArray, inverse_v: DeviceArray, k: int,
    scores: DeviceArray, found: DeviceArray,
) -> None:  # fmt: skip
    count, total = queries.shape[0], rows.shape[0]
    family, words = "float32", rows.shape[1]
    if rows.dtype == np.int8:
        family, words = ("int8" if _has_dp4a() else "int8 plain"), rows.shape[1] // 4
        queries = queries.view(np.int32, (count, words))
        rows = rows.view(np.int32, (total, words))
    one, by_8, large = KERNELS[family]
    chosen, step = (one, 1) if k <= SMALL_K else (large, 1)
    if chosen is one and count > 1 and by_8 is not one:
        chosen, step = by_8, 8
    shared = step * words * 4
    blocks = max(1, min(divide_up(total, STEP), _blocks(shared)))
    keys = empty((count, blocks, k), np.int64)
    for first in range(0, count, step):
        now = min(step, count - first)
        chosen.launch(
            blocks, THREADS,
            at(queries, first * words), at(inverse_q, first), rows.address, inverse_v.address,
            now, total, words, k, at(keys, first * blocks * k), shared=shared,
        )  # fmt: skip
    unused = empty((1,), np.int32)
    _merge.launch(
        count, MERGE_THREADS,
        keys.address, blocks * k, unused.address, 0, k, scores.address, found.address,
    )  # fmt: skip


def _has_dp4a() -> bool:
    if shim.SIMULATED:
        return True
    from .runtime import driver

    return driver.compute_capability() >= _DP4A


def _blocks(shared: int) -> int:
    """As many blocks as run at once."""
    if shim.SIMULATED:
        return 3
    from .runtime import driver

    return driver.multiprocessors() * 2  # as many as the kernels' bounds let run at once


def cosine_topk(
    queries: Array, vectors: Array, k: int, inverse_norms: Array | None = None
) -> tuple[Array, Array]:
    """See `llcuda_kernels.cosine_topk`."""
    call = Call(queries, vectors, inverse_norms)
    kind = np.int8 if np.dtype(vectors.dtype) == np.int8 else np.float32
    q, v = call.take(queries, kind, "queries", 2), call.take(vectors, kind, "vectors", 2)
    if v.shape[0] >= 2**31:
        raise ValueError("2³¹ - 1 vectors at most on the device")
    known = None
    if inverse_norms is not None:
        known = call.take(inverse_norms, np.float32, "inverse_norms", 1)
    if not v.shape[0]:
        shape = (q.shape[0], k)
        nothing = to_device(np.full(shape, -np.inf, np.float32)), to_device(np.full(shape, -1))
        return call.give(nothing[0]), call.give(nothing[1])
    if kind == np.int8:
        found = search_codes(
            padded(q),
            inverse_norms_int8(q),
            padded(v),
            inverse_norms_int8(v) if known is None else known,
            k,
        )
    else:
        unit_q, unit_v = padded(l2_normalize(q)), padded(l2_normalize(v))
        found = search_codes(unit_q, _ones(q.shape[0], None), unit_v, _ones(v.shape[0], known), k)
    return call.give(found[0]), call.give(found[1])


def inverse_norms(vectors: Array) -> Array:
    """See `llcuda_kernels.inverse_norms`."""
    call = Call(vectors)
    if np.dtype(vectors.dtype) == np.int8:
        return call.give(inverse_norms_int8(call.take(vectors, np.int8, "vectors", 2)))
    from llcuda_kernels.cpu import quantize

    v = call.take(vectors, np.float32, "vectors", 2)
    return call.give(to_device(quantize.inverse_norms(v.copy_to_host())))

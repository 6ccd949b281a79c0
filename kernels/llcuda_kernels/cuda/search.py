"""The exact nearest by cosine on the device: one pass, scores never leave the chip.

Each block keeps its k best a query (`primitives.block_topk`), or appends what passes a limit
(`primitives.scan`); a second kernel merges what they kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .norms import inverse_norms_int8, l2_normalize
from .primitives import scan
from .primitives.block_topk import DP4A, FAMILIES, SMALL_K, STEP, THREADS, choose
from .primitives.padding import padded
from .primitives.topk import NOTHING, clear, cut, in_use, index_of, sort_descending, value_of
from .runtime import shim
from .runtime.array import Call, DeviceArray, at, empty, filled, recorded, to_device
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I32, I64, cuda, pointer

MERGE_THREADS, MERGE_BUFFER = 256, 4096


@kernel(
    "topk_merge",
    pointer(I64), I64, pointer(I32), I32, I32, pointer(F32), pointer(I64), bounds=MERGE_THREADS,
    shared=32784,
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
        return filled((count,), np.float32, 1.0)
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
    if _to_scan(rows, k):
        sample = _part(rows, scan.sample(total))
        _by_blocks(queries, inverse_q, sample, inverse_v, k, scores, found)
        if scan.run(queries, inverse_q, rows, inverse_v, k, scores, found, _merge):
            return scores, found
    _by_blocks(queries, inverse_q, rows, inverse_v, k, scores, found)
    return scores, found


def _to_scan(rows: DeviceArray, k: int) -> bool:
    """Whether a sample of the rows pays. How many pass its limit is read on the host, which nothing
    can be while a graph is recorded.
    """
    return (
        rows.dtype == np.int8
        and k <= SMALL_K
        and rows.shape[0] >= scan.LEAST_ROWS
        and _has_dp4a()
        and scan.fits(rows.shape[1] // 4)
        and not recorded()
    )


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
    chosen, step, shared = choose(FAMILIES[family], count, words, k)
    blocks = max(1, min(divide_up(total, STEP), _blocks()))
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

    return driver.compute_capability() >= DP4A


def _blocks() -> int:
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
        scores = filled(shape, np.float32, -np.inf)
        return call.give(scores), call.give(filled(shape, np.int64, -1))
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

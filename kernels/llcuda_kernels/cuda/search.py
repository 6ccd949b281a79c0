"""The exact nearest by cosine on the device: one pass, scores never leave the chip.

Each block keeps its k best a query (`nearest.block_topk`), or appends what passes a limit
(`nearest.scan`); a second kernel merges what they kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .norms import inverse_norms_float32, inverse_norms_int8, l2_normalize
from .primitives.nearest import scan
from .primitives.nearest.block_topk import FAMILIES, SMALL_K, STEP, THREADS, choose
from .primitives.nearest.row_kinds import DP4A
from .primitives.nearest.segments import MOST_ROWS, Rows
from .primitives.padding import padded
from .primitives.topk import NOTHING, clear, cut, in_use, index_of, sort_descending, value_of
from .runtime import shim
from .runtime.array import Call, DeviceArray, at, empty, filled
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I32, I64, cuda, pointer

MERGE_THREADS, MERGE_BUFFER = 256, 4096


#: What `_merge` does: all keys of each query; those that a scan has counted; all keys, but only for
#: queries of which a scan had too many or too few.
ALL, COUNTED, AGAIN = 0, 1, 2


@kernel(
    "topk_merge",
    pointer(I64), I64, I32, pointer(I32), I64, I32, pointer(F32), pointer(I64),
    bounds=MERGE_THREADS, shared=32784,
)  # fmt: skip
def _merge(
    given: Any, each: Any, what: Any, passed: Any, room: Any, k: Any, scores: Any, rows: Any
) -> None:
    """A block a query: the k best of `each` keys, as scores and rows."""
    keys = cuda.shared.array(MERGE_BUFFER, I64)
    counts = cuda.shared.array(1, I32)
    limits = cuda.shared.array(1, I64)
    t = np.int32(cuda.threadIdx.x)
    there = each
    if what != ALL:
        seen = passed[cuda.blockIdx.x]
        if what == AGAIN and k <= seen and seen <= room:
            return
        if what == COUNTED:
            there = min(there, np.int64(seen))
    clear(keys, MERGE_BUFFER, MERGE_THREADS)
    if t == 0:
        counts[0] = 0
        limits[0] = NOTHING
    cuda.syncthreads()
    base = np.int64(cuda.blockIdx.x) * each
    most = MERGE_BUFFER - 4 * MERGE_THREADS
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


@dataclass(frozen=True)
class Best:
    """Where the k best of each query go: scores (q, k) float32, rows (q, k) int64."""

    scores: DeviceArray
    rows: DeviceArray

    @classmethod
    def new(cls, count: int, k: int) -> Best:
        """New memory."""
        return cls(empty((count, k), np.float32), empty((count, k), np.int64))


def search(queries: DeviceArray, inverse_q: DeviceArray, rows: Rows, k: int, best: Best) -> None:
    """The k best of each query: padded rows and queries of one type, all on the device.

    Many rows are scanned against a limit that a sample gives (`scan`). Should the rows lie so that
    too many pass it, and for all else, each block keeps its own best. The host never waits.
    """
    if not queries.shape[0]:
        return
    if not _to_scan(rows, queries.shape[0], k):
        _by_blocks(queries, inverse_q, rows, k, best)
        return
    _by_blocks(queries, inverse_q, rows.part(scan.sample(rows.total)), k, best)
    passed = scan.run(queries, inverse_q, rows, k, best.scores)
    _merge.launch(
        queries.shape[0], MERGE_THREADS, passed.keys.address, passed.room, COUNTED,
        passed.counts.address, passed.room, k, best.scores.address, best.rows.address,
    )  # fmt: skip
    _by_blocks(queries, inverse_q, rows, k, best, passed)


def _to_scan(rows: Rows, count: int, k: int) -> bool:
    """Whether a sample of the rows pays."""
    can = not rows.whole or _has_dp4a()
    return k <= SMALL_K and rows.total >= scan.LEAST_ROWS and can and scan.fits(rows, count)


def _by_blocks(
    queries: DeviceArray, inverse_q: DeviceArray, rows: Rows, k: int, best: Best,
    passed: scan.Passed | None = None,
) -> None:  # fmt: skip
    """With `passed` only for queries of which too many or too few rows have passed."""
    count, total, words, family = queries.shape[0], rows.total, rows.words, "float32"
    if rows.whole:
        family = "int8" if _has_dp4a() else "int8 plain"
        queries = queries.view(np.int32, (count, words))
    chosen, step, shared = choose(FAMILIES[family], count, words, k)
    blocks = max(1, min(divide_up(total, STEP), _blocks()))
    keys = empty((count, blocks, k), np.int64)
    counts = empty((count,), np.int32) if passed is None else passed.counts
    room = 0 if passed is None else passed.room
    for first in range(0, count, step):
        chosen.launch(
            blocks, THREADS,
            at(queries, first * words), at(inverse_q, first), *rows.addresses(),
            min(step, count - first), total, rows.end, rows.table, words, k,
            at(counts, first), room, at(keys, first * blocks * k), shared=shared,
        )  # fmt: skip
    what = ALL if passed is None else AGAIN
    _merge.launch(
        count, MERGE_THREADS, keys.address, blocks * k, what, counts.address, room, k,
        best.scores.address, best.rows.address,
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
    if v.shape[0] > MOST_ROWS:
        raise ValueError(f"{MOST_ROWS:,} vectors at most on the device")
    known = None
    if inverse_norms is not None:
        known = call.take(inverse_norms, np.float32, "inverse_norms", 1)
    if not v.shape[0]:
        shape = (q.shape[0], k)
        scores = filled(shape, np.float32, -np.inf)
        return call.give(scores), call.give(filled(shape, np.int64, -1))
    best = Best.new(q.shape[0], k)
    if known is None:
        known = inverse_norms_int8(v) if kind == np.int8 else inverse_norms_float32(v)
    rows = Rows.of(padded(v), known)
    if kind == np.int8:
        search(padded(q), inverse_norms_int8(q), rows, k, best)
    else:
        ones = filled((q.shape[0],), np.float32, 1.0)
        search(padded(l2_normalize(q)), ones, rows, k, best)
    return call.give(best.scores), call.give(best.rows)


def inverse_norms(vectors: Array) -> Array:
    """See `llcuda_kernels.inverse_norms`."""
    call = Call(vectors)
    if np.dtype(vectors.dtype) == np.int8:
        return call.give(inverse_norms_int8(call.take(vectors, np.int8, "vectors", 2)))
    return call.give(inverse_norms_float32(call.take(vectors, np.float32, "vectors", 2)))

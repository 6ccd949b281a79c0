"""The second half of a large search: every row against a limit that is known already.

The k-th best score in a sample of the rows is a limit that the k best of all rows reach. So each
row is scored and, if it reaches the limit, its key is appended to a list in global memory; no block
sorts or waits. Of random rows k in a sample's worth do, some hundreds in all; then the list is
searched. The lists have an end: when rows lie so that more pass (the best last, say), a search in
the robust way follows, which does nothing where all is well: the host need not be asked.

With one query the dot products are dp4a's. With several, and tensor cores, they are products of
matrices:

::

    mma 16x8x32: 16 rows (A, from global memory into registers) by 8 queries (B, in shared memory)

A sum does not mind the order of its terms, so a lane gives mma 16 neighbouring bytes of its row in
four words, and the same bytes of the query: what mma takes for k = 4t and 16 + 4t may be any bytes,
as long as A and B agree. That is one load of 16 bytes for two mma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.cuda.primitives.topk import key_of
from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import DeviceArray, at, empty, filled
from llcuda_kernels.cuda.runtime.intrinsics import count_up, lane, load4, mma_int8, shuffle_xor
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from . import coarse
from .coarse import TOGETHER, stride_of
from .row_kinds import CODES, DP4A, FLOATS, RowKind
from .segments import Rows, enter, norms_of, rows_of

THREADS = 256
#: From so many rows on a sample pays.
LEAST_ROWS = 1 << 18 if not shim.SIMULATED else 1 << 10
#: Keys a list holds, for each of the k.
ROOM = 2048
_ABOUT = 2 * TOGETHER
#: Queries of one pass over floats.
FLOATS_TOGETHER = 16
_SUMS = 4 * FLOATS_TOGETHER
_ZERO, _NO_FLOAT = np.int32(0), np.float32(0.0)
_factor, _scaled, _dot, _cosine = FLOATS.factor, FLOATS.scaled, FLOATS.dot, FLOATS.cosine


def sample(total: int) -> int:
    """How many rows the limit is found from."""
    return max(LEAST_ROWS // 8, total // 128 // 128 * 128)


def _one(name: str, of: RowKind, least: tuple[int, int], blocks: int) -> Kernel:
    """A kernel for one query, of which so many blocks fit a multiprocessor."""
    kind, zero, dot = of.type, of.zero, of.dot
    factor, scaled, cosine = of.factor, of.scaled, of.cosine

    @kernel(
        name, pointer(kind), pointer(F32), pointer(kind), pointer(F32), pointer(F32), I64, I32,
        pointer(I64), I32, I32, pointer(I64), I64, pointer(I32),
        bounds=(THREADS, blocks), least=least,
    )  # fmt: skip
    def run(
        query: Any, inverse_q: Any, first: Any, norms: Any, limits: Any, total: Any, end: Any,
        table: Any, words: Any, k: Any, keys: Any, room: Any, counts: Any,
    ) -> None:  # fmt: skip
        """Eight lanes share a row, a warp has sixteen rows under way; limits: (1, k)."""
        near = cuda.shared.array(0, kind, 16)
        t = np.int32(cuda.threadIdx.x)
        for i in range(t, words, THREADS):
            near[i] = query[i]
        cuda.syncthreads()
        own = np.int32(lane()) & np.int32(7)
        limit = limits[k - 1]
        scale = inverse_q[0]
        far = np.int32(4) * words
        start = np.int32((np.int32(cuda.blockIdx.x) * 8 + (t >> np.int32(5))) * 16)
        last = np.int32(total - 1)
        entry = np.int32(0)
        while start <= last:
            end, entry = enter(start, end, table, entry)
            rows = rows_of(first, table, entry)
            inverse_v = norms_of(norms, table, entry)
            r = np.int32(start + (np.int32(lane()) >> np.int32(3)))
            # rows beyond the end: the first one instead, and its score is dropped
            r0 = min(r, last)
            at = np.int64(r0) * words
            p1, p2, p3 = r + 4 <= last, r + 8 <= last, r + 12 <= last
            o1 = far if p1 else _ZERO
            o2 = far + far if p2 else _ZERO
            o3 = far + far + far if p3 else _ZERO
            f0, f1 = factor(inverse_v, r0), factor(inverse_v, r + 4 if p1 else r0)
            f2 = factor(inverse_v, r + 8 if p2 else r0)
            f3 = factor(inverse_v, r + 12 if p3 else r0)
            s0, s1, s2, s3 = zero, zero, zero, zero
            for i in range(np.int32(4) * own, words, 32):
                v0, v1 = load4(rows, at + i), load4(rows, at + o1 + i)
                v2, v3 = load4(rows, at + o2 + i), load4(rows, at + o3 + i)
                w = load4(near, i)
                s0, s1 = dot(scaled(v0, f0), w, s0), dot(scaled(v1, f1), w, s1)
                s2, s3 = dot(scaled(v2, f2), w, s2), dot(scaled(v3, f3), w, s3)
            # Lanes give away the rows that they do not keep: after three exchanges each has the
            # sum over the eight of one row.
            low = (own & np.int32(1)) == 0
            a = (s0 if low else s1) + shuffle_xor(s1 if low else s0, 1)
            b = (s2 if low else s3) + shuffle_xor(s3 if low else s2, 1)
            low = (own & np.int32(2)) == 0
            c = (a if low else b) + shuffle_xor(b if low else a, 2)
            c += shuffle_xor(c, 4)
            row = np.int32(r + np.int32(4) * own)
            if own < 4 and row <= last:
                score = cosine(
                    c, scale, norms_of(norms, table, entry)[row], rows, row * words, words
                )
                if score >= limit:
                    place = count_up(counts, 0)
                    if place < room:
                        keys[place] = key_of(score, row)
            start = np.int32(start + np.int32(cuda.gridDim.x) * np.int32(128))

    return run


_codes = _one("scan_int8", CODES, DP4A, 4)
_floats = _one("scan_float32", FLOATS, (5, 0), 3)


@device
def _offer(
    c: Any, inverse: Any, row: Any, last: Any, q: Any, count: Any, about: Any,
    keys: Any, room: Any, counts: Any,
) -> None:  # fmt: skip
    """Append one score's key if it reaches its query's limit."""
    score = np.float32(c) * about[q] * inverse
    if score >= about[TOGETHER + q] and row <= last and q < count:
        place = count_up(counts, q)
        if place < room:
            keys[q * room + place] = key_of(score, row)


@kernel(
    "scan_int8_mma",
    pointer(I32), pointer(F32), pointer(I32), pointer(F32), pointer(F32), I32, I64, I32,
    pointer(I64), I32, I32, I32, pointer(I64), I64, pointer(I32),
    bounds=(THREADS, 2), least=(8, 0), twin=False, shared=256,
)  # fmt: skip
def _scan_together(
    query: Any, inverse_q: Any, pieces: Any, norms: Any, limits: Any, count: Any, total: Any,
    end: Any, table: Any, words: Any, stride: Any, k: Any, keys: Any, room: Any, counts: Any,
) -> None:  # fmt: skip
    """Up to 32 queries; a warp has 32 rows. `words` a row are a multiple of 16, `stride` more."""
    near = cuda.shared.array(0, I32, 16)
    about = cuda.shared.array(_ABOUT, F32)
    t = np.int32(cuda.threadIdx.x)
    for i in range(t, TOGETHER * stride, THREADS):
        q, w = i // stride, i % stride
        near[i] = query[q * words + w] if q < count and w < words else _ZERO
    if t < TOGETHER:
        about[t] = inverse_q[t] if t < count else np.float32(0.0)
        about[TOGETHER + t] = limits[t * k + k - 1] if t < count else np.float32(2.0)
    cuda.syncthreads()
    ln = np.int32(lane())
    g, part = ln >> np.int32(2), np.int32(4) * (ln & np.int32(3))
    start = np.int32((np.int32(cuda.blockIdx.x) * 8 + (t >> np.int32(5))) * 32)
    from_q = g * stride + part
    far = np.int32(8) * words
    last = np.int32(total - 1)
    entry = np.int32(0)
    while start <= last:
        end, entry = enter(start, end, table, entry)
        rows = rows_of(pieces, table, entry)
        r = np.int32(start + g)
        at = np.int64(min(r, last)) * words + part
        o1 = far if r + 8 <= last else _ZERO
        o2 = far + far if r + 16 <= last else _ZERO
        o3 = far + far + far if r + 24 <= last else _ZERO
        c = cuda.local.array(32, I32)
        for i in range(32):
            c[i] = _ZERO
        a0, a1, a2, a3 = load4(rows, at)
        b0, b1, b2, b3 = load4(rows, at + o1)
        d0, d1, d2, d3 = load4(rows, at + o2)
        e0, e1, e2, e3 = load4(rows, at + o3)
        for i in range(0, words, 16):
            ahead = at + min(np.int32(i) + np.int32(16), words - np.int32(16))
            f0, f1, f2, f3 = load4(rows, ahead)
            h0, h1, h2, h3 = load4(rows, ahead + o1)
            m0, m1, m2, m3 = load4(rows, ahead + o2)
            n0, n1, n2, n3 = load4(rows, ahead + o3)
            for j in range(4):
                x0, x1, x2, x3 = load4(near, from_q + np.int32(8 * j) * stride + np.int32(i))
                p = 8 * j
                c[p], c[p + 1], c[p + 2], c[p + 3] = mma_int8(
                    a0, b0, a1, b1, x0, x1, c[p], c[p + 1], c[p + 2], c[p + 3]
                )
                c[p], c[p + 1], c[p + 2], c[p + 3] = mma_int8(
                    a2, b2, a3, b3, x2, x3, c[p], c[p + 1], c[p + 2], c[p + 3]
                )
                c[p + 4], c[p + 5], c[p + 6], c[p + 7] = mma_int8(
                    d0, e0, d1, e1, x0, x1, c[p + 4], c[p + 5], c[p + 6], c[p + 7]
                )
                c[p + 4], c[p + 5], c[p + 6], c[p + 7] = mma_int8(
                    d2, e2, d3, e3, x2, x3, c[p + 4], c[p + 5], c[p + 6], c[p + 7]
                )
            a0, a1, a2, a3 = f0, f1, f2, f3
            b0, b1, b2, b3 = h0, h1, h2, h3
            d0, d1, d2, d3 = m0, m1, m2, m3
            e0, e1, e2, e3 = n0, n1, n2, n3
        inverse_v = norms_of(norms, table, entry)
        v0, v1 = inverse_v[min(r, last)], inverse_v[min(r + 8, last)]
        v2, v3 = inverse_v[min(r + 16, last)], inverse_v[min(r + 24, last)]
        first = np.int32(2) * (ln & np.int32(3))
        for j in range(4):
            for i in range(2):
                q = first + np.int32(8 * j + i)
                p = 8 * j + i
                _offer(c[p], v0, r, last, q, count, about, keys, room, counts)
                _offer(c[p + 2], v1, r + 8, last, q, count, about, keys, room, counts)
                _offer(c[p + 4], v2, r + 16, last, q, count, about, keys, room, counts)
                _offer(c[p + 6], v3, r + 24, last, q, count, about, keys, room, counts)
        start = np.int32(start + np.int32(cuda.gridDim.x) * np.int32(256))


@kernel(
    "scan_float32_by_16",
    pointer(F32), pointer(F32), pointer(F32), pointer(F32), pointer(F32), I32, I64, I32,
    pointer(I64), I32, I32, pointer(I64), I64, pointer(I32), bounds=(THREADS, 2), shared=64,
)  # fmt: skip
def _floats_together(
    query: Any, inverse_q: Any, first: Any, norms: Any, limits: Any, count: Any, total: Any,
    end: Any, table: Any, words: Any, k: Any, keys: Any, room: Any, counts: Any,
) -> None:  # fmt: skip
    """Up to 16 queries, each as in `_one`: eight lanes share a row, a warp has sixteen."""
    near = cuda.shared.array(0, F32, 16)
    limit = cuda.shared.array(FLOATS_TOGETHER, F32)
    t = np.int32(cuda.threadIdx.x)
    for i in range(t, FLOATS_TOGETHER * words, THREADS):
        near[i] = query[i] if i < count * words else _NO_FLOAT
    if t < FLOATS_TOGETHER:
        limit[t] = limits[t * k + k - 1] if t < count else _NO_FLOAT
    cuda.syncthreads()
    own = np.int32(lane()) & np.int32(7)
    low, high = (own & np.int32(1)) == 0, (own & np.int32(2)) == 0
    start = np.int32((np.int32(cuda.blockIdx.x) * 8 + (t >> np.int32(5))) * 16)
    last = np.int32(total - 1)
    entry = np.int32(0)
    while start <= last:
        end, entry = enter(start, end, table, entry)
        rows = rows_of(first, table, entry)
        inverse_v = norms_of(norms, table, entry)
        r = np.int32(start + (np.int32(lane()) >> np.int32(3)))
        r0 = min(r, last)
        at = np.int64(r0) * words
        p1, p2, p3 = r + 4 <= last, r + 8 <= last, r + 12 <= last
        o1 = np.int32(4 * words) if p1 else _ZERO
        o2 = np.int32(8 * words) if p2 else _ZERO
        o3 = np.int32(12 * words) if p3 else _ZERO
        f0, f1 = _factor(inverse_v, r0), _factor(inverse_v, r + 4 if p1 else r0)
        f2 = _factor(inverse_v, r + 8 if p2 else r0)
        f3 = _factor(inverse_v, r + 12 if p3 else r0)
        sums = cuda.local.array(_SUMS, F32)
        for q in range(FLOATS_TOGETHER):
            sums[4 * q], sums[4 * q + 1] = _NO_FLOAT, _NO_FLOAT
            sums[4 * q + 2], sums[4 * q + 3] = _NO_FLOAT, _NO_FLOAT
        for i in range(np.int32(4) * own, words, 32):
            v0 = _scaled(load4(rows, at + i), f0)
            v1 = _scaled(load4(rows, at + o1 + i), f1)
            v2 = _scaled(load4(rows, at + o2 + i), f2)
            v3 = _scaled(load4(rows, at + o3 + i), f3)
            for q in range(FLOATS_TOGETHER):
                w = load4(near, q * words + i)
                sums[4 * q] = _dot(v0, w, sums[4 * q])
                sums[4 * q + 1] = _dot(v1, w, sums[4 * q + 1])
                sums[4 * q + 2] = _dot(v2, w, sums[4 * q + 2])
                sums[4 * q + 3] = _dot(v3, w, sums[4 * q + 3])
        row = np.int32(r + np.int32(4) * own)
        for q in range(FLOATS_TOGETHER):
            s0, s1, s2, s3 = sums[4 * q], sums[4 * q + 1], sums[4 * q + 2], sums[4 * q + 3]
            a = (s0 if low else s1) + shuffle_xor(s1 if low else s0, 1)
            b = (s2 if low else s3) + shuffle_xor(s3 if low else s2, 1)
            c = (a if high else b) + shuffle_xor(b if high else a, 2)
            sums[q] = c + shuffle_xor(c, 4)
        for q in range(FLOATS_TOGETHER):
            c = sums[q]
            if q < count and own < 4 and row <= last:
                inverse = norms_of(norms, table, entry)[row]
                score = _cosine(c, inverse_q[q], inverse, rows, np.int64(row) * words, words)
                if score >= limit[q]:
                    place = count_up(counts, q)
                    if place < room:
                        keys[q * room + place] = key_of(score, row)
        start = np.int32(start + np.int32(cuda.gridDim.x) * np.int32(128))


def fits(rows: Rows, count: int) -> bool:
    """Whether the words of a query, or of those that go together, fit a block's shared memory.

    Of many queries of floats the latter: one after the other they cost more than `block_topk`.
    """
    if not rows.whole and count > 2:
        return _floats_together.fits(4 * FLOATS_TOGETHER * rows.words)
    return (_codes if rows.whole else _floats).fits(4 * rows.words)


@dataclass(frozen=True)
class _Way:
    """A kernel, the queries of a pass, its shared memory, and the blocks that run at once."""

    kernel: Kernel
    together: int
    shared: int
    blocks: int


def _way(rows: Rows, count: int) -> _Way:
    words = rows.words
    if rows.whole:
        one = _Way(_codes, 1, 4 * words, 4)
        many = _Way(_scan_together, TOGETHER, 4 * TOGETHER * stride_of(words), 2)
        can = not shim.SIMULATED and words % 16 == 0 and _capability() >= (8, 0)
    else:
        one = _Way(_floats, 1, 4 * words, 3)
        many = _Way(_floats_together, FLOATS_TOGETHER, 4 * FLOATS_TOGETHER * words, 2)
        can = True
    return many if count > 1 and can and many.kernel.fits(many.shared) else one


def _capability() -> tuple[int, int]:
    from llcuda_kernels.cuda.runtime import driver

    return driver.compute_capability()


def _multiprocessors() -> int:
    if shim.SIMULATED:
        return 1
    from llcuda_kernels.cuda.runtime import driver

    return driver.multiprocessors()


@dataclass(frozen=True)
class Passed:
    """What passed the limits: (queries, room) keys, and how many for each query, which may be more
    than there was room for, or fewer than k where rows of the sample hold no numbers.
    """

    keys: DeviceArray
    counts: DeviceArray
    room: int


def run(
    queries: DeviceArray, inverse_q: DeviceArray, rows: Rows, k: int, limits: DeviceArray
) -> Passed:
    """Score all rows; limits: (queries, k), the best scores of a sample. The host does not wait."""
    count, total, words = queries.shape[0], rows.total, rows.words
    room = ROOM * k
    keys, counts = empty((count, room), np.int64), filled((count,), np.int32, 0)
    way = _way(rows, count)
    first, inverse = rows.addresses()
    if coarse.takes(rows, count) and not shim.SIMULATED and _capability() >= (8, 0):
        coarse.run(queries, inverse_q, rows, k, limits, keys, counts, _multiprocessors())
        return Passed(keys, counts, room)
    given = queries.view(np.int32, (count, words)) if rows.whole else queries
    step = 256 if way.kernel is _scan_together else 128
    blocks = max(1, min(way.blocks * _multiprocessors(), divide_up(total, step)))
    for q in range(0, count, way.together):
        where = at(given, q * words), at(inverse_q, q), first, inverse, at(limits, q * k)
        now = () if way.together == 1 else (min(way.together, count - q),)
        size = (words, stride_of(words)) if way.kernel is _scan_together else (words,)
        way.kernel.launch(
            blocks, THREADS, *where, *now, total, rows.end, rows.table, *size, k,
            at(keys, q * room), room, at(counts, q), shared=way.shared,
        )  # fmt: skip
    return Passed(keys, counts, room)

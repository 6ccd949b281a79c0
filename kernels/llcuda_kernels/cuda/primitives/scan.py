"""The second half of a large search: every row against a limit that is known already.

The k-th best score in a sample of the rows is a limit that the k best of all rows reach. So each
row is scored and, if it reaches the limit, its key is appended to a list in global memory; no block
sorts or waits. Of random rows k in a sample's worth do, some hundreds in all; then the list is
searched. The lists have an end: when rows lie so that more pass (the best last, say), the caller is
told, and searches in the robust way.

With one query the dot products are dp4a's. With several, and tensor cores, they are products of
matrices:

::

    mma 16x8x32: 16 rows (A, from global memory into registers) by 8 queries (B, in shared memory)

A sum does not mind the order of its terms, so a lane gives mma 16 neighbouring bytes of its row in
four words, and the same bytes of the query: what mma takes for k = 4t and 16 + 4t may be any bytes,
as long as A and B agree. That is one load of 16 bytes for two mma.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import DeviceArray, at, empty
from llcuda_kernels.cuda.runtime.intrinsics import (
    count_up,
    dp4a,
    lane,
    load4,
    mma_int8,
    shuffle_xor,
)
from llcuda_kernels.cuda.runtime.kernel import divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .topk import key_of

THREADS = 256
#: From so many rows on a sample pays.
LEAST_ROWS = 1 << 18 if not shim.SIMULATED else 1 << 10
#: Keys a list holds, for each of the k.
ROOM = 2048
#: Queries of one pass on tensor cores.
TOGETHER = 32
_ABOUT = 2 * TOGETHER
_ZERO = np.int32(0)


def sample(total: int) -> int:
    """How many rows the limit is found from."""
    return max(LEAST_ROWS // 8, total // 128 // 128 * 128)


@device
def _dot16(a: Any, b: Any, total: Any) -> Any:
    total = dp4a(a[0], b[0], total)
    total = dp4a(a[1], b[1], total)
    total = dp4a(a[2], b[2], total)
    return dp4a(a[3], b[3], total)


@kernel(
    "scan_int8",
    pointer(I32), pointer(F32), pointer(I32), pointer(F32), pointer(F32), I64, I32, I32,
    pointer(I64), I64, pointer(I32), bounds=(THREADS, 4), least=(6, 1),
)  # fmt: skip
def _scan(
    query: Any, inverse_q: Any, rows: Any, inverse_v: Any, limits: Any, total: Any, words: Any,
    k: Any, keys: Any, room: Any, counts: Any,
) -> None:  # fmt: skip
    """One query. Eight lanes share a row, a warp has sixteen rows under way; limits: (1, k)."""
    near = cuda.shared.array(0, I32, 16)
    t = np.int32(cuda.threadIdx.x)
    for i in range(t, words, THREADS):
        near[i] = query[i]
    cuda.syncthreads()
    own = np.int32(lane()) & np.int32(7)
    warp = np.int64(cuda.blockIdx.x) * 8 + (t >> np.int32(5))
    limit = limits[k - 1]
    scale = inverse_q[0]
    far = np.int32(4) * words
    start = warp * 16
    while start < total:
        r = start + (np.int32(lane()) >> np.int32(3))
        # rows beyond the end: the first one instead, and its score is dropped
        base = min(r, total - 1) * words
        o1 = far if r + 4 < total else _ZERO
        o2 = far + far if r + 8 < total else _ZERO
        o3 = far + far + far if r + 12 < total else _ZERO
        s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
        for i in range(np.int32(4) * own, words, 32):
            v0, v1 = load4(rows, base + i), load4(rows, base + o1 + i)
            v2, v3 = load4(rows, base + o2 + i), load4(rows, base + o3 + i)
            w = load4(near, i)
            s0, s1 = _dot16(v0, w, s0), _dot16(v1, w, s1)
            s2, s3 = _dot16(v2, w, s2), _dot16(v3, w, s3)
        # Lanes give away the rows that they do not keep: after three exchanges each has the sum
        # over the eight of one row.
        low = (own & np.int32(1)) == 0
        a = (s0 if low else s1) + shuffle_xor(s1 if low else s0, 1)
        b = (s2 if low else s3) + shuffle_xor(s3 if low else s2, 1)
        low = (own & np.int32(2)) == 0
        c = (a if low else b) + shuffle_xor(b if low else a, 2)
        c += shuffle_xor(c, 4)
        row = r + 4 * np.int64(own)
        if own < 4 and row < total:
            score = np.float32(c) * scale * inverse_v[row]
            if score >= limit:
                place = count_up(counts, 0)
                if place < room:
                    keys[place] = key_of(score, row)
        start += np.int64(cuda.gridDim.x) * 128


@device
def _offer(
    c: Any, inverse: Any, row: Any, total: Any, q: Any, count: Any, near: Any, at_limits: Any,
    keys: Any, room: Any, counts: Any,
) -> None:  # fmt: skip
    """Append one score's key if it reaches its query's limit."""
    score = np.float32(c) * near[q] * inverse
    if score >= near[at_limits + q] and row < total and q < count:
        place = count_up(counts, q)
        if place < room:
            keys[q * room + place] = key_of(score, row)


@kernel(
    "scan_int8_mma",
    pointer(I32), pointer(F32), pointer(I32), pointer(F32), pointer(F32), I32, I64, I32, I32, I32,
    pointer(I64), I64, pointer(I32), bounds=(THREADS, 2), least=(8, 0), twin=False, shared=256,
)  # fmt: skip
def _scan_together(
    query: Any, inverse_q: Any, rows: Any, inverse_v: Any, limits: Any, count: Any, total: Any,
    words: Any, stride: Any, k: Any, keys: Any, room: Any, counts: Any,
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
    start = (np.int64(cuda.blockIdx.x) * 8 + (t >> np.int32(5))) * 32
    from_q = g * stride + part
    far = np.int32(8) * words
    while start < total:
        r = start + g
        base = min(r, total - 1) * words + part
        o1 = far if r + 8 < total else _ZERO
        o2 = far + far if r + 16 < total else _ZERO
        o3 = far + far + far if r + 24 < total else _ZERO
        c = cuda.local.array(32, I32)
        for i in range(32):
            c[i] = _ZERO
        a0, a1, a2, a3 = load4(rows, base)
        b0, b1, b2, b3 = load4(rows, base + o1)
        d0, d1, d2, d3 = load4(rows, base + o2)
        e0, e1, e2, e3 = load4(rows, base + o3)
        for i in range(0, words, 16):
            ahead = base + min(np.int32(i) + np.int32(16), words - np.int32(16))
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
        last = total - 1
        v0, v1 = inverse_v[min(r, last)], inverse_v[min(r + 8, last)]
        v2, v3 = inverse_v[min(r + 16, last)], inverse_v[min(r + 24, last)]
        first = np.int32(2) * (ln & np.int32(3))
        for j in range(4):
            for i in range(2):
                q = first + np.int32(8 * j + i)
                p = 8 * j + i
                _offer(c[p], v0, r, total, q, count, about, TOGETHER, keys, room, counts)
                _offer(c[p + 2], v1, r + 8, total, q, count, about, TOGETHER, keys, room, counts)
                _offer(c[p + 4], v2, r + 16, total, q, count, about, TOGETHER, keys, room, counts)
                _offer(c[p + 6], v3, r + 24, total, q, count, about, TOGETHER, keys, room, counts)
        start += np.int64(cuda.gridDim.x) * 256


def fits(words: int) -> bool:
    """Whether one query's words fit a block."""
    return _scan.fits(4 * words)


def _stride(words: int) -> int:
    """Words from one query to the next in shared memory, so that they lie in different banks."""
    return words + (16 if words % 32 == 0 else 32)


def _device_can(words: int) -> tuple[bool, int, int]:
    """Whether tensor cores may be used, and the blocks that run at once of either kernel."""
    if shim.SIMULATED:
        return False, 2, 2
    from llcuda_kernels.cuda.runtime import driver

    fit = words % 16 == 0 and _scan_together.fits(4 * TOGETHER * _stride(words))
    many = driver.multiprocessors()
    return driver.compute_capability() >= (8, 0) and fit, 4 * many, 2 * many


def run(
    queries: DeviceArray, inverse_q: DeviceArray, rows: DeviceArray, inverse_v: DeviceArray,
    k: int, scores: DeviceArray, found: DeviceArray, merge: Any,
) -> bool:  # fmt: skip
    """Search all rows with the sample's `scores` as limits; whether the lists held what passed."""
    count, total = queries.shape[0], rows.shape[0]
    words = rows.shape[1] // 4
    room = ROOM * k
    keys = empty((count, room), np.int64)
    counts = _cleared(count)
    tensor, blocks_one, blocks_many = _device_can(words)
    together = tensor and count > 1
    for first in range(0, count, TOGETHER if together else 1):
        given = at(queries, 0).view(np.int32)[first * words :] if shim.SIMULATED else (
            queries.address + first * words * 4
        )  # fmt: skip
        v = rows.address.view(np.int32) if shim.SIMULATED else rows.address
        where = at(inverse_q, first), v, inverse_v.address, at(scores, first * k)
        to = at(keys, first * room), room, at(counts, first)
        if together:
            now = min(TOGETHER, count - first)
            stride = _stride(words)
            blocks = max(1, min(blocks_many, divide_up(total, 256)))
            _scan_together.launch(
                blocks, THREADS, given, *where, now, total, words, stride, k, *to,
                shared=TOGETHER * stride * 4,
            )  # fmt: skip
        else:
            blocks = max(1, min(blocks_one, divide_up(total, 128)))
            _scan.launch(blocks, THREADS, given, *where, total, words, k, *to, shared=words * 4)
    merge.launch(
        count, THREADS, keys.address, room, counts.address, 1, k, scores.address, found.address
    )
    seen = counts.copy_to_host()
    return bool((seen >= k).all() and (seen <= room).all())


def _cleared(count: int) -> DeviceArray:
    made = empty((count,), np.int32)
    if shim.SIMULATED:
        made.address[:] = 0
    else:
        from llcuda_kernels.cuda.runtime import driver

        driver.fill(made.address, 0, made.nbytes)
    return made

"""Many queries of floats on tensor cores: coarse scores first, exact ones of what may pass.

A product of matrices in TF32 keeps 10 bits of each number's fraction. Rows are brought to length 1
as they are read, and queries have it, so that such a score is off by less than `MARGIN`: a number
cut to 10 bits is off by 2⁻¹⁰ of itself, one rounded to them by 2⁻¹¹, and the sum of the products'
sizes is 1 at most (Cauchy and Schwarz). What comes within the margin of a query's limit is noted,
and scored once more by eight lanes a row, with the same sums in the same order as everywhere: the
scan finds what one in float32 finds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.primitives.topk import key_of
from llcuda_kernels.cuda.runtime.array import DeviceArray, at, empty, filled
from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    copy_async16,
    copy_commit,
    copy_wait,
    count_up,
    float_bits,
    lane,
    load4,
    mma_tf32,
    shared_address,
    shuffle_xor,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .row_kinds import FLOATS, LARGEST, LEAST
from .segments import Rows, enter, norms_of, rows_of

THREADS, MOST_THREADS = 256, 512
#: Queries of a pass.
TOGETHER = 32
#: Fewer warps than these a multiprocessor would wait for memory.
LEAST_WARPS = 4
#: Blocks for the rows noted for one query.
CHECKING = 16
#: More than a coarse score is off by; the rest of it is for the sums, of some thousand numbers.
MARGIN = np.float32(2.0**-9)
_NONE, _ZERO = np.int32(0), np.float32(0.0)
_factor, _scaled, _dot, _cosine = FLOATS.factor, FLOATS.scaled, FLOATS.dot, FLOATS.cosine


@device
def _times(near: Any, at: Any, f: Any) -> Any:
    """The bits of four numbers times a row's factor."""
    a, b, c, d = load4(near, at)
    return (
        float_bits(bits_float(a) * f),
        float_bits(bits_float(b) * f),
        float_bits(bits_float(c) * f),
        float_bits(bits_float(d) * f),
    )


@device
def _odd(inverse: Any) -> Any:
    """Whether a row's coarse score says nothing, since a float cannot hold its inverse norm."""
    return inverse > LARGEST or (inverse < LEAST and inverse > _ZERO)


@device
def _note(
    c: Any, odd: Any, row: Any, last: Any, q: Any, count: Any, limit: Any, noted: Any, room: Any,
    counts: Any,
) -> None:  # fmt: skip
    """Note a row that may reach its query's limit."""
    if (c >= limit[q] or odd) and row <= last and q < count:
        place = count_up(counts, q)
        if place < room:
            noted[q * room + place] = row


@device
def _bring(to: Any, rows: Any, at: Any, o1: Any, o2: Any, o3: Any) -> None:
    copy_async16(to, rows, at)
    copy_async16(to + np.int32(512), rows, at + o1)
    copy_async16(to + np.int32(1024), rows, at + o2)
    copy_async16(to + np.int32(1536), rows, at + o3)


def _scan(name: str, depth: int, ring: int) -> Kernel:
    held = 512 * depth  # words of a step of a warp
    whole, pending = held * ring, ring - 1

    @kernel(
        name,
        pointer(F32), pointer(F32), pointer(F32), pointer(F32), I32, I64, I32, pointer(I64), I32,
        I32, I32, pointer(I32), I64, pointer(I32),
        bounds=(MOST_THREADS, 1), least=(8, 0), twin=False, shared=128,
    )  # fmt: skip
    def run(
        query: Any, first: Any, norms: Any, limits: Any, count: Any, total: Any, end: Any,
        table: Any, words: Any, stride: Any, k: Any, noted: Any, room: Any, counts: Any,
    ) -> None:  # fmt: skip
        """Up to 32 queries; a warp has 32 rows. `words` a row are a multiple of 16, `stride` more.

        A lane copies the numbers of its rows for the next steps to a place of its own in shared
        memory, so that no thread waits for another.
        """
        near = cuda.shared.array(0, I32, 16)
        limit = cuda.shared.array(TOGETHER, F32)
        t, threads = np.int32(cuda.threadIdx.x), np.int32(cuda.blockDim.x)
        for i in range(t, TOGETHER * stride, threads):
            q, w = i // stride, i % stride
            bits = float_bits(query[q * words + w]) if q < count and w < words else _NONE
            near[i] = (bits + np.int32(0x1000)) & np.int32(-0x2000)  # rounded to 10 bits
        if t < TOGETHER:
            limit[t] = limits[t * k + k - 1] - MARGIN if t < count else np.float32(2.0)
        cuda.syncthreads()
        ln, warp = np.int32(lane()), np.int32(t >> np.int32(5))
        g, part = ln >> np.int32(2), np.int32(4) * (ln & np.int32(3))
        start = np.int32(np.int32(cuda.blockIdx.x) * threads + np.int32(32) * warp)
        own = np.int32(TOGETHER * stride + np.int32(whole) * warp + np.int32(4) * ln)
        to = np.int32(shared_address(near) + np.int32(4) * own)
        from_q = g * stride + part
        far = np.int32(8) * words
        last, most = np.int32(total - 1), np.int32(words - np.int32(16))
        entry = np.int32(0)
        while start <= last:
            end, entry = enter(start, end, table, entry)
            rows = rows_of(first, table, entry)
            inverse_v = norms_of(norms, table, entry)
            r = np.int32(start + g)
            r0 = min(r, last)
            at = np.int64(r0) * words + part
            p1, p2, p3 = r + 8 <= last, r + 16 <= last, r + 24 <= last
            o1 = far if p1 else _NONE
            o2 = far + far if p2 else _NONE
            o3 = far + far + far if p3 else _NONE
            i0, i1 = inverse_v[r0], inverse_v[r + 8 if p1 else r0]
            i2, i3 = inverse_v[r + 16 if p2 else r0], inverse_v[r + 24 if p3 else r0]
            f0, f1, f2, f3 = min(i0, LARGEST), min(i1, LARGEST), min(i2, LARGEST), min(i3, LARGEST)
            c = cuda.local.array(32, F32)
            for i in range(32):
                c[i] = _ZERO
            for s in range(ring - 1):
                for d in range(depth):
                    ahead = at + min(np.int32(16 * (depth * s + d)), most)
                    _bring(to + np.int32(2048 * (depth * s + d)), rows, ahead, o1, o2, o3)
                copy_commit()
            now, later = np.int32(0), np.int32((ring - 1) * held)
            for i in range(0, words, 16 * depth):
                for d in range(depth):
                    coming = np.int32(i) + np.int32(16 * (depth * (ring - 1) + d))
                    place = to + np.int32(4) * later + np.int32(2048 * d)
                    _bring(place, rows, at + min(coming, most), o1, o2, o3)
                copy_commit()
                copy_wait(pending)
                for d in range(depth):
                    if np.int32(i) + np.int32(16 * d) < words:
                        here = np.int32(own + now + np.int32(512 * d))
                        a0, a1, a2, a3 = _times(near, here, f0)
                        b0, b1, b2, b3 = _times(near, here + np.int32(128), f1)
                        d0, d1, d2, d3 = _times(near, here + np.int32(256), f2)
                        e0, e1, e2, e3 = _times(near, here + np.int32(384), f3)
                        of_q = np.int32(from_q + np.int32(i) + np.int32(16 * d))
                        for j in range(4):
                            x0, x1, x2, x3 = load4(near, of_q + np.int32(8 * j) * stride)
                            p = 8 * j
                            c[p], c[p + 1], c[p + 2], c[p + 3] = mma_tf32(
                                a0, b0, a1, b1, x0, x1, c[p], c[p + 1], c[p + 2], c[p + 3]
                            )
                            c[p], c[p + 1], c[p + 2], c[p + 3] = mma_tf32(
                                a2, b2, a3, b3, x2, x3, c[p], c[p + 1], c[p + 2], c[p + 3]
                            )
                            p = 8 * j + 4
                            c[p], c[p + 1], c[p + 2], c[p + 3] = mma_tf32(
                                d0, e0, d1, e1, x0, x1, c[p], c[p + 1], c[p + 2], c[p + 3]
                            )
                            c[p], c[p + 1], c[p + 2], c[p + 3] = mma_tf32(
                                d2, e2, d3, e3, x2, x3, c[p], c[p + 1], c[p + 2], c[p + 3]
                            )
                now = np.int32(now + np.int32(held))
                now = now if now < whole else _NONE
                later = np.int32(later + np.int32(held))
                later = later if later < whole else _NONE
            copy_wait(0)
            k0, k1, k2, k3 = _odd(i0), _odd(i1), _odd(i2), _odd(i3)
            of_lane = np.int32(2) * (ln & np.int32(3))
            for j in range(4):
                for i in range(2):
                    q = of_lane + np.int32(8 * j + i)
                    p = 8 * j + i
                    _note(c[p], k0, r, last, q, count, limit, noted, room, counts)
                    _note(c[p + 2], k1, r + 8, last, q, count, limit, noted, room, counts)
                    _note(c[p + 4], k2, r + 16, last, q, count, limit, noted, room, counts)
                    _note(c[p + 6], k3, r + 24, last, q, count, limit, noted, room, counts)
            start = np.int32(start + np.int32(cuda.gridDim.x) * threads)

    return run


#: 128 bytes of a row come together: a line of the cache.
SCAN = _scan("scan_float32_mma", 2, 2)
#: Shared memory that a warp takes.
A_WARP = 8192


@kernel(
    "scan_float32_check",
    pointer(F32), pointer(F32), pointer(F32), pointer(F32), pointer(F32), I32, pointer(I64), I32,
    I32, pointer(I32), I64, pointer(I32), pointer(I64), I64, pointer(I32),
    bounds=THREADS,
)  # fmt: skip
def _check(
    query: Any, inverse_q: Any, first: Any, norms: Any, limits: Any, end: Any, table: Any,
    words: Any, k: Any, noted: Any, most: Any, found: Any, keys: Any, room: Any, counts: Any,
) -> None:  # fmt: skip
    """Block (of rows, query): the rows noted, exactly; eight lanes share a row.

    Of a query for which more were noted than there was room for, none is known: its count says so.
    """
    t = np.int32(cuda.threadIdx.x)
    q = np.int64(cuda.blockIdx.y)
    there = np.int64(found[q])
    if there > most:
        if t == 0:
            counts[q] = np.int32(0x40000000)
        return
    limit = limits[q * k + k - 1]
    own = np.int32(lane()) & np.int32(7)
    step = np.int64(cuda.gridDim.x) * (THREADS // 8)
    # all lanes of a warp go on together: those without a row take the last one again
    at = np.int64(cuda.blockIdx.x) * (THREADS // 8) + (t >> np.int32(3))
    rounds = (there + step - 1) // step
    for _round in range(rounds):
        row = noted[q * most + min(at, there - 1)]
        _, entry = enter(row, end, table, np.int32(0))
        rows = rows_of(first, table, entry)
        inverse = norms_of(norms, table, entry)[row]
        base = np.int64(row) * words
        f, c = min(inverse, LARGEST), _ZERO
        for i in range(np.int32(4) * own, words, 32):
            c = _dot(_scaled(load4(rows, base + i), f), load4(query, q * words + i), c)
        c += shuffle_xor(c, 1)
        c += shuffle_xor(c, 2)
        c += shuffle_xor(c, 4)
        if own == 0 and at < there:
            score = _cosine(c, inverse_q[q], inverse, rows, base, words)
            if score >= limit:
                place = count_up(counts, q)
                if place < room:
                    keys[q * room + place] = key_of(score, row)
        at += step


def stride_of(words: int) -> int:
    """Words from one query to the next in shared memory, so that they lie in different banks."""
    return words + (16 if words % 32 == 0 else 32)


def _warps(words: int) -> tuple[int, int]:
    """How many warps have room beside the queries, and the shared memory that all take."""
    queries = 4 * TOGETHER * stride_of(words)
    able = (w for w in range(MOST_THREADS // 32, 0, -1) if SCAN.fits(queries + A_WARP * w))
    warps = next(able, 0)
    return warps, queries + A_WARP * warps


def takes(rows: Rows, count: int) -> bool:
    """Whether it pays: for several queries of floats, and rows in whole steps that fit."""
    words = rows.words
    return not rows.whole and count > 1 and words % 16 == 0 and _warps(words)[0] >= LEAST_WARPS


def run(
    queries: DeviceArray, inverse_q: DeviceArray, rows: Rows, k: int, best: DeviceArray,
    keys: DeviceArray, counts: DeviceArray, blocks: int,
) -> None:  # fmt: skip
    """As `scan.run`: best: (queries, k); keys: (queries, room); counts begin as 0."""
    (count, words), room = queries.shape, keys.shape[1]
    first, inverse = rows.addresses()
    most = 2 * room
    noted, found = empty((count, most), np.int32), filled((count,), np.int32, 0)
    warps, shared = _warps(words)
    for q in range(0, count, TOGETHER):
        SCAN.launch(
            blocks, 32 * warps,
            at(queries, q * words), first, inverse, at(best, q * k), min(TOGETHER, count - q),
            rows.total, rows.end, rows.table, words, stride_of(words), k, at(noted, q * most), most,
            at(found, q), shared=shared,
        )  # fmt: skip
    look_again(queries, inverse_q, rows, k, best, noted, found, keys, counts)


def look_again(
    queries: DeviceArray, inverse_q: DeviceArray, rows: Rows, k: int, best: DeviceArray,
    noted: DeviceArray, found: DeviceArray, keys: DeviceArray, counts: DeviceArray,
) -> None:  # fmt: skip
    """Score the rows noted, (queries, most), exactly, and keep the keys of what reaches `best`."""
    (count, words), most, room = queries.shape, noted.shape[1], keys.shape[1]
    _check.launch(
        (CHECKING, count), THREADS,
        queries.address, inverse_q.address, *rows.addresses(), best.address, rows.end, rows.table,
        words, k, noted.address, most, found.address, keys.address, room, counts.address,
    )  # fmt: skip

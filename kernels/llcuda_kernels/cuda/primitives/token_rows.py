"""Token statistics of many short rows: a warp a row, and the k greatest of each.

A lane has sixteen of every 512 numbers; it adds them up (`online_sums`) and notes the greatest of
each part of the row: a cell. A limit that k numbers reach is, for few, the k-th greatest of what
the lanes saw, and else that of the cells, found bit by bit. The warp reads the cells that reach it
once more (they are in the cache) and finds each number's place by counting who is greater. No warp
waits for another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import (
    ballot,
    bits_float,
    bits_set,
    float_bits,
    greater,
    lane,
    load4,
    shuffle,
    shuffle_xor,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .online_sums import LOWEST, add4, add_one, greatest4, scaled
from .reductions import warp_max, warp_sum
from .topk import NOTHING, index_of, key_of, value_of

THREADS, WARPS = 256, 8
#: Numbers a warp takes in one step, and the parts of a row, beside what no step reached.
STEP, CELLS = 512, 8
#: Up to this k the greatest of each lane are enough to find a limit.
BY_LANES = 24
_PARTS = CELLS + 1
_EACH = 32 * _PARTS
_ROOM = 256
_CELLS, _KEYS = WARPS * _EACH, WARPS * _ROOM
_INF = np.float32(np.inf)
_ZERO = np.float32(0.0)
_ALL = np.int32(0x7FFFFFFF)


@device
def _ordered(x: Any) -> Any:
    bits = float_bits(x)
    return np.int32(bits if bits >= 0 else bits ^ _ALL)


@device
def _sixteen(x: Any, start: Any, vectors: Any) -> Any:
    ln = np.int32(lane())
    if vectors != 0:
        i = start + np.int32(4) * ln
        a0, a1, a2, a3 = load4(x, i)
        b0, b1, b2, b3 = load4(x, i + 128)
        c0, c1, c2, c3 = load4(x, i + 256)
        d0, d1, d2, d3 = load4(x, i + 384)
    else:
        i = start + ln
        a0, a1, a2, a3 = x[i], x[i + 32], x[i + 64], x[i + 96]
        b0, b1, b2, b3 = x[i + 128], x[i + 160], x[i + 192], x[i + 224]
        c0, c1, c2, c3 = x[i + 256], x[i + 288], x[i + 320], x[i + 352]
        d0, d1, d2, d3 = x[i + 384], x[i + 416], x[i + 448], x[i + 480]
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@device
def _take(v: Any, i: Any, limit: Any, keys: Any, base: Any, counts: Any, warp: Any) -> None:
    if v >= limit:
        place = cuda.atomic.add(counts, warp, 1)
        if place < _ROOM:
            keys[base + place] = key_of(v, i)


@device
def _lane_limit(m: Any, k: Any) -> Any:
    """The k-th greatest of what the lanes have seen."""
    above, equal = np.int32(0), np.int32(0)
    for i in range(32):
        other = shuffle(m, i)
        above += np.int32(1) if other > m else np.int32(0)
        equal += np.int32(1) if other == m else np.int32(0)
    found = warp_max(m if above < k and above + equal >= k else LOWEST)
    # where fewer than k lanes have seen numbers, all numbers count
    return found if found > LOWEST else -_INF


@device
def _limit(cells: Any, base: Any, used: Any, k: Any) -> Any:
    """A number that at least k cells reach and hardly more: bit by bit from the highest on."""
    ln = np.int32(lane())
    own = cuda.local.array(_PARTS, I32)
    for j in range(_PARTS):
        own[j] = _ordered(cells[base + 32 * j + ln] if j <= used else LOWEST)
    least = np.int32(-0x80000000)
    bit, done = np.int32(31), np.int32(0)
    while bit >= 0 and done == 0:
        more = np.int32(least + np.int32(np.int32(1) << bit))
        count = np.int32(0)
        for j in range(_PARTS):
            count += np.int32(bits_set(ballot(own[j] >= more)))
        if count >= k:
            least = more
            done = np.int32(1) if count == k else np.int32(0)
        bit = np.int32(bit - np.int32(1))
    found = bits_float(np.int32(least if least >= 0 else least ^ _ALL))
    # where fewer than k cells hold numbers, all numbers count
    return found if found > LOWEST else -_INF


@device
def _again(x: Any, base: Any, n: Any, k: Any, to: Any, values: Any, indices: Any) -> None:
    """The k greatest one after the other: where too many are equal, or nearly."""
    ln = np.int32(lane())
    before = np.int64(0x7FFFFFFFFFFFFFFF)
    for r in range(k):
        best = NOTHING
        for i in range(ln, n, 32):
            v = x[base + i]
            if v == v:
                key = key_of(v, i)
                if key < before and key > best:
                    best = key
        for s in range(5):
            other = shuffle_xor(best, np.int32(1) << np.int32(s))
            best = other if other > best else best
        if ln == 0:
            values[to + r] = -_INF if best == NOTHING else value_of(best)
            indices[to + r] = -1 if best == NOTHING else np.int32(index_of(best))
        before = best


def _rows(name: str, top: bool) -> Kernel:
    @kernel(
        name, pointer(F32), I64, I32, I32, I32, pointer(F32), pointer(F32), pointer(I32),
        bounds=(THREADS, 4 if top else 6), shared=34848 if top else 0,
    )  # fmt: skip
    def run(
        x: Any, rows: Any, n: Any, vectors: Any, k: Any, parts: Any, values: Any, indices: Any
    ) -> None:
        """parts: (rows, 1, 3), as those of rows in shares; values and indices: (rows, k)."""
        warp, ln = np.int32(cuda.threadIdx.x) >> np.int32(5), np.int32(lane())
        row = np.int64(cuda.blockIdx.x) * WARPS + warp
        if row >= rows:
            return
        base = row * n
        if top:
            cells = cuda.shared.array(_CELLS, F32)
            chosen = cuda.shared.array(_CELLS, I32)
            keys = cuda.shared.array(_KEYS, I64)
            counts = cuda.shared.array(WARPS, I32)
            mine = np.int32(warp * np.int32(_EACH))
            list_ = np.int32(warp * np.int32(_ROOM))
            if ln == 0:
                counts[warp] = 0
        steps = np.int32(n // np.int32(STEP))
        shift = np.int32(0)  # a cell is a power of two of steps
        while np.int32(np.int32(CELLS) << shift) < steps:
            shift = np.int32(shift + np.int32(1))
        per = np.int32(np.int32(1) << shift)
        m, s, u = LOWEST, _ZERO, _ZERO
        cell, inside, used = LOWEST, np.int32(0), np.int32(0)
        for step in range(steps):
            a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = _sixteen(
                x, base + np.int64(step) * STEP, vectors
            )
            best = greater(
                greater(greatest4(a0, a1, a2, a3), greatest4(b0, b1, b2, b3)),
                greater(greatest4(c0, c1, c2, c3), greatest4(d0, d1, d2, d3)),
            )
            if best > m:
                s, u = scaled(s, u, m, best)
                m = best
            s, u = add4(s, u, m, a0, a1, a2, a3)
            s, u = add4(s, u, m, b0, b1, b2, b3)
            s, u = add4(s, u, m, c0, c1, c2, c3)
            s, u = add4(s, u, m, d0, d1, d2, d3)
            if top:
                cell = greater(cell, best)
                inside = np.int32(inside + np.int32(1))
                if inside == per:
                    cells[mine + np.int32(32) * used + ln] = cell
                    cell, inside, used = LOWEST, np.int32(0), np.int32(used + np.int32(1))
        if top:
            if inside > 0:
                cells[mine + np.int32(32) * used + ln] = cell
                used = np.int32(used + np.int32(1))
            cell = LOWEST
        tail = np.int32(steps * np.int32(STEP))
        if vectors != 0:
            for i in range(tail + np.int32(4) * ln, n, 128):
                a, b, c, d = load4(x, base + i)
                best = greatest4(a, b, c, d)
                if best > m:
                    s, u = scaled(s, u, m, best)
                    m = best
                s, u = add4(s, u, m, a, b, c, d)
                cell = greater(cell, best)
        else:
            for i in range(tail + ln, n, 32):
                v = x[base + i]
                if v > m:
                    s, u = scaled(s, u, m, v)
                    m = v
                s, u = add_one(s, u, m, v)
                cell = greater(cell, v)
        all_m = warp_max(m)
        s, u = scaled(s, u, m, all_m)
        s, u = warp_sum(s), warp_sum(u)
        if ln == 0:
            parts[3 * row] = all_m
            parts[3 * row + 1] = s
            parts[3 * row + 2] = u
        if top:
            if used <= CELLS:
                cells[mine + np.int32(32) * used + ln] = cell
            cuda.syncwarp()
            limit = _lane_limit(m, k) if k <= BY_LANES else _limit(cells, mine, used, k)
            many = np.int32(0)
            below = (np.int64(1) << np.int64(ln)) - np.int64(1)
            for j in range(used):
                reaches = cells[mine + np.int32(32) * np.int32(j) + ln] >= limit
                mask = ballot(reaches)
                if reaches:
                    place = mine + many + np.int32(bits_set(mask & below))
                    chosen[place] = np.int32(32) * np.int32(j) + ln
                many = np.int32(many + np.int32(bits_set(mask)))
            cuda.syncwarp()
            for item in range(ln, many * (per << np.int32(2)), 32):
                which = chosen[mine + (np.int32(item) >> (shift + np.int32(2)))]
                part = np.int32(item) & np.int32(np.int32(4 * per) - np.int32(1))
                begun = np.int32(which >> np.int32(5)) * per + (part >> np.int32(2))
                if begun < steps:
                    at = np.int32(begun * np.int32(STEP) + np.int32(128) * (part & np.int32(3)))
                    whose = np.int32(which & np.int32(31))
                    if vectors != 0:
                        at = np.int32(at + np.int32(4) * whose)
                        a, b, c, d = load4(x, base + at)
                        apart = np.int32(1)
                    else:
                        at = np.int32(at + whose)
                        a, b = x[base + at], x[base + at + 32]
                        c, d = x[base + at + 64], x[base + at + 96]
                        apart = np.int32(32)
                    _take(a, at, limit, keys, list_, counts, warp)
                    _take(b, at + apart, limit, keys, list_, counts, warp)
                    _take(c, at + 2 * apart, limit, keys, list_, counts, warp)
                    _take(d, at + 3 * apart, limit, keys, list_, counts, warp)
            if cell >= limit:
                if vectors != 0:
                    for i in range(tail + np.int32(4) * ln, n, 128):
                        a, b, c, d = load4(x, base + i)
                        _take(a, i, limit, keys, list_, counts, warp)
                        _take(b, i + 1, limit, keys, list_, counts, warp)
                        _take(c, i + 2, limit, keys, list_, counts, warp)
                        _take(d, i + 3, limit, keys, list_, counts, warp)
                else:
                    for i in range(tail + ln, n, 32):
                        _take(x[base + i], i, limit, keys, list_, counts, warp)
            cuda.syncwarp()
            found = counts[warp]
            to = row * k
            if found <= _ROOM:
                for i in range(ln, found, 32):
                    key = keys[list_ + i]
                    better = np.int32(0)
                    for j in range(found):
                        better += np.int32(1) if keys[list_ + j] > key else np.int32(0)
                    if better < k:
                        values[to + better] = value_of(key)
                        indices[to + better] = np.int32(index_of(key))
                for i in range(found + ln, k, 32):
                    values[to + i] = -_INF
                    indices[to + i] = -1
            else:
                _again(x, base, n, k, to, values, indices)

    return run


PLAIN = _rows("token_statistics_rows", False)
TOP = _rows("token_statistics_rows_topk", True)

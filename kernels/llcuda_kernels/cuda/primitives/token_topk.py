"""The k greatest of each row, up to k = 128, found in what a pass over the row noted of it.

`token_statistics` reads a share of a row once, and notes the greatest number that each thread saw
in each part: a cell. From that `take_greatest` reads the few cells that can hold one of the k
greatest a second time, and `merge_shares` puts the shares of a row together. `offer_step` works for
any k and any number of equals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import greater, lane, load4
from llcuda_kernels.cuda.runtime.kernel import kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .online_sums import LOWEST
from .reductions import warp_max
from .topk import NOTHING, clear, cut, in_use, index_of, key_of, sort_descending, value_of

THREADS = 256
#: Numbers a block takes in one step: four vectors of four a thread.
STEP = 16 * THREADS
_SUBSTEP = 4 * THREADS
#: Parts of a share of which each thread notes its greatest number, beside what no step reached.
CELLS = 8
_INF = np.float32(np.inf)
_BUFFER, _CHOSEN = 2048, 512
#: A cell's number is that of its part, and in the low bits its thread's.
_BLOCK, _THREAD = np.int32(8), np.int32(THREADS - 1)
_WARPS = THREADS // 32


@device
def offer_step(
    x: Any, base: Any, first: Any, last: Any, keys: Any, counts: Any, limits: Any, k: Any,
    buffer: Any,
) -> None:  # fmt: skip
    """Offer the numbers of one step in parts that the buffer can take. All threads."""
    t = np.int32(cuda.threadIdx.x)
    for part in range(first, last, _SUBSTEP):
        full = np.int32(0)
        for j in range(4):
            i = part + j * THREADS + t
            if i < last:
                v = x[base + i]
                if v == v:
                    key = key_of(v, i)
                    if key > limits[0]:
                        place = cuda.atomic.add(counts, 0, 1)
                        keys[place] = key
                        if place >= buffer - _SUBSTEP - 1:
                            full = np.int32(1)
        if cuda.syncthreads_or(full) != 0:
            cut(keys, 0, buffer, k, counts, limits, 0, THREADS)


@device
def _take(v: Any, i: Any, least: Any, keys: Any, counts: Any) -> None:
    """Put a number that reaches the limit among the keys, while there is room."""
    if v >= least:
        place = cuda.atomic.add(counts, 0, 1)
        if place < _BUFFER:
            keys[place] = key_of(v, i)


@device
def sixteen(x: Any, start: Any, vectors: Any) -> Any:
    """This thread's numbers of the step from `start` on: four vectors, or singly where none fit."""
    t = np.int32(cuda.threadIdx.x)
    if vectors != 0:
        i = start + np.int32(4) * t
        a0, a1, a2, a3 = load4(x, i)
        b0, b1, b2, b3 = load4(x, i + 4 * THREADS)
        c0, c1, c2, c3 = load4(x, i + 8 * THREADS)
        d0, d1, d2, d3 = load4(x, i + 12 * THREADS)
    else:
        i = start + t
        a0, a1, a2, a3 = x[i], x[i + 256], x[i + 512], x[i + 768]
        b0, b1, b2, b3 = x[i + 1024], x[i + 1280], x[i + 1536], x[i + 1792]
        c0, c1, c2, c3 = x[i + 2048], x[i + 2304], x[i + 2560], x[i + 2816]
        d0, d1, d2, d3 = x[i + 3072], x[i + 3328], x[i + 3584], x[i + 3840]
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@device
def _take_four(
    x: Any, base: Any, at: Any, part: Any, thread: Any, vectors: Any, least: Any, keys: Any,
    counts: Any,
) -> None:  # fmt: skip
    """What reaches the limit of one of the four parts of a thread's sixteen numbers of a step."""
    i = at + np.int32(4 * THREADS) * part
    if vectors != 0:
        i += np.int32(4) * thread
        a, b, c, d = load4(x, base + i)
        apart = np.int32(1)
    else:
        i += thread
        a, b, c, d = x[base + i], x[base + i + 256], x[base + i + 512], x[base + i + 768]
        apart = np.int32(THREADS)
    _take(a, i, least, keys, counts)
    _take(b, i + apart, least, keys, counts)
    _take(c, i + 2 * apart, least, keys, counts)
    _take(d, i + 3 * apart, least, keys, counts)


@device
def _give(key: Any, at: Any, values: Any, indices: Any, out: Any) -> None:
    """One of the k greatest: as value and index, or as a key to be merged."""
    if cuda.gridDim.y == 1:
        values[at] = -_INF if key == NOTHING else value_of(key)
        indices[at] = -1 if key == NOTHING else np.int32(index_of(key))
    else:
        out[at] = key


@device
def take_greatest(
    x: Any, base: Any, first: Any, last: Any, vectors: Any, k: Any, m: Any, near: Any, cells: Any,
    shift: Any, rest: Any, place: Any, out: Any, values: Any, indices: Any,
) -> None:  # fmt: skip
    """The k greatest of a share, from those cells that can hold them. All threads.

    m: the greatest number that this thread saw, which `near` has of all; cells: of each 2 ^ shift
    steps, `rest`: of what is behind the last step. The k-th greatest m is a limit: k threads have
    each seen a number that reaches it. It is the greatest m that k of all reach. A row in one share
    gives values and indices, else keys.

    What counts here is how long a block takes, not how much it does: places are found by counting
    who is greater, four loads are under way a thread, and there is next to no barrier.
    """
    keys = cuda.shared.array(_BUFFER, I64)
    chosen = cuda.shared.array(_CHOSEN, I32)
    counts = cuda.shared.array(2, I32)
    limits = cuda.shared.array(1, I64)
    reached = cuda.shared.array(_WARPS, F32)
    t = np.int32(cuda.threadIdx.x)
    if t == 0:
        counts[0] = 0
        counts[1] = 0
    enough = np.int32(0)
    for i in range(0, THREADS, 4):
        four = load4(near, i)
        for j in range(4):
            enough += np.int32(1) if four[j] >= m else np.int32(0)
    most = warp_max(m if enough >= k else LOWEST)
    if lane() == 0:
        reached[t >> np.int32(5)] = most
    cuda.syncthreads()
    least = LOWEST
    for i in range(_WARPS):
        least = greater(least, reached[i])
    # threads that saw nothing but -inf say so
    least = least if least > LOWEST else -_INF
    steps = np.int32((last - first) // STEP)
    for cell in range((steps + (np.int32(1) << shift) - np.int32(1)) >> shift):
        if cells[cell * THREADS + t] >= least:
            to = cuda.atomic.add(counts, 1, 1)
            if to < _CHOSEN:
                chosen[to] = cell * THREADS + t
    cuda.syncthreads()
    many = counts[1]
    parts = np.int32(np.int32(4) << shift)
    for item in range(t, min(many, _CHOSEN) * parts, THREADS):
        which = chosen[np.int32(item) >> (shift + np.int32(2))]
        part = np.int32(item) & (parts - np.int32(1))
        step = np.int32(np.int32(which >> _BLOCK) << shift) + (part >> np.int32(2))
        if step < steps:
            at = first + np.int64(step) * STEP
            _take_four(x, base, at, part & 3, which & _THREAD, vectors, least, keys, counts)
    if rest >= least:
        for i in range(first + np.int64(steps) * STEP + t, last, THREADS):
            _take(x[base + i], i, least, keys, counts)
    cuda.syncthreads()
    found = counts[0]
    cuda.syncthreads()
    if found <= _BUFFER and many <= _CHOSEN:
        for i in range(t, found, THREADS):
            key = keys[i]
            better = np.int32(0)
            for j in range(found):
                better += np.int32(1) if keys[j] > key else np.int32(0)
            if better < k:
                _give(key, place * k + better, values, indices, out)
        for i in range(found + t, k, THREADS):
            _give(NOTHING, place * k + i, values, indices, out)
    else:  # too many: one after the other, in order
        clear(keys, _BUFFER, THREADS)
        if t == 0:
            counts[0] = 0
            limits[0] = NOTHING
        cuda.syncthreads()
        offer_step(x, base, first, last, keys, counts, limits, k, _BUFFER)
        cuda.syncthreads()
        sort_descending(keys, 0, in_use(counts[0], np.int32(_BUFFER)), THREADS)
        if t < k:
            _give(keys[t], place * k + t, values, indices, out)


@kernel(
    "token_topk_merge", pointer(I64), I32, I32, pointer(F32), pointer(I32), bounds=(THREADS, 1),
    shared=32784,
)  # fmt: skip
def merge_shares(given: Any, each: Any, k: Any, values: Any, indices: Any) -> None:
    """A block a row: the k greatest of its shares' keys."""
    keys = cuda.shared.array(4096, I64)
    counts = cuda.shared.array(1, I32)
    limits = cuda.shared.array(1, I64)
    t = np.int32(cuda.threadIdx.x)
    clear(keys, 4096, THREADS)
    if t == 0:
        counts[0] = 0
        limits[0] = NOTHING
    cuda.syncthreads()
    base = np.int64(cuda.blockIdx.x) * each
    for start in range(0, each, THREADS):
        full = np.int32(0)
        at = start + t
        if at < each:
            key = given[base + at]
            if key > limits[0]:
                place = cuda.atomic.add(counts, 0, 1)
                keys[place] = key
                if place >= 4096 - THREADS - 1:
                    full = np.int32(1)
        if cuda.syncthreads_or(full) != 0:
            cut(keys, 0, 4096, k, counts, limits, 0, THREADS)
    cuda.syncthreads()
    sort_descending(keys, 0, in_use(counts[0], np.int32(4096)), THREADS)
    to = np.int64(cuda.blockIdx.x) * k
    for i in range(t, k, THREADS):
        key = keys[i]
        values[to + i] = -_INF if key == NOTHING else value_of(key)
        indices[to + i] = -1 if key == NOTHING else np.int32(index_of(key))

"""The k greatest of each row, up to k = 128, found in what a first kernel left of each thread.

`token_statistics` reads a row once and leaves the greatest number that each thread saw. From that
`read_again` reads the little that can hold one of the k greatest a second time, and `merge_shares`
puts the shares of a row together. `offer_step` works for any k and any number of equals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import load4
from llcuda_kernels.cuda.runtime.kernel import kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .topk import NOTHING, clear, cut, in_use, index_of, key_of, sort_descending, value_of

THREADS = 256
#: Numbers a block takes in one step: four vectors of four a thread.
STEP = 16 * THREADS
_SUBSTEP = 4 * THREADS
#: What a thread that saw no number has for its greatest.
LOWEST = np.float32(-3.4028234e38)
_INF = np.float32(np.inf)
_BUFFER = 2048


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
def _take4(four: Any, i: Any, least: Any, keys: Any, counts: Any) -> None:
    _take(four[0], i, least, keys, counts)
    _take(four[1], i + 1, least, keys, counts)
    _take(four[2], i + 2, least, keys, counts)
    _take(four[3], i + 3, least, keys, counts)


@device
def _where(item: Any, runs: Any, who: Any) -> Any:
    """Where the vector of an item begins, from the share's first number on."""
    return np.int64(item % runs) * (4 * THREADS) + 4 * who[item // runs]


@device
def _give(key: Any, at: Any, values: Any, indices: Any, out: Any) -> None:
    """One of the k greatest: as value and index, or as a key to be merged."""
    if cuda.gridDim.y == 1:
        values[at] = -_INF if key == NOTHING else value_of(key)
        indices[at] = -1 if key == NOTHING else np.int32(index_of(key))
    else:
        out[at] = key


@kernel(
    "token_topk_again", pointer(F32), I64, I32, I32, I32, pointer(F32), pointer(I64),
    pointer(F32), pointer(I32), bounds=(THREADS, 4), shared=18464,
)  # fmt: skip
def read_again(
    x: Any, n: Any, share: Any, vectors: Any, k: Any, maxima: Any, out: Any,
    values: Any, indices: Any,
) -> None:  # fmt: skip
    """The k greatest of a share, from those threads of the first kernel that can have seen them.

    No thread whose greatest number is not among the k greatest of all threads' saw one of the k
    greatest numbers: k threads have each seen one that is greater. So some k runs of 256 are read
    again, and what the threads read singly. A row in one share gives values and indices, else keys.

    What counts here is how long one block takes, not how much it does: places are found by counting
    who is greater, four loads are under way a thread, and there is next to no barrier.
    """
    keys = cuda.shared.array(_BUFFER, I64)
    counts = cuda.shared.array(2, I32)
    limits = cuda.shared.array(1, I64)
    limit = cuda.shared.array(1, F32)
    near = cuda.shared.array(THREADS, F32, 16)
    who = cuda.shared.array(THREADS, I32)
    t = np.int32(cuda.threadIdx.x)
    row = np.int64(cuda.blockIdx.x)
    base = row * n
    first = np.int64(cuda.blockIdx.y) * share
    last = min(first + share, n)
    place = row * cuda.gridDim.y + cuda.blockIdx.y
    runs = np.int32(0)
    if vectors != 0:
        runs = np.int32((last - first) // STEP) * np.int32(4)
    whole = first + np.int64(runs) * (4 * THREADS)
    m = maxima[place * THREADS + t]
    near[t] = m
    if t == 0:
        counts[0] = 0
        counts[1] = 0
    cuda.syncthreads()
    greater_, equal = np.int32(0), np.int32(0)
    for i in range(0, THREADS, 4):
        four = load4(near, i)
        for j in range(4):
            greater_ += np.int32(1) if four[j] > m else np.int32(0)
            equal += np.int32(1) if four[j] == m else np.int32(0)
    if greater_ < k and greater_ + equal >= k:
        # a thread that saw nothing but -inf says so
        limit[0] = m if m > LOWEST else -_INF
    if greater_ < k:
        who[cuda.atomic.add(counts, 1, 1)] = t
    cuda.syncthreads()
    least = limit[0]
    items = counts[1] * runs
    for start in range(t, items, 4 * THREADS):
        a = np.int32(start)
        b, c, d = a + np.int32(256), a + np.int32(512), a + np.int32(768)
        i0 = first + _where(a, runs, who)
        i1 = first + _where(b if b < items else a, runs, who)
        i2 = first + _where(c if c < items else a, runs, who)
        i3 = first + _where(d if d < items else a, runs, who)
        p, q = load4(x, base + i0), load4(x, base + i1)
        u, v = load4(x, base + i2), load4(x, base + i3)
        _take4(p, i0, least, keys, counts)
        if b < items:
            _take4(q, i1, least, keys, counts)
        if c < items:
            _take4(u, i2, least, keys, counts)
        if d < items:
            _take4(v, i3, least, keys, counts)
    for start in range(whole + t, last, 4 * THREADS):
        end = last - 1
        i1, i2, i3 = start + 256, start + 512, start + 768
        p, q = x[base + start], x[base + min(i1, end)]
        u, v = x[base + min(i2, end)], x[base + min(i3, end)]
        _take(p, start, least, keys, counts)
        if i1 < last:
            _take(q, i1, least, keys, counts)
        if i2 < last:
            _take(u, i2, least, keys, counts)
        if i3 < last:
            _take(v, i3, least, keys, counts)
    cuda.syncthreads()
    found = counts[0]
    cuda.syncthreads()
    if found <= _BUFFER:
        for i in range(t, found, THREADS):
            key = keys[i]
            better = np.int32(0)
            for j in range(found):
                better += np.int32(1) if keys[j] > key else np.int32(0)
            if better < k:
                _give(key, place * k + better, values, indices, out)
        for i in range(found + t, k, THREADS):
            _give(NOTHING, place * k + i, values, indices, out)
    else:  # too many equals: one after the other, in order
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

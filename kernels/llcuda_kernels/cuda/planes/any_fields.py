"""Blocks of any fields, through shared memory: a tile of whole blocks at a time.

Each byte is read and written once, in whole words: planes begin at any byte, so a piece of one has
up to three bytes before its first whole word, and after its last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import load4, store4
from llcuda_kernels.cuda.runtime.kernel import kernel
from llcuda_kernels.cuda.runtime.shim import I8, I32, I64, cuda, device, pointer

THREADS = 256
#: Bytes of a tile, and what its number of blocks is a multiple of, so that it begins at a word.
ROOM, STEP = 16_384, 16
#: How many fields follow each other, and how wide each is: four times.
_RUNS = (I32,) * 8


@device
def _places(k: Any, width: Any, inverse: Any, step: Any) -> Any:
    """Where bytes k to k + 3 of a piece of a plane lie, from where its field of block 0 begins.

    inverse: 1 / width; k + 0.5 is at least 0.5 / width from a whole number of fields, which is more
    than what is rounded below 2^14. step: what is between a field's last byte and the next block's
    first.
    """
    block = np.int32((np.float32(k) + np.float32(0.5)) * inverse)
    inside = k - block * width
    a = block * (width + step) + inside
    b = a + (np.int32(1) if inside + np.int32(1) < width else np.int32(1) + step)
    inside = inside + np.int32(1) if inside + np.int32(1) < width else np.int32(0)
    c = b + (np.int32(1) if inside + np.int32(1) < width else np.int32(1) + step)
    inside = inside + np.int32(1) if inside + np.int32(1) < width else np.int32(0)
    d = c + (np.int32(1) if inside + np.int32(1) < width else np.int32(1) + step)
    return a, b, c, d


@device
def _put(near: Any, k: Any, start: Any, width: Any, inverse: Any, step: Any, four: Any) -> None:
    p, q, r, s = _places(k, width, inverse, step)
    near[start + p] = four[0]
    near[start + q] = four[1]
    near[start + r] = four[2]
    near[start + s] = four[3]


@device
def _fields(
    run: Any, n0: Any, w0: Any, n1: Any, w1: Any, n2: Any, w2: Any, n3: Any, w3: Any
) -> Any:
    """Of a run of fields: how many, and how wide."""
    if run == 0:
        return n0, w0
    if run == 1:
        return n1, w1
    if run == 2:
        return n2, w2
    return n3, w3


@kernel(
    "split_planes", pointer(I8), pointer(I8), I64, I32, I32, I32, *_RUNS,
    bounds=THREADS, shared=ROOM,
)  # fmt: skip
def split(
    data: Any, out: Any, blocks: Any, size: Any, tile: Any, runs: Any,
    n0: Any, w0: Any, n1: Any, w1: Any, n2: Any, w2: Any, n3: Any, w3: Any,
) -> None:  # fmt: skip
    """A tile of `tile` blocks of `size` bytes a thread block."""
    near = cuda.shared.array(ROOM, I8)
    t, all_threads = np.int32(cuda.threadIdx.x), np.int32(THREADS)
    first = np.int64(cuda.blockIdx.x) * np.int64(tile)
    count = np.int32(min(np.int64(tile), blocks - first))
    begin, length = first * np.int64(size), count * size
    words = length >> np.int32(2)
    i = t
    while i + np.int32(3) * all_threads < words:  # four words a thread are under way at a time
        a = load4(data, begin + 4 * i)
        b = load4(data, begin + 4 * (i + all_threads))
        c = load4(data, begin + 4 * (i + np.int32(2) * all_threads))
        d = load4(data, begin + 4 * (i + np.int32(3) * all_threads))
        store4(near, 4 * i, a[0], a[1], a[2], a[3])
        store4(near, 4 * (i + all_threads), b[0], b[1], b[2], b[3])
        store4(near, 4 * (i + np.int32(2) * all_threads), c[0], c[1], c[2], c[3])
        store4(near, 4 * (i + np.int32(3) * all_threads), d[0], d[1], d[2], d[3])
        i += np.int32(4) * all_threads
    while i < words:
        a = load4(data, begin + 4 * i)
        store4(near, 4 * i, a[0], a[1], a[2], a[3])
        i += all_threads
    i = np.int32(4) * words + t
    if i < length:
        near[i] = data[begin + i]
    cuda.syncthreads()
    start = np.int32(0)
    for run in range(runs):
        fields, width = _fields(run, n0, w0, n1, w1, n2, w2, n3, w3)
        inverse, step = np.float32(1.0) / np.float32(width), size - width
        length = count * width
        for _ in range(fields):
            plane = blocks * start + first * width
            head = min(np.int32(-plane & np.int64(3)), length)
            last = head + ((length - head) & np.int32(-4))
            k = head + np.int32(4) * t
            while k < last:
                p, q, r, s = _places(k, width, inverse, step)
                store4(
                    out, plane + k,
                    near[start + p], near[start + q], near[start + r], near[start + s],
                )  # fmt: skip
                k += np.int32(4 * THREADS)
            k = t if t < head else last + t - head  # before the first whole word, after the last
            if k < length and t < head + np.int32(3):
                out[plane + k] = near[start + _places(k, width, inverse, step)[0]]
            start += width


@kernel(
    "join_planes", pointer(I8), pointer(I8), I64, I32, I32, I32, *_RUNS,
    bounds=THREADS, shared=ROOM,
)  # fmt: skip
def join(
    planes: Any, out: Any, blocks: Any, size: Any, tile: Any, runs: Any,
    n0: Any, w0: Any, n1: Any, w1: Any, n2: Any, w2: Any, n3: Any, w3: Any,
) -> None:  # fmt: skip
    """The other way."""
    near = cuda.shared.array(ROOM, I8)
    t, all_threads = np.int32(cuda.threadIdx.x), np.int32(THREADS)
    first = np.int64(cuda.blockIdx.x) * np.int64(tile)
    count = np.int32(min(np.int64(tile), blocks - first))
    start = np.int32(0)
    for run in range(runs):
        fields, width = _fields(run, n0, w0, n1, w1, n2, w2, n3, w3)
        inverse, step = np.float32(1.0) / np.float32(width), size - width
        length = count * width
        for _ in range(fields):
            plane = blocks * start + first * width
            head = min(np.int32(-plane & np.int64(3)), length)
            last = head + ((length - head) & np.int32(-4))
            k = head + np.int32(4) * t
            apart = np.int32(4 * THREADS)
            while k + np.int32(3) * apart < last:
                a, b = load4(planes, plane + k), load4(planes, plane + k + apart)
                c = load4(planes, plane + k + np.int32(2) * apart)
                d = load4(planes, plane + k + np.int32(3) * apart)
                _put(near, k, start, width, inverse, step, a)
                _put(near, k + apart, start, width, inverse, step, b)
                _put(near, k + np.int32(2) * apart, start, width, inverse, step, c)
                _put(near, k + np.int32(3) * apart, start, width, inverse, step, d)
                k += np.int32(4) * apart
            while k < last:
                a = load4(planes, plane + k)
                _put(near, k, start, width, inverse, step, a)
                k += apart
            k = t if t < head else last + t - head
            if k < length and t < head + np.int32(3):
                near[start + _places(k, width, inverse, step)[0]] = planes[plane + k]
            start += width
    cuda.syncthreads()
    begin, length = first * np.int64(size), count * size
    words = length >> np.int32(2)
    i = t
    while i < words:
        a = load4(near, 4 * i)
        store4(out, begin + 4 * i, a[0], a[1], a[2], a[3])
        i += all_threads
    i = np.int32(4) * words + t
    if i < length:
        out[begin + i] = near[i]


@kernel("copy_few_bytes", pointer(I8), pointer(I8), I64, I32, bounds=1024)
def copy_few(data: Any, out: Any, begin: Any, n: Any) -> None:
    """What is no whole block; one thread block."""
    i = np.int32(cuda.threadIdx.x)
    if i < n:
        out[begin + i] = data[begin + i]

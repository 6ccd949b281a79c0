"""Bytes of blocks to planes and back on the device.

Pairs of bytes go through registers. All other blocks go through shared memory, a tile of whole
blocks at a time, so that each byte is read and written once, in whole words: planes begin at any
byte, so a piece of one has up to three bytes before its first whole word, and after its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .runtime import shim
from .runtime.array import Call, DeviceArray, at, empty, realigned
from .runtime.intrinsics import load4, pick_bytes, store4
from .runtime.kernel import divide_up, kernel
from .runtime.shim import I8, I32, I64, cuda, device, pointer

_THREADS = 256
#: Bytes of a tile, and what its number of blocks is a multiple of, so that it begins at a word.
_ROOM, _STEP = 16_384, 16
_LOW, _HIGH = np.int32(0x6420), np.int32(0x7531)  # every second byte of two words
_FIRST, _LAST = np.int32(0x5140), np.int32(0x7362)  # bytes of two words in turn
#: How many fields follow each other, and how wide each is: four times.
_RUNS = (I32,) * 8


@kernel("split_pairs", pointer(I32), pointer(I32), pointer(I32), I64, bounds=_THREADS)
def _split_pairs(data: Any, low: Any, high: Any, units: Any) -> None:
    """16 pairs a thread."""
    i = np.int64(cuda.blockIdx.x) * _THREADS + cuda.threadIdx.x
    if i < units:
        a, b, c, d = load4(data, 8 * i)
        e, f, g, h = load4(data, 8 * i + 4)
        store4(
            low, 4 * i,
            pick_bytes(a, b, _LOW), pick_bytes(c, d, _LOW),
            pick_bytes(e, f, _LOW), pick_bytes(g, h, _LOW),
        )  # fmt: skip
        store4(
            high, 4 * i,
            pick_bytes(a, b, _HIGH), pick_bytes(c, d, _HIGH),
            pick_bytes(e, f, _HIGH), pick_bytes(g, h, _HIGH),
        )  # fmt: skip


@kernel("join_pairs", pointer(I32), pointer(I32), pointer(I32), I64, bounds=_THREADS)
def _join_pairs(low: Any, high: Any, out: Any, units: Any) -> None:
    """16 pairs a thread."""
    i = np.int64(cuda.blockIdx.x) * _THREADS + cuda.threadIdx.x
    if i < units:
        a, b, c, d = load4(low, 4 * i)
        e, f, g, h = load4(high, 4 * i)
        store4(
            out, 8 * i,
            pick_bytes(a, e, _FIRST), pick_bytes(a, e, _LAST),
            pick_bytes(b, f, _FIRST), pick_bytes(b, f, _LAST),
        )  # fmt: skip
        store4(
            out, 8 * i + 4,
            pick_bytes(c, g, _FIRST), pick_bytes(c, g, _LAST),
            pick_bytes(d, h, _FIRST), pick_bytes(d, h, _LAST),
        )  # fmt: skip


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
    bounds=_THREADS, shared=_ROOM,
)  # fmt: skip
def _split(
    data: Any, out: Any, blocks: Any, size: Any, tile: Any, runs: Any,
    n0: Any, w0: Any, n1: Any, w1: Any, n2: Any, w2: Any, n3: Any, w3: Any,
) -> None:  # fmt: skip
    """A tile of `tile` blocks of `size` bytes a thread block."""
    near = cuda.shared.array(_ROOM, I8)
    t, all_threads = np.int32(cuda.threadIdx.x), np.int32(_THREADS)
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
                k += np.int32(4 * _THREADS)
            k = t if t < head else last + t - head  # before the first whole word, after the last
            if k < length and t < head + np.int32(3):
                out[plane + k] = near[start + _places(k, width, inverse, step)[0]]
            start += width


@kernel(
    "join_planes", pointer(I8), pointer(I8), I64, I32, I32, I32, *_RUNS,
    bounds=_THREADS, shared=_ROOM,
)  # fmt: skip
def _join(
    planes: Any, out: Any, blocks: Any, size: Any, tile: Any, runs: Any,
    n0: Any, w0: Any, n1: Any, w1: Any, n2: Any, w2: Any, n3: Any, w3: Any,
) -> None:  # fmt: skip
    """The other way."""
    near = cuda.shared.array(_ROOM, I8)
    t, all_threads = np.int32(cuda.threadIdx.x), np.int32(_THREADS)
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
            apart = np.int32(4 * _THREADS)
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
def _copy_few(data: Any, out: Any, begin: Any, n: Any) -> None:
    """What is no whole block; one thread block."""
    i = np.int32(cuda.threadIdx.x)
    if i < n:
        out[begin + i] = data[begin + i]


def run(name: str, data: Array, runs: Sequence[tuple[int, int]]) -> Array:
    """`llcuda_kernels.split_planes` or `join_planes`."""
    call = Call(data)
    source = realigned(call.take(data, np.uint8, "the bytes", 1))
    out = empty(source.shape, np.uint8)
    size = sum(count * width for count, width in runs)
    blocks, rest = divmod(source.size, size)
    split = name == "split_planes"
    given, made = _bytes(source), _bytes(out)
    if blocks and tuple(runs) == ((2, 1),) and blocks % 16 == 0:
        _pairs(split, source, out, blocks)
    elif blocks:
        tile = _ROOM // size // _STEP * _STEP
        eight = [number for pair in [*runs, *[(0, 1)] * (4 - len(runs))] for number in pair]
        (_split if split else _join).launch(
            divide_up(blocks, tile), _THREADS, given, made, blocks, size, tile, len(runs), *eight
        )
    if rest:
        _copy_few.launch(1, 1024, given, made, blocks * size, rest)
    return call.give(out)


def _bytes(array: DeviceArray) -> Any:
    return array.view(np.int8, array.shape).address


def _pairs(split: bool, source: DeviceArray, out: DeviceArray, pairs: int) -> None:
    """Planes of whole units of 16 bytes."""
    whole, beside = (source, out) if split else (out, source)
    units = pairs // 16
    grid = divide_up(units, _THREADS)
    together = _words(whole, 0, 2 * pairs)
    low, high = (_words(beside, first, pairs) for first in (0, pairs))
    if split:
        _split_pairs.launch(grid, _THREADS, together, low, high, units)
    else:
        _join_pairs.launch(grid, _THREADS, low, high, together, units)


def _words(array: DeviceArray, first: int, n: int) -> Any:
    """The address of n bytes, as that of words."""
    address = at(array, first)
    return address[:n].view(np.int32) if shim.SIMULATED else address

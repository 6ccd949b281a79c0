"""Bytes of blocks to planes and back: a stretch of blocks at a time stays in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from .jit import FEW, parallel, serial

#: Blocks of a stretch.
_STRETCH = 2048


@parallel
def _split_pairs(pairs: Any, out: Any) -> None:
    """Fields (1, 1), of which two are one uint16."""
    blocks = pairs.size
    for part in prange((blocks + _STRETCH - 1) // _STRETCH):
        first = part * _STRETCH
        here = pairs[first : first + _STRETCH]
        low = out[first : first + here.size]
        high = out[blocks + first : blocks + first + here.size]
        for b in range(here.size):
            low[b] = np.uint8(here[b] & np.uint16(255))
        for b in range(here.size):
            high[b] = np.uint8(here[b] >> np.uint16(8))


@parallel
def _join_pairs(planes: Any, pairs: Any) -> None:
    blocks = pairs.size
    for part in prange((blocks + _STRETCH - 1) // _STRETCH):
        first = part * _STRETCH
        here = pairs[first : first + _STRETCH]
        low = planes[first : first + here.size]
        high = planes[blocks + first : blocks + first + here.size]
        for b in range(here.size):
            here[b] = np.uint16(low[b]) | np.uint16(np.uint16(high[b]) << np.uint16(8))


@serial
def _copy(
    source: Any, at: Any, pace: Any, to: Any, there: Any, stride: Any, n: Any, w: Any
) -> None:
    """n fields, w bytes each, from every `pace` bytes to every `stride` bytes.

    Widths that are known when it is compiled are copied in a few instructions.
    """
    if w == 1:
        for b in range(n):
            to[there + b * stride] = source[at + b * pace]
    elif w == 4:
        for b in range(n):
            for i in range(4):
                to[there + b * stride + i] = source[at + b * pace + i]
    elif w == 16:
        for b in range(n):
            for i in range(16):
                to[there + b * stride + i] = source[at + b * pace + i]
    elif w == 32:
        for b in range(n):
            for i in range(32):
                to[there + b * stride + i] = source[at + b * pace + i]
    else:
        for b in range(n):
            for i in range(w):
                to[there + b * stride + i] = source[at + b * pace + i]


@parallel
def _split(data: Any, starts: Any, widths: Any, size: Any, out: Any) -> None:
    """Blocks of `size` bytes to their planes, one after the other."""
    blocks = data.size // size
    for part in prange((blocks + _STRETCH - 1) // _STRETCH):
        first = part * _STRETCH
        here = data[first * size : min(blocks, first + _STRETCH) * size]
        n = here.size // size
        for f in range(starts.size):
            at, w = starts[f], widths[f]
            to = blocks * at + first * w
            _copy(here, at, size, out[to : to + n * w], 0, w, n, w)


@parallel
def _join(planes: Any, starts: Any, widths: Any, size: Any, out: Any) -> None:
    blocks = out.size // size
    for part in prange((blocks + _STRETCH - 1) // _STRETCH):
        first = part * _STRETCH
        here = out[first * size : min(blocks, first + _STRETCH) * size]
        n = here.size // size
        for f in range(starts.size):
            at, w = starts[f], widths[f]
            source = blocks * at + first * w
            _copy(planes[source : source + n * w], 0, w, here, at, size, n, w)


def _by_numpy(split: bool, given: Any, starts: Any, widths: Any, out: Any) -> None:
    """Of few bytes, for which no cores are woken, and nothing is compiled."""
    blocks = (out if split else given).size // int(widths.sum())
    for at, width in zip(starts, widths, strict=True):
        whole, plane = (given, out) if split else (out, given)
        inside = whole.reshape(blocks, -1)[:, at : at + width]
        beside = plane[blocks * at : blocks * (at + width)].reshape(blocks, width)
        np.copyto(*((beside, inside) if split else (inside, beside)))


def run(name: str, given: Any, runs: Sequence[tuple[int, int]], out: Any) -> None:
    """`llcuda_kernels.split_planes` or `join_planes`."""
    widths = np.repeat([width for _, width in runs], [count for count, _ in runs])
    starts = np.cumsum(widths) - widths
    size = int(widths.sum())
    whole = given.size // size * size
    split = name == "split_planes"
    out[whole:] = given[whole:]
    source, to = given[:whole], out[:whole]
    if whole <= FEW:
        if whole:
            _by_numpy(split, source, starts, widths, to)
    elif widths.tolist() == [1, 1] and _even(source) and _even(to):
        pairs = np.dtype("<u2")
        if split:
            _split_pairs(source.view(pairs), to)
        else:
            _join_pairs(source, to.view(pairs))
    else:
        (_split if split else _join)(source, starts, widths, size, to)


def _even(array: Any) -> bool:
    return bool(array.ctypes.data % 2 == 0)

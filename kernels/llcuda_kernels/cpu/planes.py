"""Bytes of blocks to planes and back: a stretch of blocks at a time stays in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from .jit import FEW, parallel

#: Blocks of a stretch, and of one that NumPy copies field by field.
_STRETCH, _LONG = 2048, 1 << 15


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


def _by_fields(split: bool, whole: Any, planes: Any, fields: Sequence[int]) -> None:
    """Field by field, as NumPy copies numbers of that width: faster than a loop over its bytes."""
    size = sum(fields)
    blocks = whole.size // size
    for first in range(0, blocks, _LONG):
        last = min(blocks, first + _LONG)
        start = 0
        for width in fields:
            one = np.dtype((np.void, width)) if width > 1 else np.dtype(np.uint8)
            inside = np.dtype(
                {"names": ["it"], "formats": [one], "offsets": [start], "itemsize": size}
            )
            here = whole[first * size : last * size].view(inside)["it"]
            at = blocks * start
            beside = planes[at + first * width : at + last * width].view(one)
            if split:
                beside[:] = here
            else:
                here[:] = beside
            start += width


def run(name: str, given: Any, runs: Sequence[tuple[int, int]], out: Any) -> None:
    """`llcuda_kernels.split_planes` or `join_planes`."""
    fields = [width for count, width in runs for _ in range(count)]
    whole = given.size // sum(fields) * sum(fields)
    split = name == "split_planes"
    out[whole:] = given[whole:]
    source, to = given[:whole], out[:whole]
    if fields == [1, 1] and whole > FEW and _even(source) and _even(to):
        pairs = np.dtype("<u2")
        if split:
            _split_pairs(source.view(pairs), to)
        else:
            _join_pairs(source, to.view(pairs))
    elif split:
        _by_fields(True, source, to, fields)
    else:
        _by_fields(False, to, source, fields)


def _even(array: Any) -> bool:
    return bool(array.ctypes.data % 2 == 0)

"""Chooses the kernels for bytes to planes and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import Call, DeviceArray, at, empty, realigned
from llcuda_kernels.cuda.runtime.kernel import divide_up

from . import any_fields, pairs, scaled

#: A scale's two bytes, and codes.
_SCALED = {((2, 1), (1, width)) for width in scaled.SPLIT}


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
    elif blocks and tuple(runs) in _SCALED and blocks % 4 == 0:
        chosen = (scaled.SPLIT if split else scaled.JOIN)[size - 2]
        grid = divide_up(blocks, scaled.tile(size - 2))
        n = blocks * size
        chosen.launch(grid, scaled.THREADS, _words(source, 0, n), _words(out, 0, n), blocks)
    elif blocks:
        tile = any_fields.ROOM // size // any_fields.STEP * any_fields.STEP
        eight = [number for pair in [*runs, *[(0, 1)] * (4 - len(runs))] for number in pair]
        (any_fields.split if split else any_fields.join).launch(
            divide_up(blocks, tile),
            any_fields.THREADS,
            given,
            made,
            blocks,
            size,
            tile,
            len(runs),
            *eight,
        )
    if rest:
        any_fields.copy_few.launch(1, 1024, given, made, blocks * size, rest)
    return call.give(out)


def _bytes(array: DeviceArray) -> Any:
    return array.view(np.int8, array.shape).address


def _pairs(split: bool, source: DeviceArray, out: DeviceArray, count: int) -> None:
    """Planes of whole units of 16 bytes."""
    whole, beside = (source, out) if split else (out, source)
    units = count // 16
    grid = divide_up(units, pairs.THREADS)
    together = _words(whole, 0, 2 * count)
    low, high = (_words(beside, first, count) for first in (0, count))
    if split:
        pairs.split_pairs.launch(grid, pairs.THREADS, together, low, high, units)
    else:
        pairs.join_pairs.launch(grid, pairs.THREADS, low, high, together, units)


def _words(array: DeviceArray, first: int, n: int) -> Any:
    """The address of n bytes, as that of words."""
    address = at(array, first)
    return address[:n].view(np.int32) if shim.SIMULATED else address

"""Arrays of other libraries as ours: as they are, or packed where their numbers lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.array import DeviceArray, empty
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import I8, I32, I64, U16, cuda, pointer

THREADS = 256
#: Axes that a packed array may have, after those that lie one in the other are joined.
MOST_AXES = 4


def _pack(name: str, kind: Any) -> Kernel:
    @kernel(
        name, pointer(kind), pointer(kind), I64, I64, I64, I64, I64, I64, I64, I64, bounds=THREADS
    )
    def run(
        source: Any, out: Any, n: Any, d1: Any, d2: Any, d3: Any, s0: Any, s1: Any, s2: Any, s3: Any
    ) -> None:
        """A thread a number; strides in numbers, the first axis's length is not needed."""
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < n:
            c = i // d3
            b = c // d2
            a = b // d1
            out[i] = source[a * s0 + (b - a * d1) * s1 + (c - b * d2) * s2 + (i - c * d3) * s3]

    return run


PACK = {
    1: _pack("pack_1", I8),
    2: _pack("pack_2", U16),
    4: _pack("pack_4", I32),
    8: _pack("pack_8", I64),
}


def joined(
    shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same places in as few axes as can be: shape and strides."""
    lengths: list[int] = []
    apart: list[int] = []
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if apart and apart[-1] == length * stride:
            lengths[-1] *= length
            apart[-1] = stride
        else:
            lengths.append(length)
            apart.append(stride)
    return tuple(lengths), tuple(apart)


def pack(
    source: Any, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, name: str
) -> DeviceArray:
    """A contiguous copy of numbers at an address, `strides` numbers apart. Raises ValueError."""
    lengths, apart = joined(shape, strides)
    if len(lengths) > MOST_AXES:
        raise ValueError(f"{name} has {len(lengths)} axes apart from each other: copy it first")
    fill = MOST_AXES - len(lengths)
    d = (1,) * fill + lengths
    s = (0,) * fill + apart
    made = empty(shape, dtype)
    width = int(np.dtype(dtype).itemsize)
    words = {1: np.int8, 2: np.uint16, 4: np.int32, 8: np.int64}[width]
    if made.size:
        out = made.view(words, shape)
        PACK[width].launch(
            divide_up(made.size, THREADS), THREADS,
            source, out.address, made.size, d[1], d[2], d[3], *s,
        )  # fmt: skip
    return made


def contiguous(view: Any, owner: Any, name: str, where: Any) -> DeviceArray:
    """What a `View` shows as ours; a copy unless it is contiguous. Raises ValueError.

    An array to write to, "out", must be contiguous.
    """
    if name == "out" and not (view.contiguous and view.writeable):
        raise ValueError("out must be contiguous and writeable")
    if view.contiguous:
        return DeviceArray(view.address, view.shape, view.dtype, owner, where)
    width = int(view.dtype.itemsize)
    if width not in PACK or any(stride % width for stride in view.strides):
        raise ValueError(f"{name} does not lie in steps of its numbers: copy it first")
    strides = tuple(stride // width for stride in view.strides)
    return pack(view.address, view.shape, strides, view.dtype, name)

"""GPTQ with act order on the device: each row names its group, so scales are read row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import from_f16, multiply_add
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, U16, cuda, device, pointer

THREADS = 256
_NIBBLE = np.int32(15)
_NAN = np.float32(np.nan)


@device
def _half(scale: Any) -> Any:
    return from_f16(scale)


@device
def _single(scale: Any) -> Any:
    return scale


@device
def _known(group: Any, groups: Any) -> Any:
    """The group, and whether there is one of this number; the first where there is not."""
    known = group >= np.int32(0) and group < groups
    return np.int64(group if known else np.int32(0)), known


@device
def _less(word: Any, j: Any, zeros: Any, group: Any, columns: Any, n: Any) -> Any:
    """Number j of a word of eight rows, less its zero."""
    shift = np.int32(4) * (n & np.int32(7))
    z = (
        (zeros[group * (columns >> np.int32(3)) + (n >> np.int32(3))] >> shift) & _NIBBLE
    ) + np.int32(1)
    return np.float32(((word >> np.int32(4 * j)) & _NIBBLE) - z)


def _dequantize(name: str, kind: Any, scale: Any) -> Kernel:
    @kernel(name, pointer(I32), pointer(I32), pointer(kind), pointer(I32), pointer(F32), I32, I32,
            I32, bounds=THREADS)  # fmt: skip
    def run(
        q: Any, zeros: Any, scales: Any, of: Any, out: Any, first: Any, columns: Any, groups: Any,
    ) -> None:  # fmt: skip
        """A thread a word: eight rows of one column; a block row of the grid: eight rows."""
        n = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if n >= columns:
            return
        k0 = np.int64(first) + np.int64(cuda.blockIdx.y) * 8
        word = q[(k0 >> 3) * columns + n]
        for j in range(8):
            k = k0 + j
            group, known = _known(of[k], groups)
            by = scale(scales[group * columns + n]) if known else _NAN
            out[k * columns + n] = _less(word, j, zeros, group, columns, n) * by

    return run


def _vector(name: str, kind: Any, scale: Any) -> Kernel:
    @kernel(
        name, pointer(F32), pointer(I32), pointer(I32), pointer(kind), pointer(I32), pointer(F32),
        I32, I32, I32, bounds=THREADS,
    )  # fmt: skip
    def run(
        x: Any, q: Any, zeros: Any, scales: Any, of: Any, out: Any, columns: Any, share: Any,
        groups: Any,
    ) -> None:  # fmt: skip
        """Block (i, p): columns 256 i to 256 i + 255, rows of part p; out: (parts, columns)."""
        n = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if n >= columns:
            return
        y = np.float32(0.0)
        first = np.int32(cuda.blockIdx.y) * share
        for k in range(first, first + share, 8):
            word = q[np.int64(k >> 3) * columns + n]
            for j in range(8):
                group, known = _known(of[k + j], groups)
                by = x[k + j] * (scale(scales[group * columns + n]) if known else _NAN)
                y = multiply_add(by, _less(word, j, zeros, group, columns, n), y)
        out[np.int64(cuda.blockIdx.y) * columns + n] = y

    return run


#: By the type of the scales.
DEQUANTIZE = {
    "float16": _dequantize("dequantize_act_order_f16", U16, _half),
    "float32": _dequantize("dequantize_act_order_f32", F32, _single),
}
VECTOR = {
    "float16": _vector("act_order_times_vector_f16", U16, _half),
    "float32": _vector("act_order_times_vector_f32", F32, _single),
}

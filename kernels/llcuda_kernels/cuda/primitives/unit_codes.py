"""Rows brought to length 1 and quantised, a block a row: peak and length are found together.

The general kernel for rows (`rows`) finds the peak first and then a sum of squares that it divides
by, and waits for the block twice. The squares of the numbers themselves need no peak. Only where
they leave the range of a float are they summed again, divided.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import bits_float, lane, load4
from llcuda_kernels.cuda.runtime.kernel import kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .reductions import block_sum, warp_max_int, warp_sum
from .row_operations import CODES, UNIT_CODES, ZERO

_peak, _prepare, _term = UNIT_CODES.peak, UNIT_CODES.prepare, UNIT_CODES.term
_finish, _value, _put4, _scale = (
    UNIT_CODES.finish,
    UNIT_CODES.value,
    UNIT_CODES.put4,
    UNIT_CODES.scale,
)
MOST_THREADS = 512
_NONE = np.int32(0)
#: Sums of squares between which none of the squares that matter was lost.
LEAST, MOST = np.float32(1e-20), np.float32(1e37)


@device
def _plain_scale(total: Any, peak: Any) -> Any:
    """``peak / (127 |x|)`` of a sum of squares that was not divided."""
    return bits_float(peak) / (CODES * math.sqrt(total))


@kernel(
    "normalize_quantize_block",
    pointer(F32), pointer(F32), pointer(I32), pointer(F32), I64, I32, F32,
    bounds=MOST_THREADS, shared=384,
)  # fmt: skip
def block(x: Any, w: Any, out: Any, scales: Any, rows: Any, n: Any, eps: Any) -> None:
    """A thread has up to 32 numbers, in vectors of four."""
    tops = cuda.shared.array(32, I32)
    sums = cuda.shared.array(32, F32)
    base = np.int64(cuda.blockIdx.x) * n
    t, threads = np.int32(cuda.threadIdx.x), np.int32(cuda.blockDim.x)
    first = np.int32(np.int32(4) * t)
    own, warps = np.int32(lane()), np.int32(threads >> np.int32(5))
    v = cuda.local.array(32, F32)
    for j in range(8):
        at = np.int32(first + np.int32(4 * j) * threads)
        if at < n:
            a, b, c, d = load4(x, base + at)
            v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3] = a, b, c, d
        else:
            v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3] = ZERO, ZERO, ZERO, ZERO
    top, total = _NONE, ZERO
    for i in range(32):
        peak = _peak(v[i])
        top = peak if peak > top else top
        total += v[i] * v[i]
    top, total = warp_max_int(top), warp_sum(total)
    if own == 0:
        tops[t >> np.int32(5)] = top
        sums[t >> np.int32(5)] = total
    cuda.syncthreads()
    top = warp_max_int(tops[own] if own < warps else _NONE)
    total = warp_sum(sums[own] if own < warps else ZERO)
    p, q = _prepare(top, eps)
    plain = total > LEAST and total < MOST
    if not plain:
        total = ZERO
        for i in range(32):
            total += _term(v[i], p, q)
        total = block_sum(total, threads)
    f = _finish(total, p, q, n, eps)
    for j in range(8):
        at = np.int32(first + np.int32(4 * j) * threads)
        if at < n:
            _put4(
                out, base + at, f,
                _value(v[4 * j], p, q, f, ZERO), _value(v[4 * j + 1], p, q, f, ZERO),
                _value(v[4 * j + 2], p, q, f, ZERO), _value(v[4 * j + 3], p, q, f, ZERO),
            )  # fmt: skip
    if t == 0:
        scales[cuda.blockIdx.x] = _plain_scale(total, top) if plain else _scale(total, top)

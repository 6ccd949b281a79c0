"""softmax, RMS norm and L2 norm on the device, and inverse norms of int8 codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .primitives import rows
from .primitives.reductions import warp_max_int, warp_sum
from .primitives.row_operations import INFINITE, LIFT, NAN, ONE, SMALL, ZERO
from .runtime.array import Call, DeviceArray, aligned, empty
from .runtime.intrinsics import bits_float, float_bits, lane, shuffle_xor
from .runtime.kernel import Kernel, divide_up, kernel
from .runtime.shim import F32, I8, I32, I64, cuda, pointer

_THREADS = 256
#: Sums of squares between which none of the squares that matter was lost.
_LEAST, _MOST = np.float32(1e-20), np.float32(1e37)


def _float_rows(
    name: str, x: Array, out: Array | None, weight: Array | None = None, eps: float = 0.0
) -> Array:
    call = Call(x, weight)
    source = call.take(x, np.float32, "x")
    if not source.shape:
        raise ValueError("x is a single number, and must have at least one axis")
    to = call.make(out, source.shape, np.float32)
    n = source.shape[-1]
    if source.size:
        count = source.size // n
        unused = empty((count,), np.float32)
        w = unused if weight is None else call.take(weight, np.float32, "weight", 1)
        fit = aligned(source, to, w)
        rows.run(name, source.address, w.address, to.address, unused.address, count, n, eps, fit)
    return call.give(to, out)


def softmax(x: Array, out: Array | None = None) -> Array:
    """See `llcuda_kernels.softmax`."""
    return _float_rows("softmax", x, out)


def rms_norm(x: Array, weight: Array | None, eps: float, out: Array | None = None) -> Array:
    """See `llcuda_kernels.rms_norm`."""
    name = "rms_norm" if weight is None else "rms_norm_weighted"
    return _float_rows(name, x, out, weight, eps)


def l2_normalize(x: Array, out: Array | None = None) -> Array:
    """See `llcuda_kernels.l2_normalize`."""
    return _float_rows("l2_normalize", x, out)


@kernel("inverse_norms_int8", pointer(I8), pointer(F32), I64, I32, bounds=_THREADS)
def _inverse_norms(codes: Any, out: Any, rows: Any, dim: Any) -> None:
    """A warp a row."""
    row = np.int64(cuda.blockIdx.x) * 8 + (cuda.threadIdx.x >> 5)
    if row >= rows:
        return
    total = np.int32(0)
    for i in range(lane(), dim, 32):
        v = np.int32(codes[row * dim + i])
        total += v * v
    total += shuffle_xor(total, 16)
    total += shuffle_xor(total, 8)
    total += shuffle_xor(total, 4)
    total += shuffle_xor(total, 2)
    total += shuffle_xor(total, 1)
    if lane() == 0:
        out[row] = np.float32(1.0) / math.sqrt(np.float32(total)) if total > 0 else np.float32(0.0)


@kernel("inverse_norms_float32", pointer(F32), pointer(F32), I64, I32, bounds=_THREADS)
def _inverse_norms_float32(x: Any, out: Any, rows: Any, dim: Any) -> None:
    """A warp a row, which is read again only where its squares leave the range of a float."""
    row = np.int64(cuda.blockIdx.x) * 8 + (cuda.threadIdx.x >> 5)
    if row >= rows:
        return
    base = row * dim
    first = np.int32(lane())
    peak, total = np.int32(0), ZERO
    for i in range(first, dim, 128):
        for j in range(4):
            at = np.int32(i) + np.int32(32 * j)
            v = x[base + at] if at < dim else ZERO
            peak = max(peak, float_bits(v) & np.int32(0x7FFFFFFF))
            total += v * v
    peak, total = warp_max_int(peak), warp_sum(total)
    by = ONE
    if not (total > _LEAST and total < _MOST):
        top = bits_float(peak)
        by = ONE / top if top > SMALL else LIFT
        total = ZERO
        for i in range(first, dim, 32):
            v = x[base + i] * by
            total += v * v
        total = warp_sum(total)
    if lane() == 0:
        inverse = by / math.sqrt(total) if peak > 0 else ZERO
        out[row] = inverse if peak < INFINITE else NAN


def inverse_norms_float32(x: DeviceArray) -> DeviceArray:
    """``1 / |x|`` a row."""
    return _by_warps(_inverse_norms_float32, x)


def inverse_norms_int8(codes: DeviceArray) -> DeviceArray:
    """``1 / |codes|`` a row."""
    return _by_warps(_inverse_norms, codes)


def _by_warps(chosen: Kernel, rows: DeviceArray) -> DeviceArray:
    count, dim = rows.shape
    out = empty((count,), np.float32)
    if count:
        chosen.launch(divide_up(count, 8), _THREADS, rows.address, out.address, count, dim)
    return out

"""softmax, RMS norm and L2 norm on the device, and inverse norms of int8 codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .primitives import rows
from .runtime.array import Call, DeviceArray, aligned, empty
from .runtime.intrinsics import lane, shuffle_xor
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I8, I32, I64, cuda, pointer

_THREADS = 256


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


def inverse_norms_int8(codes: DeviceArray) -> DeviceArray:
    """``1 / |codes|`` a row."""
    count, dim = codes.shape
    out = empty((count,), np.float32)
    if count:
        _inverse_norms.launch(divide_up(count, 8), _THREADS, codes.address, out.address, count, dim)
    return out

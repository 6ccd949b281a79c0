"""softmax, RMS norm and L2 norm on the device."""

from __future__ import annotations

import numpy as np

from llcuda_kernels.arrays import Array

from .primitives import rows
from .runtime.array import Call, aligned, empty


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

"""The sums of token statistics over numbers as they come: see `tokens`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import exp2_fast, greater
from llcuda_kernels.cuda.runtime.shim import device

#: What a thread that saw no number has for its greatest.
LOWEST = np.float32(-3.4028234e38)
_LOG2E = np.float32(math.log2(math.e))
#: Below it 2^d is 0, and d must not be infinite.
_FLOOR = np.float32(-200.0)


@device
def greatest4(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The greatest of four that is not NaN."""
    return greater(greater(a, b), greater(c, d))


@device
def _bounded(d: Any) -> Any:
    return greater(d, _FLOOR)


@device
def add4(s: Any, t: Any, m: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """s and t with four numbers more, none of which is greater than m (or m is infinite)."""
    p, q, u, v = (a - m) * _LOG2E, (b - m) * _LOG2E, (c - m) * _LOG2E, (d - m) * _LOG2E
    e, f, g, h = exp2_fast(p), exp2_fast(q), exp2_fast(u), exp2_fast(v)
    s += (e + f) + (g + h)
    t += (e * _bounded(p) + f * _bounded(q)) + (g * _bounded(u) + h * _bounded(v))
    return s, t


@device
def add_one(s: Any, t: Any, m: Any, a: Any) -> Any:
    """s and t with one number more."""
    d = (a - m) * _LOG2E
    e = exp2_fast(d)
    return s + e, t + e * _bounded(d)


@device
def scaled(s: Any, t: Any, old: Any, new: Any) -> Any:
    """s and t when the greatest is `new`, not `old`."""
    shift = (old - new) * _LOG2E
    shift = shift if shift > np.float32(-1e30) else np.float32(-1e30)
    f = exp2_fast(shift)
    return s * f, f * (t + s * shift)

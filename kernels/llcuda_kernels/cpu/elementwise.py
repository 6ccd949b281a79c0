"""One number in, one number out, over all cores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from .fastmath import exp_nonpositive
from .jit import exact, parallel

_ROOT_2_OVER_PI = np.float32(math.sqrt(2 / math.pi))
_ROOT_HALF = np.float32(math.sqrt(0.5))


@exact
def _times_sigmoid(x: Any, u: Any) -> Any:
    """``x / (1 + exp(-u))`` with no exponential of a positive number."""
    e = exp_nonpositive(-abs(u))
    return x * ((np.float32(1.0) if u >= 0 else e) / (np.float32(1.0) + e))


@parallel
def vector_add(a: Any, b: Any, out: Any) -> None:
    """``a + b``."""
    for i in prange(a.size):
        out[i] = a[i] + b[i]


@parallel
def relu(x: Any, out: Any) -> None:
    """``max(x, 0)``, NaN kept."""
    for i in prange(x.size):
        v = x[i]
        out[i] = np.float32(0.0) if v < 0 else v


@parallel
def gelu_tanh(x: Any, out: Any) -> None:
    """``1 + tanh(u) = 2 / (1 + exp(-2u))``."""
    for i in prange(x.size):
        v = x[i]
        u = _ROOT_2_OVER_PI * (v + np.float32(0.044715) * v * v * v)
        out[i] = _times_sigmoid(v, u + u)


@parallel
def gelu_erf(x: Any, out: Any) -> None:
    """erfc, not erf: the tail below zero keeps its digits."""
    for i in prange(x.size):
        v = x[i]
        out[i] = np.float32(0.5) * v * np.float32(math.erfc(-v * _ROOT_HALF))


@parallel
def silu(x: Any, out: Any) -> None:
    """``x / (1 + exp(-x))``."""
    for i in prange(x.size):
        out[i] = _times_sigmoid(x[i], x[i])

"""One number in, one number out, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .norms import Floats

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def vector_add(a: Any, b: Any) -> Floats:
    """``a + b``."""
    return np.asarray(a, np.float64) + np.asarray(b, np.float64)


def relu(x: Any) -> Floats:
    """``max(x, 0)``; NaN stays NaN."""
    return np.maximum(np.asarray(x, np.float64), 0.0)


def gelu(x: Any, form: str = "tanh") -> Floats:
    """``x Φ(x)`` with the normal distribution Φ (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    "erf": ``x/2 · erfc(-x/√2)``; "tanh": ``x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))``. At -inf
    both are NaN, as the product of zero and infinity.
    """
    x = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        if form == "erf":
            return np.asarray(0.5 * x * _erfc(-x / math.sqrt(2)) if x.size else x.copy())
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))


def silu(x: Any) -> Floats:
    """``x / (1 + exp(-x))`` (Elfwing et al. 2017, arXiv:1702.03118); NaN at -inf."""
    x = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(x * (1 / (1 + np.exp(-x))))

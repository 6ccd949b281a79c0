"""softmax and RMS norm: a row is read from memory once, and again out of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .fastmath import exp_nonpositive
from .jit import parallel


@parallel
def softmax(x: Any, out: Any) -> None:
    """``exp(x - max) / sum`` of each row."""
    for r in prange(x.shape[0]):
        row, to = x[r], out[r]
        best = np.float32(-np.inf)
        wild = 0
        for i in range(row.size):
            best = max(best, row[i])
            wild += not (row[i] < np.inf)
        if wild or best == np.float32(-np.inf):
            to[:] = np.nan
            continue
        total = np.float32(0.0)
        for i in range(row.size):
            e = exp_nonpositive(row[i] - best)
            to[i] = e
            total += e
        factor = np.float32(1.0) / total
        for i in range(row.size):
            to[i] *= factor


@parallel
def rms_norm(x: Any, weight: Any, eps: Any, out: Any) -> None:
    """``x / sqrt(mean(x²) + eps) · weight`` of each row; a weight of no length is 1."""
    for r in prange(x.shape[0]):
        row, to = x[r], out[r]
        total = 0.0
        for i in range(row.size):
            v = np.float64(row[i])
            total += v * v
        factor = 1.0 / np.sqrt(total / row.size + eps)
        if not total < np.inf:
            to[:] = np.nan
            continue
        if weight.size:
            for i in range(row.size):
                to[i] = np.float32(np.float64(row[i]) * factor) * weight[i]
        else:
            for i in range(row.size):
                to[i] = np.float32(np.float64(row[i]) * factor)

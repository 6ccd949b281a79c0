"""softmax, RMS norm and L2 norm of the last axis, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


def softmax(x: Any) -> Floats:
    """``exp(x - max) / sum(exp(x - max))``. A row with NaN or +inf, or of -inf alone, is NaN."""
    x = np.asarray(x, np.float64)
    if x.shape[-1] == 0:
        return np.array(x, np.float64)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))


def rms_norm(x: Any, weight: Any = None, eps: float = 1e-6) -> Floats:
    """``x / sqrt(mean(x²) + eps) * weight`` (Zhang and Sennrich 2019, arXiv:1910.07467).

    A row that holds NaN or infinity is NaN: it has no scale.
    """
    x = np.asarray(x, np.float64)
    if x.shape[-1] == 0:
        return np.array(x, np.float64)
    with np.errstate(invalid="ignore"):
        y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    y[~np.isfinite(x).all(axis=-1)] = np.nan
    return np.asarray(y if weight is None else y * np.asarray(weight, np.float64))


def l2_normalize(x: Any) -> Floats:
    """``x / sqrt(sum(x²))``. A row of zeros stays zeros; one that holds NaN or infinity is NaN."""
    x = np.asarray(x, np.float64)
    finite = np.isfinite(x).all(axis=-1, keepdims=True)
    norm = np.sqrt(np.sum(np.where(finite, x, 0.0) ** 2, axis=-1, keepdims=True))
    with np.errstate(invalid="ignore"):
        y = np.where(norm > 0, x / np.where(norm > 0, norm, 1.0), 0.0)
    return np.asarray(np.where(finite, y, np.nan))

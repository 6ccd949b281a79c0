"""Matrix products, in float64 or in whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .norms import Floats


def matmul(a: Any, b: Any) -> Floats:
    """``C[i, j] = Σ_k A[i, k] B[k, j]``."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.asarray(a, np.float64) @ np.asarray(b, np.float64))


def matmul_int8(a: Any, b: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``C[i, j] = Σ_k A[i, k] B[j, k]``, exact: B lies as a layer's weights do, (n, k)."""
    return np.asarray(np.asarray(a, np.int64) @ np.asarray(b, np.int64).T)


def to_bf16(x: Any) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The upper half of a float32, rounded to nearest, half to even; NaN stays NaN."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(bits: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The float32 whose upper half this is."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def matmul_bf16(a: Any, b: Any) -> Floats:
    """``C[i, j] = Σ_k A[i, k] B[j, k]`` of bfloat16 bits, summed in float64."""
    return matmul(from_bf16(a), from_bf16(b).T)

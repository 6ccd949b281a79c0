"""Symmetric int8, a scale a row, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from .norms import Floats

Codes = np.ndarray[Any, np.dtype[np.int8]]


def exact_codes(x: Any) -> tuple[Floats, Floats]:
    """What `quantize_int8` rounds, ``x / scale``, and the scales: to judge ties by."""
    x = np.asarray(x, np.float64)
    finite = np.isfinite(x).all(axis=-1)
    known = np.where(finite[..., None], x, 0.0)
    scale = np.abs(known).max(axis=-1, initial=0.0) / 127.0
    exact = known / np.where(scale > 0, scale, 1.0)[..., None]
    return exact, np.where(finite, scale, np.nan)


def quantize_int8(x: Any) -> tuple[Codes, Floats]:
    """``scale = max|x| / 127`` a row, ``code = round(x / scale)``, half to even; codes and scales.

    A row of zeros has scale 0 and codes 0. A row that holds NaN or infinity has scale NaN and
    codes 0, so that nobody mistakes it for data.
    """
    exact, scale = exact_codes(x)
    return np.rint(exact).astype(np.int8), scale


def dequantize_int8(codes: Any, scale: Any) -> Floats:
    """``code * scale``, the inverse: off by half a scale at most."""
    return np.asarray(codes, np.float64) * np.asarray(scale, np.float64)[..., None]


def normalize_quantize(x: Any) -> tuple[Codes, Floats]:
    """`l2_normalize`, then `quantize_int8`: the codes of x, with ``scale / |x|`` as scale."""
    x = np.asarray(x, np.float64)
    codes, scale = quantize_int8(x)
    finite = np.isfinite(scale)
    norm = np.sqrt(np.sum(np.where(finite[..., None], x, 0.0) ** 2, axis=-1))
    return codes, np.where(finite, scale / np.where(norm > 0, norm, 1.0), np.nan)

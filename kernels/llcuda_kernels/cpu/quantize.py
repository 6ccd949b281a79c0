"""L2 normalisation and int8 codes: each row is read from memory once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .jit import FEW, exact, parallel, serial

#: Below it, 127 / peak or 1 / peak would overflow: such a row is scaled up first, exactly.
_SMALL = np.float32(2.0**-100)
_LIFT = np.float32(2.0**60)


@serial
def _peak(row: Any) -> Any:
    """The greatest magnitude, or NaN where the row holds NaN or infinity."""
    peak = np.float32(0.0)
    wild = 0
    for i in range(row.size):
        a = abs(row[i])
        peak = max(peak, a)
        wild += not (a < np.inf)
    return np.float32(np.nan) if wild else peak


@exact
def _scaled(value: Any, lift: Any, factor: Any) -> Any:
    """``(value · lift) · factor`` in this order: ``lift · factor`` may overflow."""
    return value * lift * factor


@serial
def _norm_in_peaks(row: Any, lift: Any, inverse: Any) -> Any:
    """``|row| / peak``, which neither overflows nor vanishes."""
    total = np.float32(0.0)
    for i in range(row.size):
        v = _scaled(row[i], lift, inverse)
        total += v * v
    return np.sqrt(np.float64(total))


def _quantize(x: Any, unit: bool, codes: Any, scales: Any) -> None:
    for r in prange(x.shape[0]):
        row = x[r]
        peak = _peak(row)
        if not peak > 0.0:  # all zero, or not finite
            scales[r] = peak
            codes[r] = 0
            continue
        lift = _LIFT if peak < _SMALL else np.float32(1.0)
        inverse = np.float32(1.0) / (peak * lift)
        if unit:
            scales[r] = 1.0 / (127.0 * _norm_in_peaks(row, lift, inverse))
        else:
            scales[r] = np.float64(peak) / 127.0
        factor = np.float32(127.0) * inverse
        for i in range(row.size):
            codes[r, i] = np.int8(np.rint(_scaled(row[i], lift, factor)))


_on_all_cores, _on_one = parallel(_quantize), serial(_quantize)


def quantize_int8(x: Any, unit: bool, codes: Any, scales: Any) -> None:
    """Codes and scales a row; with `unit`, those of the row divided by its L2 norm.

    A query of a search is one row: waking many cores for it would cost more than the search.
    """
    (_on_one if x.size <= FEW else _on_all_cores)(x, unit, codes, scales)


@parallel
def dequantize_int8(codes: Any, scales: Any, out: Any) -> None:
    """Codes times their row's scale."""
    for r in prange(codes.shape[0]):
        scale = scales[r]
        for i in range(codes.shape[1]):
            out[r, i] = np.float32(codes[r, i]) * scale


@parallel
def l2_normalize(x: Any, out: Any) -> None:
    """Rows divided by their norm."""
    for r in prange(x.shape[0]):
        row = x[r]
        peak = _peak(row)
        if not peak > 0.0:
            out[r] = peak
            continue
        lift = _LIFT if peak < _SMALL else np.float32(1.0)
        inverse = np.float32(1.0) / (peak * lift)
        factor = np.float32(1.0 / _norm_in_peaks(row, lift, inverse))
        for i in range(row.size):
            out[r, i] = _scaled(row[i], lift, inverse) * factor


@parallel
def _fill_inverse_norms_int8(codes: Any, out: Any) -> None:
    """``1 / |codes|`` a row, 0 where all codes are 0."""
    for r in prange(codes.shape[0]):
        total = np.int32(0)
        for i in range(codes.shape[1]):
            v = np.int32(codes[r, i])
            total += v * v
        out[r] = 1.0 / np.sqrt(np.float64(total)) if total > 0 else 0.0


@parallel
def _fill_inverse_norms_float32(x: Any, out: Any) -> None:
    """``1 / |x|`` a row of floats, 0 for a row of zeros, NaN where one is not finite."""
    for r in prange(x.shape[0]):
        total = 0.0
        wild = 0
        for i in range(x.shape[1]):
            v = np.float64(x[r, i])
            total += v * v
            wild += not (abs(v) < np.inf)
        if wild:
            out[r] = np.nan
        else:
            out[r] = 1.0 / np.sqrt(total) if total > 0 else 0.0


def inverse_norms(vectors: Any) -> Any:
    """``1 / |v|`` of each vector, (n, dim) int8 or float32; see `llcuda_kernels.inverse_norms`."""
    if vectors.size <= FEW:  # not worth waking the cores for
        wide = vectors.astype(np.float64)
        with np.errstate(all="ignore"):
            norm = np.sqrt((wide * wide).sum(axis=1))
            inverse = np.where(norm > 0, 1 / norm, norm)
            inverse[~np.isfinite(wide).all(axis=1)] = np.nan
            return np.asarray(inverse, np.float32)
    out = np.empty(vectors.shape[0], np.float32)
    if vectors.shape[0]:
        whole = vectors.dtype == np.int8
        (_fill_inverse_norms_int8 if whole else _fill_inverse_norms_float32)(vectors, out)
    return out

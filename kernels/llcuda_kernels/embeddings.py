"""Embeddings made small: unit length, then int8 with a scale a row."""

from __future__ import annotations

import numpy as np

from .arrays import Array, host, rows
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary


@boundary("x")
def quantize_int8(x: Array, *, backend: Backend = "auto") -> tuple[Array, Array]:
    """Symmetric int8, a scale a row: ``scale = max|x| / 127``, ``code = round(x / scale)``.

    x: (..., n) float32; a row is the last axis. Returns codes (..., n) int8 from -127 to 127, and
    scales (...) float32. Half rounds to even, as float32 arithmetic finds it. A row of zeros has
    scale 0; one with NaN or infinity has scale NaN and codes 0. Raises TypeError, ValueError,
    BackendError.
    """
    return _quantize(x, False, "quantize_int8", backend)


@boundary("x")
def normalize_quantize(x: Array, *, backend: Backend = "auto") -> tuple[Array, Array]:
    """`l2_normalize` and `quantize_int8` in one: x is read once, the unit rows are never stored.

    The codes are those of x itself; the scale is ``max|x| / (127 |x|)``. Shapes, types, special
    rows and errors as in `quantize_int8`.
    """
    return _quantize(x, True, "normalize_quantize", backend)


def _quantize(x: Array, unit: bool, name: str, backend: Backend) -> tuple[Array, Array]:
    if use_cuda(backend, name, (x,), int(x.size) * 5):
        from .cuda import quantize as cuda

        return cuda.quantize_int8(x, unit)
    from .cpu import quantize as cpu

    flat, shape = rows(host(x, np.float32, "x"), "x")
    codes, scales = np.empty(flat.shape, np.int8), np.empty(flat.shape[0], np.float32)
    if flat.shape[0]:
        cpu.quantize_int8(flat, unit, codes, scales)
    return codes.reshape(shape), scales.reshape(shape[:-1])


@boundary("codes", "scales")
def dequantize_int8(codes: Array, scales: Array, *, backend: Backend = "auto") -> Array:
    """``code · scale``: the inverse of `quantize_int8`, off by half a scale at most.

    codes: (..., n) int8, scales: (...) float32; returns (..., n) float32. Raises TypeError,
    ValueError, BackendError.
    """
    if tuple(scales.shape) != tuple(codes.shape[:-1]):
        raise ValueError("scales must have the shape of codes without its last axis")
    if use_cuda(backend, "dequantize_int8", (codes, scales), int(codes.size) * 5):
        from .cuda import quantize as cuda

        return cuda.dequantize_int8(codes, scales)
    from .cpu import quantize as cpu

    flat, shape = rows(host(codes, np.int8, "codes"), "codes")
    out = np.empty(flat.shape, np.float32)
    if flat.shape[0]:
        cpu.dequantize_int8(flat, host(scales, np.float32, "scales").reshape(-1), out)
    return out.reshape(shape)


@boundary("x")
def l2_normalize(x: Array, *, backend: Backend = "auto") -> Array:
    """``x / sqrt(Σ x²)`` of each row, the last axis; float32, the shape of x.

    No row overflows or vanishes: it is divided by its greatest magnitude first. A row of zeros
    stays zeros; one with NaN or infinity is all NaN. Raises TypeError, ValueError, BackendError.
    """
    if use_cuda(backend, "l2_normalize", (x,), int(x.size) * 8):
        from .cuda import norms as cuda

        return cuda.l2_normalize(x)
    from .cpu import quantize as cpu

    flat, shape = rows(host(x, np.float32, "x"), "x")
    out = np.empty(flat.shape, np.float32)
    if flat.shape[0]:
        cpu.l2_normalize(flat, out)
    return out.reshape(shape)


def _rows_of(size: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.linspace(-1, 1, max(1, size // 5 // 768) * 768, dtype=np.float32).reshape(-1, 768)


@crossover.probe("quantize_int8")
def _probe_quantize(backend: str, size: int) -> None:
    quantize_int8(_rows_of(size), backend=backend)  # type: ignore[arg-type]


@crossover.probe("normalize_quantize")
def _probe_fused(backend: str, size: int) -> None:
    normalize_quantize(_rows_of(size), backend=backend)  # type: ignore[arg-type]


@crossover.probe("l2_normalize")
def _probe_l2(backend: str, size: int) -> None:
    l2_normalize(_rows_of(size), backend=backend)  # type: ignore[arg-type]

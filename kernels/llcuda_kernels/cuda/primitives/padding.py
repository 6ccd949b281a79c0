"""Rows lengthened with zeros, so that they can be read in whole loads of 16 bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.array import DeviceArray, aligned, empty
from llcuda_kernels.cuda.runtime.kernel import divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I8, I32, I64, cuda, pointer

THREADS = 256
_ZERO = np.float32(0.0)


@kernel("pad_rows_int8", pointer(I8), pointer(I8), I64, I32, I32, bounds=THREADS)
def _pad_int8(source: Any, out: Any, n: Any, dim: Any, padded: Any) -> None:
    """Rows lengthened with zeros."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        row, at = i // padded, i % padded
        out[i] = source[row * dim + at] if at < dim else np.int8(0)


@kernel("pad_rows_float32", pointer(F32), pointer(F32), I64, I32, I32, bounds=THREADS)
def _pad_float32(source: Any, out: Any, n: Any, dim: Any, padded: Any) -> None:
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        row, at = i // padded, i % padded
        out[i] = source[row * dim + at] if at < dim else _ZERO


def padded(array: DeviceArray) -> DeviceArray:
    """The rows with zeros up to whole loads of 16 bytes, aligned; itself where it is so."""
    count, dim = array.shape
    width = 16 // array.dtype.itemsize
    whole = divide_up(max(dim, 1), width) * width
    if whole == dim and aligned(array):
        return array
    out = empty((count, whole), array.dtype)
    if out.size:
        pad = _pad_int8 if array.dtype == np.int8 else _pad_float32
        grid = divide_up(out.size, THREADS)
        pad.launch(grid, THREADS, array.address, out.address, out.size, dim, whole)
    return out

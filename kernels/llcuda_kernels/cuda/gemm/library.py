"""NVIDIA's cuBLAS, through CuPy, for large products: loaded when it is first needed.

`cublasGemmEx` chooses among cuBLASLt's kernels. Nothing is computed in TF32.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import DeviceArray, aligned, recorded

#: CUDA's names of types, and of what is summed in.
_R_32F, _R_8I, _R_32I, _R_16BF = 0, 3, 10, 14
_COMPUTE_32F, _COMPUTE_32I = 68, 72
_TRANSPOSED, _AS_IT_IS, _DEFAULT = 1, 0, -1
_TYPES = {
    np.dtype(np.float32): (_R_32F, _R_32F, _COMPUTE_32F, np.float32),
    np.dtype(np.uint16): (_R_16BF, _R_32F, _COMPUTE_32F, np.float32),
    np.dtype(np.int8): (_R_8I, _R_32I, _COMPUTE_32I, np.int32),
}


@functools.cache
def _cupy() -> Any:
    """CuPy and its cuBLAS, or None where either is missing."""
    try:
        return importlib.import_module("cupy"), importlib.import_module("cupy.cuda").cublas
    except Exception:
        return None  # not installed, or for another CUDA


def takes(x: DeviceArray, to: DeviceArray) -> bool:
    """Whether it is there, and multiplies these now.

    Rows of int8 must be whole words. While the stream is captured in a graph it must not allocate,
    as it may.
    """
    if shim.SIMULATED or recorded():
        return False
    from llcuda_kernels.cuda.runtime import driver

    if driver.captured():
        return False
    if x.dtype == np.int8 and (x.shape[1] % 4 or to.shape[1] % 4 or not aligned(x, to)):
        return False
    return _cupy() is not None


def multiply(x: DeviceArray, y: DeviceArray, to: DeviceArray, *, transposed: bool) -> None:
    """C = A B, or A Bᵀ where `transposed`, for arrays on the device, on the current stream.

    Raises RuntimeError where the library refuses.
    """
    from llcuda_kernels.cuda.runtime import driver

    cupy, cublas = _cupy()
    (m, inner), n = x.shape, to.shape[1]
    kind, result, compute, scalar = _TYPES[x.dtype]
    alpha, beta = np.array(1, scalar), np.array(0, scalar)
    # cuBLAS counts by columns: what it is told is Cᵀ = Bᵀ Aᵀ
    with cupy.cuda.ExternalStream(int(driver.handle())):
        cublas.gemmEx(
            cupy.cuda.device.get_cublas_handle(),
            _TRANSPOSED if transposed else _AS_IT_IS, _AS_IT_IS, n, m, inner,
            alpha.ctypes.data, y.address, kind, inner if transposed else n,
            x.address, kind, inner,
            beta.ctypes.data, to.address, result, n, compute, _DEFAULT,
        )  # fmt: skip

"""int8 codes on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .primitives import rows
from .runtime.array import Call, DeviceArray, aligned, empty, filled
from .runtime.intrinsics import store4
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I8, I32, I64, cuda, pointer

_THREADS = 256


@kernel("dequantize_int8", pointer(I32), pointer(F32), pointer(F32), I64, I32, bounds=_THREADS)
def _dequantize4(codes: Any, scales: Any, out: Any, words: Any, words_a_row: Any) -> None:
    """Four codes, one word, a thread; rows are whole words."""
    i = np.int64(cuda.blockIdx.x) * _THREADS + cuda.threadIdx.x
    if i < words:
        word = codes[i]
        s = scales[i // words_a_row]
        # Numba's shifts give 64 bits: each is cut to 32 again
        a = np.float32(np.int32(word << np.int32(24)) >> np.int32(24)) * s
        b = np.float32(np.int32(word << np.int32(16)) >> np.int32(24)) * s
        c = np.float32(np.int32(word << np.int32(8)) >> np.int32(24)) * s
        store4(out, 4 * i, a, b, c, np.float32(word >> np.int32(24)) * s)


@kernel("dequantize_int8_plain", pointer(I8), pointer(F32), pointer(F32), I64, I32, bounds=_THREADS)
def _dequantize1(codes: Any, scales: Any, out: Any, n: Any, length: Any) -> None:
    i = np.int64(cuda.blockIdx.x) * _THREADS + cuda.threadIdx.x
    if i < n:
        out[i] = np.float32(codes[i]) * scales[i // length]


def quantize_int8(x: Array, unit: bool, out: Any = None) -> tuple[Array, Array]:
    """See `llcuda_kernels.quantize_int8`, and with `unit` `normalize_quantize`."""
    call = Call(x)
    source = call.take(x, np.float32, "x")
    if not source.shape:
        raise ValueError("x is a single number, and must have at least one axis")
    n = source.shape[-1]
    codes: DeviceArray = out[0] if out else empty(source.shape, np.int8)
    scales: DeviceArray = out[1] if out else empty(source.shape[:-1], np.float32)
    if source.size:
        name = "normalize_quantize" if unit else "quantize_int8"
        fit = aligned(source, codes)
        whole = rows.in_vectors(n, fit)
        to = codes.view(np.int32, (codes.size // 4,)) if whole else codes
        rows.run(
            name, source.address, scales.address, to.address, scales.address,
            source.size // n, n, 0.0, fit,
        )  # fmt: skip
    elif scales.size:
        # rows without numbers have scale 0
        return call.give(codes), call.give(filled(scales.shape, np.float32, 0.0))
    return call.give(codes), call.give(scales)


def dequantize_int8(codes: Array, scales: Array) -> Array:
    """See `llcuda_kernels.dequantize_int8`."""
    call = Call(codes, scales)
    source, s = call.take(codes, np.int8, "codes"), call.take(scales, np.float32, "scales")
    out = empty(source.shape, np.float32)
    n = source.shape[-1]
    if source.size:
        if n % 4 == 0 and aligned(source, out):
            words = source.view(np.int32, (source.size // 4,))
            grid = divide_up(words.size, _THREADS)
            _dequantize4.launch(
                grid, _THREADS, words.address, s.address, out.address, words.size, n // 4
            )
        else:
            grid = divide_up(source.size, _THREADS)
            _dequantize1.launch(
                grid, _THREADS, source.address, s.address, out.address, source.size, n
            )
    return call.give(out)

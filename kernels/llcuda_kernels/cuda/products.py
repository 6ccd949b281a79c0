"""Products on the device: which kernel, and what it needs around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.errors import BackendError

from . import matmul as plain
from . import tensor_matmul
from .gemm import few_rows, library, tensor_few_rows, warpgroup_few_rows, warpgroup_matmul
from .primitives.padding import padded
from .runtime import shim
from .runtime.array import Call, DeviceArray, aligned, empty, fill, filled
from .runtime.intrinsics import bits_float
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I64, U16, cuda, pointer

THREADS = 256


@kernel("pad_tiles", pointer(U16), pointer(U16), I64, I64, I64, I64, bounds=THREADS)
def _pad(source: Any, out: Any, rows: Any, width: Any, n: Any, whole: Any) -> None:
    """Rows of 16-bit units lengthened, and rows added, with zeros."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        row, at = i // whole, i % whole
        out[i] = source[row * width + at] if row < rows and at < width else np.uint16(0)


@kernel("bf16_to_float32", pointer(U16), pointer(F32), I64, bounds=THREADS)
def _widen(source: Any, out: Any, n: Any) -> None:
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        out[i] = bits_float(np.int32(source[i]) << np.int32(16))


@kernel("transpose", pointer(F32), pointer(F32), I64, I64, bounds=THREADS)
def _transpose(source: Any, out: Any, rows: Any, columns: Any) -> None:
    """Simple: it serves the plain path of old devices only."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < rows * columns:
        out[(i % columns) * rows + i // columns] = source[i]


def _whole(array: DeviceArray, high: int, bytes_: int) -> DeviceArray:
    """As words, padded to whole tiles of `high` rows and so many bytes; itself where it is so."""
    rows, width = array.shape
    size = array.dtype.itemsize
    tall = divide_up(rows, high) * high
    wide = divide_up(width * size, bytes_) * bytes_
    if (tall, wide) == (rows, width * size) and aligned(array):
        return array.view(np.int32, (tall, wide // 4))
    if width * size % 2:
        array = padded(array)
        width = array.shape[1]
        if (tall, wide) == (rows, width):
            return _words(array)
    out = empty((tall, wide // 2), np.uint16)
    source = array.view(np.uint16, (rows, width * size // 2))
    _pad.launch(
        divide_up(out.size, THREADS), THREADS,
        source.address, out.address, rows, width * size // 2, out.size, wide // 2,
    )  # fmt: skip
    return out.view(np.int32, (tall, wide // 4))


def _capability() -> tuple[int, int]:
    if shim.SIMULATED:
        return (7, 5)  # tensor cores have no twin
    from .runtime import driver

    return driver.compute_capability()


def matmul(a: Array, b: Array, which: str, out: Array | None = None) -> Array:
    """See `llcuda_kernels.matmul`."""
    call = Call(a, b)
    x, y = call.take(a, np.float32, "a", 2), call.take(b, np.float32, "b", 2)
    (m, inner), n = x.shape, y.shape[1]
    to = call.make(out, (m, n), np.float32)
    if to.size and not inner:
        return call.give(fill(to, 0.0), out)
    if to.size:
        if which == "auto" and m > few_rows.FASTER and library.takes(x, to):
            library.multiply(x, y, to, transposed=False)
        elif which != "tiled" and m <= few_rows.MOST:
            few_rows.launch(x, y, to)
        else:
            plain.float32(which, x, y, to, inner % 4 == 0 and n % 4 == 0 and aligned(x, y, to))
    return call.give(to, out)


def matmul_int8(a: Array, b: Array, which: str = "auto") -> Array:
    """See `llcuda_kernels.matmul_int8`."""
    call = Call(a, b)
    x, y = call.take(a, np.int8, "a", 2), call.take(b, np.int8, "b", 2)
    (m, inner), n = x.shape, y.shape[0]
    if not m or not n or not inner:
        return call.give(filled((m, n), np.int32, 0))
    cc = _capability()
    if which == "mma" and cc < (8, 0):
        raise BackendError(f"matmul_int8: mma needs compute capability 8.0, and this is {cc}")
    out = empty((m, n), np.int32)
    if which != "dp4a" and cc >= (8, 0):
        _on_tensor_cores(x, y, out, which == "auto")
    else:
        p, q = _words(padded(x)), _words(padded(y))
        plain.int8(plain.INT8 if cc >= (6, 1) else plain.INT8_PLAIN, p, q, out)
    return call.give(out)


def _words(array: DeviceArray) -> DeviceArray:
    return array.view(np.int32, (array.shape[0], array.shape[1] // 4))


def _on_tensor_cores(x: DeviceArray, y: DeviceArray, out: DeviceArray, auto: bool) -> None:
    """C = A Bᵀ of int8 or bfloat16; `auto`: by the library where that is faster."""
    int8, (m, n) = x.dtype == np.int8, out.shape
    newest = _capability() == warpgroup_matmul.ONLY
    if auto and m > tensor_few_rows.FASTER and library.takes(x, out):
        library.multiply(x, y, out, transposed=True)
    elif m <= tensor_few_rows.MOST:
        p, q = _whole(x, 1, 16), _whole(y, 1, 16)
        few: Any = warpgroup_few_rows if newest else tensor_few_rows
        few.launch(few.INT8 if int8 else few.BF16, p, q, out)
    elif newest:
        p, q = _whole(x, 1, 16), _whole(y, 1, 16)
        one = warpgroup_matmul.INT8 if int8 else warpgroup_matmul.BF16
        warpgroup_matmul.launch(one, p, q, out)
    else:
        p, q = _whole(x, tensor_matmul.SIDE, 64), _whole(y, tensor_matmul.SIDE, 64)
        one = tensor_matmul.INT8 if int8 else tensor_matmul.BF16
        tensor_matmul.launch(one, p.address, q.address, out.address, m, n, p.shape[1])


def matmul_bf16(a: Array, b: Array, which: str = "auto") -> Array:
    """See `llcuda_kernels.matmul_bf16`."""
    call = Call(a, b)
    x, y = call.take(a, np.uint16, "a", 2), call.take(b, np.uint16, "b", 2)
    (m, inner), n = x.shape, y.shape[0]
    if not m or not n or not inner:
        return call.give(filled((m, n), np.float32, 0))
    cc = _capability()
    if which == "mma" and cc < (8, 0):
        raise BackendError(f"matmul_bf16: mma needs compute capability 8.0, and this is {cc}")
    if cc >= (8, 0):
        out = empty((m, n), np.float32)
        _on_tensor_cores(x, y, out, which == "auto")
        return call.give(out)
    wide = _widened(y)
    turned = empty((inner, n), np.float32)
    _transpose.launch(
        divide_up(wide.size, THREADS), THREADS, wide.address, turned.address, n, inner
    )
    return call.give(matmul(_widened(x), turned, "fast"))


def _widened(array: DeviceArray) -> DeviceArray:
    out = empty(array.shape, np.float32)
    _widen.launch(divide_up(array.size, THREADS), THREADS, array.address, out.address, array.size)
    return out

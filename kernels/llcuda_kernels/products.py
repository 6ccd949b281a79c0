"""Matrix products: float32, int8 and bfloat16, and `gemm` for large ones in production.

Errors as in `elementwise`. Sizes may be anything, 0 too: a sum of nothing is 0.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .arrays import Array, host, is_ours, output
from .reference import products as reference
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary

__all__ = ["from_bf16", "gemm", "matmul", "matmul_bf16", "matmul_int8", "to_bf16"]

#: The longest sum of int8 products that fits 32 bits.
MAX_INT8_SUM = 131_071


@boundary("x")
def to_bf16(x: Array) -> Array:
    """The upper halves of float32, rounded to nearest, as uint16; NaN stays NaN. On the host."""
    _on_host(x, "to_bf16")
    return reference.to_bf16(x)


@boundary("bits")
def from_bf16(bits: Array) -> Array:
    """The float32 whose upper halves these are, uint16. On the host."""
    _on_host(bits, "from_bf16")
    return reference.from_bf16(bits)


def _on_host(array: Array, name: str) -> None:
    if is_ours(array):
        raise TypeError(f"{name} works in the host's memory: copy the array there first")


@boundary("a", "b", "out")
def matmul(
    a: Array,
    b: Array,
    *,
    kernel: Literal["auto", "fast", "tiled"] = "auto",
    out: Array | None = None,
    backend: Backend = "auto",
) -> Array:
    """``C[i, j] = Σ_k A[i, k] B[k, j]``; (m, k) and (k, n) to (m, n), all float32.

    On CUDA `kernel` chooses "tiled" (the one to read), "fast" (ours: few rows of A by kernels that
    read B once) or "auto": "fast", and for more than 16 rows cuBLAS where CuPy finds it. None uses
    TF32. On the CPU all are NumPy's BLAS.
    """
    _check(a, b, 0, "(m, k) and (k, n)")
    if kernel not in ("auto", "fast", "tiled"):
        raise ValueError(f"kernel must be 'auto', 'fast' or 'tiled', not {kernel!r}")
    if use_cuda(backend, "matmul", (a, b), _work(a, b, 0)):
        from .cuda import products as cuda

        return cuda.matmul(a, b, kernel, out)
    return _blas(host(a, np.float32, "a"), host(b, np.float32, "b"), out)


@boundary("a", "b")
def matmul_int8(a: Array, b: Array, *, kernel: str = "auto", backend: Backend = "auto") -> Array:
    """``C[i, j] = Σ_k A[i, k] B[j, k]``, exact: int8 (m, k) and (n, k) to int32 (m, n).

    B lies as the weights of a layer do, a row for each output; k is 131,071 at most. On CUDA
    `kernel` chooses "dp4a" (four products an instruction), "mma" (ours on tensor cores, compute
    capability 8.0 on) or "auto": the best that there is, cuBLAS for more than 32 rows.
    """
    _check(a, b, 1, "(m, k) and (n, k)")
    if a.shape[1] > MAX_INT8_SUM:
        raise ValueError(f"a sum of {a.shape[1]} products may not fit: {MAX_INT8_SUM} at most")
    if kernel not in ("auto", "dp4a", "mma"):
        raise ValueError(f"kernel must be 'auto', 'dp4a' or 'mma', not {kernel!r}")
    if use_cuda(backend, "matmul_int8", (a, b), _work(a, b, 1)):
        from .cuda import products as cuda

        return cuda.matmul_int8(a, b, kernel)
    from .cpu import products as cpu

    x, y = host(a, np.int8, "a"), host(b, np.int8, "b")
    to = np.zeros((x.shape[0], y.shape[0]), np.int32)
    if x.size and y.size:
        cpu.matmul_int8(x, y, to)
    return to


@boundary("a", "b")
def matmul_bf16(
    a: Array, b: Array, *, kernel: Literal["auto", "mma"] = "auto", backend: Backend = "auto"
) -> Array:
    """``C[i, j] = Σ_k A[i, k] B[j, k]`` of bfloat16, summed in float32: (m, k), (n, k) to (m, n).

    NumPy has no bfloat16: a and b hold its bits as uint16 (`to_bf16`). On CUDA it runs on tensor
    cores from compute capability 8.0 (`kernel` "mma": by our kernels; "auto": by cuBLAS for more
    than 32 rows, where CuPy finds it), and as plain float32 below.
    """
    _check(a, b, 1, "(m, k) and (n, k)")
    if kernel not in ("auto", "mma"):
        raise ValueError(f"kernel must be 'auto' or 'mma', not {kernel!r}")
    if use_cuda(backend, "matmul_bf16", (a, b), _work(a, b, 1)):
        from .cuda import products as cuda

        return cuda.matmul_bf16(a, b, kernel)
    left, right = host(a, np.uint16, "a"), host(b, np.uint16, "b")
    return _blas(reference.from_bf16(left), reference.from_bf16(right).T, None)


def gemm(a: Array, b: Array, *, out: Array | None = None, backend: Backend = "auto") -> Array:
    """`matmul` by what is fastest: cuBLAS for large products where it is installed."""
    return matmul(a, b, kernel="auto", out=out, backend=backend)


def _check(a: Array, b: Array, axis: int, wanted: str) -> None:
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[axis]:
        raise ValueError(f"a and b must be {wanted}, not {tuple(a.shape)} and {tuple(b.shape)}")


def _work(a: Array, b: Array, axis: int) -> int:
    """Multiply-adds: what a product's crossover is told in, since bytes say nothing about it."""
    return int(a.shape[0]) * int(a.shape[1]) * int(b.shape[1 - axis])


def _blas(a: Array, b: Array, out: Array | None) -> Array:
    to = output(out, (a.shape[0], b.shape[1]), np.float32)
    with np.errstate(all="ignore"):
        np.matmul(a, b, out=to)
    return to


def _side(size: int) -> int:
    return max(16, round(math.cbrt(size)))


@crossover.probe("matmul")
def _probe(backend: str, size: int) -> None:
    x = np.ones((_side(size),) * 2, np.float32)
    matmul(x, x, backend=backend)  # type: ignore[arg-type]


@crossover.probe("matmul_int8")
def _probe_int8(backend: str, size: int) -> None:
    x = np.ones((_side(size),) * 2, np.int8)
    matmul_int8(x, x, backend=backend)  # type: ignore[arg-type]


@crossover.probe("matmul_bf16")
def _probe_bf16(backend: str, size: int) -> None:
    x = np.full((_side(size),) * 2, 0x3F80, np.uint16)
    matmul_bf16(x, x, backend=backend)  # type: ignore[arg-type]

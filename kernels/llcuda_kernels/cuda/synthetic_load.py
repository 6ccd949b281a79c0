"""Synthetic load on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .runtime.array import Call
from .runtime.intrinsics import multiply_add
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I32, I64, U32, cuda, pointer

_THREADS = 256
_FACTOR, _SUMMAND = np.float32(1 - 2.0**-10), np.float32(2.0**-10)


@kernel("spin", pointer(U32), pointer(U32), I64, I32, bounds=_THREADS)
def _spin(seeds: Any, out: Any, n: Any, rounds: Any) -> None:
    """One chain a thread."""
    i = np.int64(cuda.blockIdx.x) * _THREADS + cuda.threadIdx.x
    if i < n:
        x = seeds[i]
        for _ in range(rounds):
            x = np.uint32(x ^ np.uint32(x << np.uint32(13)))
            x = np.uint32(x ^ np.uint32(x >> np.uint32(17)))
            x = np.uint32(x ^ np.uint32(x << np.uint32(5)))
        out[i] = x


@kernel("post", pointer(F32), pointer(F32), I64, I32, bounds=_THREADS)
def _post(x: Any, out: Any, n: Any, rounds: Any) -> None:
    """Eight chains a thread, in registers."""
    i = np.int64(cuda.blockIdx.x) * _THREADS + cuda.threadIdx.x
    if i < n:
        v = x[i]
        a, b = v, v + np.float32(1.0)
        c, d = v + np.float32(2.0), v + np.float32(3.0)
        e, f = v + np.float32(4.0), v + np.float32(5.0)
        g, h = v + np.float32(6.0), v + np.float32(7.0)
        for _ in range(rounds):
            a, b = multiply_add(a, _FACTOR, _SUMMAND), multiply_add(b, _FACTOR, _SUMMAND)
            c, d = multiply_add(c, _FACTOR, _SUMMAND), multiply_add(d, _FACTOR, _SUMMAND)
            e, f = multiply_add(e, _FACTOR, _SUMMAND), multiply_add(f, _FACTOR, _SUMMAND)
            g, h = multiply_add(g, _FACTOR, _SUMMAND), multiply_add(h, _FACTOR, _SUMMAND)
        out[i] = ((a + b) + (c + d)) + ((e + f) + (g + h))


def run(name: str, x: Array, rounds: int, out: Array | None = None) -> Array:
    """`llcuda_kernels.spin` or `post`."""
    call = Call(x)
    made, kind = (_spin, np.uint32) if name == "spin" else (_post, np.float32)
    source = call.take(x, kind, "x")
    to = call.make(out, source.shape, kind)
    if source.size:
        grid = divide_up(source.size, _THREADS)
        made.launch(grid, _THREADS, source.address, to.address, source.size, rounds)
    return call.give(to, out)

"""Element by element: each thread has four vectors of four numbers under way at once.

::

    block 0: |--- 256 vectors ---|--- 256 ---|--- 256 ---|--- 256 ---|   = 4,096 numbers
              thread t: vector t,        t + 256,    t + 512,    t + 768

Loads of neighbours by neighbours are whole lines of memory; four independent loads a thread hide
most of the way there. Where the arrays are not aligned, and in the last block, numbers go singly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .runtime.array import Call, aligned
from .runtime.intrinsics import exp2_fast, load4, reciprocal, store4
from .runtime.kernel import Kernel, divide_up, kernel
from .runtime.shim import F32, I32, I64, cuda, device, pointer

THREADS = 256
#: Numbers a block.
TILE = THREADS * 16

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_LOG2E = np.float32(math.log2(math.e))
_ROOT_HALF = np.float32(math.sqrt(0.5))
# gelu's tanh form is x / (1 + exp(-2u)): the factors of -2u in base 2
_GELU_1 = np.float32(-2 * math.sqrt(2 / math.pi) * math.log2(math.e))
_GELU_3 = np.float32(0.044715)


@device
def _relu(x: Any) -> Any:
    return _ZERO if x < _ZERO else x


@device
def _gelu_tanh(x: Any) -> Any:
    return x * reciprocal(_ONE + exp2_fast(_GELU_1 * (x + _GELU_3 * x * x * x)))


@device
def _gelu_erf(x: Any) -> Any:
    return _HALF * x * math.erfc(-x * _ROOT_HALF)


@device
def _silu(x: Any) -> Any:
    return x * reciprocal(_ONE + exp2_fast(-x * _LOG2E))


def _unary(name: str, op: Any) -> Kernel:
    @kernel(name, pointer(F32), pointer(F32), I64, I32, bounds=THREADS)
    def run(x: Any, out: Any, n: Any, vectors: Any) -> None:
        start = cuda.blockIdx.x * I64_TILE
        t = cuda.threadIdx.x
        if vectors != 0 and start + TILE <= n:
            at = start + 4 * t
            a0, a1, a2, a3 = load4(x, at)
            b0, b1, b2, b3 = load4(x, at + 1024)
            c0, c1, c2, c3 = load4(x, at + 2048)
            d0, d1, d2, d3 = load4(x, at + 3072)
            store4(out, at, op(a0), op(a1), op(a2), op(a3))
            store4(out, at + 1024, op(b0), op(b1), op(b2), op(b3))
            store4(out, at + 2048, op(c0), op(c1), op(c2), op(c3))
            store4(out, at + 3072, op(d0), op(d1), op(d2), op(d3))
        else:
            for i in range(start + t, min(start + TILE, n), THREADS):
                out[i] = op(x[i])

    return run


I64_TILE = np.int64(TILE)

UNARY = {
    "relu": _unary("relu", _relu),
    "gelu_tanh": _unary("gelu_tanh", _gelu_tanh),
    "gelu_erf": _unary("gelu_erf", _gelu_erf),
    "silu": _unary("silu", _silu),
}


@kernel("vector_add", pointer(F32), pointer(F32), pointer(F32), I64, I32, bounds=THREADS)
def _vector_add(a: Any, b: Any, out: Any, n: Any, vectors: Any) -> None:
    start = cuda.blockIdx.x * I64_TILE
    t = cuda.threadIdx.x
    if vectors != 0 and start + TILE <= n:
        at = start + 4 * t
        p0, p1, p2, p3 = load4(a, at)
        q0, q1, q2, q3 = load4(b, at)
        r0, r1, r2, r3 = load4(a, at + 1024)
        s0, s1, s2, s3 = load4(b, at + 1024)
        t0, t1, t2, t3 = load4(a, at + 2048)
        u0, u1, u2, u3 = load4(b, at + 2048)
        v0, v1, v2, v3 = load4(a, at + 3072)
        w0, w1, w2, w3 = load4(b, at + 3072)
        store4(out, at, p0 + q0, p1 + q1, p2 + q2, p3 + q3)
        store4(out, at + 1024, r0 + s0, r1 + s1, r2 + s2, r3 + s3)
        store4(out, at + 2048, t0 + u0, t1 + u1, t2 + u2, t3 + u3)
        store4(out, at + 3072, v0 + w0, v1 + w1, v2 + w2, v3 + w3)
    else:
        for i in range(start + t, min(start + TILE, n), THREADS):
            out[i] = a[i] + b[i]


def unary(name: str, x: Array, out: Array | None = None) -> Array:
    """One of `UNARY`, on the device."""
    call = Call(x)
    source = call.take(x, np.float32, "x")
    to = call.make(out, source.shape, np.float32)
    if source.size:
        grid = divide_up(source.size, TILE)
        vectors = aligned(source, to)
        UNARY[name].launch(grid, THREADS, source.address, to.address, source.size, vectors)
    return call.give(to, out)


def vector_add(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a + b``, on the device."""
    call = Call(a, b)
    x, y = call.take(a, np.float32, "a"), call.take(b, np.float32, "b")
    to = call.make(out, x.shape, np.float32)
    if x.size:
        grid = divide_up(x.size, TILE)
        vectors = aligned(x, y, to)
        _vector_add.launch(grid, THREADS, x.address, y.address, to.address, x.size, vectors)
    return call.give(to, out)

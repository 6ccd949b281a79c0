"""Element by element: addition and activations. float32, any shape.

Each takes `out`, an array of the result's shape to write to (it may be the input), and returns it.
Each raises TypeError, ValueError, and BackendError where CUDA is asked for and is not there.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from .arrays import Array, host, output, same_shape
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary


@boundary("a", "b", "out")
def vector_add(a: Array, b: Array, *, out: Array | None = None, backend: Backend = "auto") -> Array:
    """``a + b``, both of one shape."""
    same_shape((a, b), "a and b")
    if use_cuda(backend, "vector_add", (a, b), int(a.size) * 12):
        from .cuda import elementwise as cuda

        return cuda.vector_add(a, b, out)
    from .cpu import elementwise as cpu

    x, y = host(a, np.float32, "a"), host(b, np.float32, "b")
    to = output(out, x.shape, np.float32)
    cpu.vector_add(x.reshape(-1), y.reshape(-1), to.reshape(-1))
    return to


@boundary("x", "out")
def relu(x: Array, *, out: Array | None = None, backend: Backend = "auto") -> Array:
    """``max(x, 0)``; NaN stays NaN."""
    return _unary("relu", x, out, backend)


@boundary("x", "out")
def gelu(
    x: Array,
    form: Literal["tanh", "erf"] = "tanh",
    *,
    out: Array | None = None,
    backend: Backend = "auto",
) -> Array:
    """``x Φ(x)``, Φ the normal distribution (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    "erf": ``x/2 (1 + erf(x/√2))``; "tanh": ``x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))``, which
    most models mean. NaN at -inf.
    """
    if form not in ("tanh", "erf"):
        raise ValueError(f"form must be 'tanh' or 'erf', not {form!r}")
    return _unary(f"gelu_{form}", x, out, backend)


@boundary("x", "out")
def silu(x: Array, *, out: Array | None = None, backend: Backend = "auto") -> Array:
    """``x / (1 + exp(-x))`` (Elfwing et al. 2017, arXiv:1702.03118); NaN at -inf."""
    return _unary("silu", x, out, backend)


def _unary(name: str, x: Array, out: Array | None, backend: Backend) -> Array:
    if use_cuda(backend, name, (x,), int(x.size) * 8):
        from .cuda import elementwise as cuda

        return cuda.unary(name, x, out)
    from .cpu import elementwise as cpu

    given = host(x, np.float32, "x")
    to = output(out, given.shape, np.float32)
    getattr(cpu, name)(given.reshape(-1), to.reshape(-1))
    return to


def _ramp(size: int, bytes_each: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.linspace(-3, 3, size // bytes_each, dtype=np.float32)


@crossover.probe("vector_add")
def _probe_add(backend: str, size: int) -> None:
    x = _ramp(size, 12)
    vector_add(x, x, backend=backend)  # type: ignore[arg-type]


def _probe(name: str) -> None:
    @crossover.probe(name)
    def run(backend: str, size: int) -> None:
        _unary(name, _ramp(size, 8), None, backend)  # type: ignore[arg-type]


for _name in ("relu", "gelu_tanh", "gelu_erf", "silu"):
    _probe(_name)

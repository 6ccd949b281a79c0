"""softmax and RMS norm of the last axis. float32. `l2_normalize` is in `embeddings`.

Each takes `out` and raises as `elementwise` says.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, host, output, rows
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary


@boundary("x", "out")
def softmax(x: Array, *, out: Array | None = None, backend: Backend = "auto") -> Array:
    """``exp(x - max) / Σ exp(x - max)`` of each row, the last axis; the shape of x.

    -inf gives 0. A row with NaN or +inf, or of -inf alone, is NaN.
    """
    if use_cuda(backend, "softmax", (x,), int(x.size) * 8):
        from .cuda import norms as cuda

        return cuda.softmax(x, out)
    from .cpu import norms as cpu

    flat, shape = rows(host(x, np.float32, "x"), "x")
    to = output(out, shape, np.float32)
    if flat.size:
        cpu.softmax(flat, to.reshape(flat.shape))
    return to


@boundary("x", "weight", "out")
def rms_norm(
    x: Array,
    weight: Array | None = None,
    *,
    eps: float = 1e-6,
    out: Array | None = None,
    backend: Backend = "auto",
) -> Array:
    """``x / sqrt(mean(x²) + eps) · weight`` (Zhang and Sennrich 2019, arXiv:1910.07467).

    Of each row, the last axis, of n numbers; weight: (n,). A row with NaN or infinity is NaN; no
    finite row overflows.
    """
    if not eps >= 0:
        raise ValueError(f"eps must not be negative: {eps}")
    if weight is not None and tuple(weight.shape) != tuple(x.shape[-1:]):
        raise ValueError(f"weight is {tuple(weight.shape)}, and must be {tuple(x.shape[-1:])}")
    if use_cuda(backend, "rms_norm", (x, weight), int(x.size) * 8):
        from .cuda import norms as cuda

        return cuda.rms_norm(x, weight, eps, out)
    from .cpu import norms as cpu

    flat, shape = rows(host(x, np.float32, "x"), "x")
    to = output(out, shape, np.float32)
    w = np.empty(0, np.float32) if weight is None else host(weight, np.float32, "weight")
    if flat.size:
        cpu.rms_norm(flat, w, eps, to.reshape(flat.shape))
    return to


@crossover.probe("softmax")
def _probe_softmax(backend: str, size: int) -> None:
    softmax(np.linspace(-3, 3, size // 8, dtype=np.float32).reshape(-1, 1024), backend=backend)  # type: ignore[arg-type]


@crossover.probe("rms_norm")
def _probe_rms(backend: str, size: int) -> None:
    rms_norm(np.linspace(-3, 3, size // 8, dtype=np.float32).reshape(-1, 1024), backend=backend)  # type: ignore[arg-type]

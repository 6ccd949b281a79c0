"""Synthetic load, for benchmarks and tests of a scheduler: a known amount of work, provably done.

Errors as in `elementwise`.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, host, output
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary

#: Operations a round and element: what the load amounts to.
SPIN_OPERATIONS, POST_OPERATIONS = 6, 16


@boundary("seeds", "out")
def spin(
    seeds: Array, rounds: int, *, out: Array | None = None, backend: Backend = "auto"
) -> Array:
    """`rounds` steps of xorshift32 (Marsaglia 2003, doi:10.18637/jss.v008.i14) for each seed.

    seeds: any shape, uint32; the same shape comes back. A step is 6 integer operations, each of
    which waits for the one before: the latency load. From the same seed always the same number.
    """
    _rounds(rounds)
    if use_cuda(backend, "spin", (seeds,), 0):
        from .cuda import synthetic_load as cuda

        return cuda.run("spin", seeds, rounds, out)
    from .cpu import synthetic_load as cpu

    x = host(seeds, np.uint32, "seeds")
    to = output(out, x.shape, np.uint32)
    cpu.spin(x.reshape(-1), rounds, to.reshape(-1))
    return to


@boundary("x", "out")
def post(x: Array, rounds: int, *, out: Array | None = None, backend: Backend = "auto") -> Array:
    """``Σ_j a_j``: each of ``a_j = x + j``, j < 8, `rounds` times through ``a (1 - 2⁻¹⁰) + 2⁻¹⁰``.

    x: any shape, float32; the same shape comes back. A round is 8 multiply-adds, 16 operations,
    none of which waits for another: the throughput load, as of work done on results.
    """
    _rounds(rounds)
    if use_cuda(backend, "post", (x,), 0):
        from .cuda import synthetic_load as cuda

        return cuda.run("post", x, rounds, out)
    from .cpu import synthetic_load as cpu

    given = host(x, np.float32, "x")
    to = output(out, given.shape, np.float32)
    cpu.post(given.reshape(-1), rounds, to.reshape(-1))
    return to


def _rounds(rounds: int) -> None:
    if not 0 <= rounds < 2**31:
        raise ValueError(f"rounds must be from 0 to 2³¹ - 1, not {rounds}")

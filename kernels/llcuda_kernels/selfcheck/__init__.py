"""Every operation on this machine, checked against its reference: for doctors and benchmarks.

A check draws fresh inputs (with outliers, odd sizes, NaN and infinity where they are allowed), runs
the operation on one backend and says by how much it missed, as a share of what is allowed: above 1
it failed. NaN in the wrong place is infinitely wrong. On a device, memory is filled with NaN first,
so that nothing passes that was not written.

It is above the operations, and may import all of `llcuda_kernels`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from llcuda_kernels.errors import BackendError
from llcuda_kernels.runtime.backend import Backend

from . import products, rows, search, tokens
from .check import Miss, miss_of, poison, topk_miss

__all__ = ["Miss", "Outcome", "miss_of", "names", "run", "topk_miss"]

_CHECKS = {**rows.CHECKS, **tokens.CHECKS, **search.CHECKS, **products.CHECKS}


@dataclass(frozen=True)
class Outcome:
    """Of one operation.

    Attributes:
        miss: the worst number's error, as a share of the error that is allowed for it.
        reason: why not passed.
        error, allowed: both of them, absolute; None of a check that asks for equality.
    """

    name: str
    backend: str
    passed: bool
    miss: float
    seconds: float
    reason: str = ""
    error: float | None = None
    allowed: float | None = None


def names() -> list[str]:
    """The operations that there are checks for."""
    return list(_CHECKS)


def run(name: str, backend: Backend, seed: int | None = None) -> Outcome:
    """Run one check; errors of the machine become an outcome, not an exception."""
    start = time.perf_counter()
    found, reason = float("inf"), ""
    try:
        if backend == "cuda":
            poison()
        found = _CHECKS[name](backend, np.random.default_rng(seed))
        if not found <= 1:
            reason = f"misses the reference by {found:.3g} times what is allowed"
    except BackendError as error:
        reason = str(error)
    except Exception as error:  # whatever a driver or compiler raises
        first = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first}"
    seconds = time.perf_counter() - start
    worst = found if isinstance(found, Miss) else None
    return Outcome(
        name,
        backend,
        found <= 1,
        float(found),
        seconds,
        reason,
        None if worst is None else worst.error,
        None if worst is None else worst.allowed,
    )

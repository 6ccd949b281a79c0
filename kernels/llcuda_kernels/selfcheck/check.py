"""What a check is, what it draws, and how far off a result is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from llcuda_kernels import reference

Check = Callable[[Any, np.random.Generator], float]


def into(checks: dict[str, Check]) -> Callable[[str], Callable[[Check], Check]]:
    """A decorator that keeps a check in `checks` under the operation's name."""

    def check(name: str) -> Callable[[Check], Check]:
        def keep(function: Check) -> Check:
            checks[name] = function
            return function

        return keep

    return check


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    """Random floats with a few large ones among them."""
    x = rng.standard_normal(shape).astype(np.float32)
    if x.size > 8:
        x.reshape(-1)[rng.integers(0, x.size, max(1, x.size // 500))] *= 30
    return x


def odd(rng: np.random.Generator, length: int) -> np.ndarray[Any, Any]:
    """Rows that hold what breaks arithmetic: one kind a row."""
    x = normal(rng, 8, length)
    big = np.finfo(np.float32).max
    x[0], x[1], x[2], x[3], x[4] = 0, np.nan, np.inf, big, -big
    x[5, -1], x[6, 0] = np.nan, -np.inf
    return x


class Miss(float):
    """How far off the worst number is: its error as a share of the error allowed there.

    Attributes:
        error: its absolute error.
        allowed: the error allowed for it.
    """

    error: float
    allowed: float

    def __new__(cls, share: float, error: float, allowed: float) -> Miss:
        """The share, with what it is the share of."""
        found = super().__new__(cls, share)
        found.error, found.allowed = error, allowed
        return found


def greatest(errors: Any, allowed: Any) -> float:
    """The greatest error as a share of what is allowed; NaN counts as infinite.

    Args:
        errors, allowed: absolute, of each number.
    """
    errors, allowed = np.broadcast_arrays(errors, allowed)
    if not errors.size:
        return 0.0
    with np.errstate(all="ignore"):
        shares = np.where(errors == 0, 0.0, errors / allowed)
    shares = np.where(np.isnan(shares), np.inf, shares)
    worst = int(np.argmax(shares))
    return Miss(*(float(of.flat[worst]) for of in (shares, errors, allowed)))


def miss_of(got: Any, want: Any, rtol: float, atol: float) -> float:
    """The greatest ``|got - want| / (atol + rtol |want|)``; infinite where NaN or inf differ."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        same = (got == want.astype(np.float32)) | (np.isnan(got) & np.isnan(want))
        allowed = atol + rtol * np.where(np.isfinite(want), np.abs(want), 0.0)
        return greatest(np.where(same, 0.0, np.abs(got - want)), allowed)


def topk_miss(values: Any, rows: Any, scores: Any, k: int, allowed: float) -> float:
    """How far a top-k is from the true one: in its values, and in the scores of its rows."""
    want, _ = reference.search.best(scores, k)
    miss = miss_of(values, want, 0.0, allowed)
    for q in range(scores.shape[0]):
        found = rows[q][rows[q] >= 0]
        if len(set(found.tolist())) != min(k, int((~np.isnan(scores[q])).sum())):
            return float("inf")
        miss = max(miss, miss_of(values[q, : found.size], scores[q, found], 0.0, allowed))
    return miss


def poison() -> None:
    """Leave NaN in the memory that the next arrays will be made of."""
    from llcuda_kernels.runtime.device import gpu

    if not gpu().usable:
        return
    from llcuda_kernels.cuda.runtime import driver
    from llcuda_kernels.cuda.runtime.array import empty

    block = empty((1 << 26,), np.uint8)
    driver.fill(block.address, 0xFF, block.nbytes)


@contextmanager
def as_if(backend: str, capability: tuple[int, int]) -> Iterator[None]:
    """Let this device pass for an older one."""
    if backend != "cuda":
        yield
        return
    from llcuda_kernels.cuda.runtime import driver

    found = driver.compute_capability
    driver.compute_capability = lambda: capability
    try:
        yield
    finally:
        driver.compute_capability = found

"""Inputs that find mistakes, and comparisons that NaN does not pass."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

#: Lengths that divide nothing, and those around a warp, a vector load and a block.
LENGTHS = (0, 1, 3, 4, 5, 31, 32, 33, 127, 128, 129, 255, 257, 768, 1023, 1025, 4099)
TINY, HUGE = np.float32(1e-42), np.finfo(np.float32).max


def normal(shape: tuple[int, ...], seed: int, outliers: bool = True) -> Floats:
    """Random floats with a few large ones among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    if outliers and x.size:
        flat = x.reshape(-1)
        flat[rng.integers(0, flat.size, max(1, flat.size // 500))] *= 50
    return x


def odd_rows(length: int, seed: int = 7) -> Floats:
    """Rows that hold what breaks arithmetic: one kind a row, at several places."""
    x = normal((12, length), seed)
    if not length:
        return x
    x[0] = 0
    x[1] = np.nan
    x[2] = np.inf
    x[3] = -np.inf
    x[4] = HUGE
    x[5] = -HUGE
    x[6] = TINY
    x[7, -1] = np.nan
    x[8, 0] = np.inf
    x[9, length // 2] = -np.inf
    x[10] = np.where(np.arange(length) % 2, HUGE, -HUGE)
    x[11] = 1
    return x


def assert_close(got: Any, want: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """The same shape, NaN and infinities at the same places, and numbers within the tolerance."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    with np.errstate(over="ignore"):
        # What float32 cannot hold is infinite there.
        want32 = want.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(
        np.where(np.isinf(got), got, 0), np.where(np.isinf(want32), want32, 0)
    )
    known = np.isfinite(want32)
    np.testing.assert_allclose(got[known], want[known], rtol=rtol, atol=atol)


def assert_codes(got: Any, exact: Any, slack: float = 1e-4) -> None:
    """Each code is the nearest whole number to `exact`, but for ties within `slack` of a half."""
    assert got.dtype == np.int8
    assert got.shape == exact.shape
    if got.size:
        assert np.abs(got - exact).max() <= 0.5 + slack


def assert_topk(values: Any, indices: Any, scores: Any, k: int, atol: float = 1e-6) -> None:
    """The k best of each row of `scores` (float64), in order, but for what is equal within `atol`.

    A score's own index must be right; only between near-equal ones may the choice differ.
    """
    from llcuda_kernels import reference

    want, _ = reference.search.best(scores, k)
    assert_close(values, want, rtol=1e-5, atol=atol)
    for row in range(scores.shape[0]):
        found = indices[row][indices[row] >= 0]
        assert len(set(found.tolist())) == found.size
        assert found.size == min(k, int((~np.isnan(scores[row])).sum()))
        np.testing.assert_array_equal(indices[row, found.size :], -1)
        assert_close(values[row, : found.size], scores[row, found], rtol=1e-5, atol=atol)

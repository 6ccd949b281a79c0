"""exp in float32 without a branch, so that loops over it vectorise."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import exact

_LOG2E = np.float32(1.4426950408889634)
# ln 2 in two parts, of which the first has so few bits that n times it is exact
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)


@exact
def exp_nonpositive(x: Any) -> Any:
    """``exp(x)`` for x ≤ 0, within 2 units in the last place; 0 below -87. NaN stays NaN.

    ``exp(x) = 2^n · exp(r)`` with ``n = round(x / ln 2)`` and ``|r| ≤ ln 2 / 2``, where the
    Taylor series to the seventh power is exact to float32.
    """
    inside = max(x, np.float32(-87.0))
    n = np.floor(inside * _LOG2E + np.float32(0.5))
    r = (inside - n * _LN2_HIGH) - n * _LN2_LOW
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    y = p * power
    y = y if x >= np.float32(-87.0) else np.float32(0.0)
    return y if x == x else x

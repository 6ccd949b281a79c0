"""Synthetic load on all cores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .jit import exact, parallel

_FACTOR, _SUMMAND = np.float32(1 - 2.0**-10), np.float32(2.0**-10)


@parallel
def spin(seeds: Any, rounds: Any, out: Any) -> None:
    """xorshift32, `rounds` times."""
    for i in prange(seeds.size):
        x = np.uint32(seeds[i])
        for _ in range(rounds):
            x = np.uint32(x ^ np.uint32(x << np.uint32(13)))
            x = np.uint32(x ^ np.uint32(x >> np.uint32(17)))
            x = np.uint32(x ^ np.uint32(x << np.uint32(5)))
        out[i] = x


@exact
def _chains(x: Any, rounds: Any) -> Any:
    a = np.empty(8, np.float32)
    for j in range(8):
        a[j] = x + np.float32(j)
    for _ in range(rounds):
        for j in range(8):
            a[j] = a[j] * _FACTOR + _SUMMAND
    total = np.float32(0.0)
    for j in range(8):
        total += a[j]
    return total


@parallel
def post(x: Any, rounds: Any, out: Any) -> None:
    """Eight chains of multiply-adds an element."""
    for i in prange(x.size):
        out[i] = _chains(x[i], rounds)

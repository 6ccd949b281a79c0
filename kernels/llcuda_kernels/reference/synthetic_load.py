"""Synthetic load: work whose amount is known and whose result proves that it was done."""

from __future__ import annotations

from typing import Any

import numpy as np

from .norms import Floats

#: Of `post`: chains an element, and the factor and summand of a step. The fixed point is 1.
CHAINS = 8
FACTOR, SUMMAND = 1 - 2.0**-10, 2.0**-10


def spin(seeds: Any, rounds: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """`rounds` steps of xorshift32 (Marsaglia 2003, doi:10.18637/jss.v008.i14) for each seed.

    Six operations a step, each of which waits for the one before: the latency load.
    """
    x = np.array(seeds, np.uint32)
    for _ in range(rounds):
        x ^= x << np.uint32(13)
        x ^= x >> np.uint32(17)
        x ^= x << np.uint32(5)
    return x


def post(x: Any, rounds: int) -> Floats:
    """``Σ_j a_j``: ``a_j = x + j``, j < 8, went `rounds` times through ``a · FACTOR + SUMMAND``.

    Eight multiply-adds a round and element, none of which waits for another: the throughput load.
    """
    a = np.asarray(x, np.float64)[..., None] + np.arange(CHAINS)
    for _ in range(rounds):
        a = a * FACTOR + SUMMAND
    return np.asarray(a.sum(axis=-1))

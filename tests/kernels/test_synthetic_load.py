"""Synthetic load does the rounds that it is asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference
from tests.support.kernels.cases import assert_close, normal


def test_spin_does_its_rounds() -> None:
    seeds = np.arange(1000, dtype=np.uint32)
    for rounds in (0, 1, 7, 100):
        got = k.spin(seeds, rounds, backend="cpu")
        np.testing.assert_array_equal(got, reference.synthetic_load.spin(seeds, rounds))
    assert got[0] == 0
    assert len(set(got.tolist())) == 1000
    with pytest.raises(ValueError, match="rounds"):
        k.spin(seeds, -1)


def test_post_does_its_rounds() -> None:
    x = normal((100,), 1)
    for rounds in (0, 1, 50, 3000):
        assert_close(
            k.post(x, rounds, backend="cpu"), reference.synthetic_load.post(x, rounds), rtol=1e-4
        )
    # a round brings every chain nearer to 1, so the number of rounds shows in the sum
    sums = [float(k.post(np.full(1, 10.0, np.float32), n)[0]) for n in range(5)]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == 5
    assert math.isnan(k.post(np.full(1, np.nan, np.float32), 3)[0])

"""Bytes to planes and back, in the simulator: whole tiles, cut ones, planes at any byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llcuda_kernels import reference
from llcuda_kernels.cuda.planes import launch as cuda
from llcuda_kernels.planes import runs_of

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("fields", "blocks", "rest"),
    [
        ((1, 1), 16 * 5, 1),  # pairs through registers
        ((1, 1), 17, 0),  # planes that begin at no word
        ((1, 1, 32), 483, 33),  # more than one tile, the last cut short
        ((1, 1, 16), 3, 0),
        ((1, 1, 32), 4 * 121, 33),  # by whole words; the second tile is a cut one
        ((1, 1, 16), 4 * 228, 0),
        ((1, 1, 16), 4, 1),
        ((2, 3, 5), 101, 4),  # words over the edges of fields
        ((1, 2, 1, 3), 21, 6),
        ((1024,), 17, 7),
        ((7,), 0, 5),
        pytest.param((1, 1), 16 * 1025, 0, marks=slow),
        pytest.param((1,) * 384, 50, 3, marks=slow),
        pytest.param((1, 1, 32), 4 * 481 + 7, 3, marks=slow),
        pytest.param((128, 64, 16, 2), 300, 3, marks=slow),
    ],
)
def test_planes(fields: tuple[int, ...], blocks: int, rest: int) -> None:
    n = blocks * sum(fields) + rest
    data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
    planes: Any = cuda.run("split_planes", data, runs_of(fields))
    np.testing.assert_array_equal(planes, reference.planes.split_planes(data, fields))
    np.testing.assert_array_equal(cuda.run("join_planes", planes, runs_of(fields)), data)


def test_nothing() -> None:
    for name in ("split_planes", "join_planes"):
        assert cuda.run(name, np.empty(0, np.uint8), runs_of("f16")).shape == (0,)

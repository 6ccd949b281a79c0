"""What an operation takes, and what it makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from llcuda_kernels import arrays


def test_arrays_keep_their_kind() -> None:
    assert arrays.host([1, 2], np.float32, "x").dtype == np.float32
    assert arrays.host(np.array([1e300]), np.float32, "x")[0] == np.inf
    with pytest.raises(TypeError, match="x is float64, and must be int8"):
        arrays.host(np.ones(2), np.int8, "x")
    with pytest.raises(ValueError, match="x has 1 dimensions, and must have 2"):
        arrays.host(np.ones(2), np.float32, "x", 2)

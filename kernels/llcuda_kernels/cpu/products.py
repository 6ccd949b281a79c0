"""int8 products; float32 ones are NumPy's BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .jit import parallel

#: Rows of B that stay in the nearest cache while rows of A pass.
_TILE = 16


@parallel
def matmul_int8(a: Any, b: Any, out: Any) -> None:
    """``out[i, j] = Σ_k a[i, k] b[j, k]`` in int32."""
    tiles = (b.shape[0] + _TILE - 1) // _TILE
    for tile in prange(tiles):
        for i in range(a.shape[0]):
            left = a[i]
            for j in range(tile * _TILE, min((tile + 1) * _TILE, b.shape[0])):
                right = b[j]
                total = np.int32(0)
                for k in range(left.size):
                    total += np.int32(left[k]) * np.int32(right[k])
                out[i, j] = total

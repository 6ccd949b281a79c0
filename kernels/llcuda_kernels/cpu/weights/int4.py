"""int4 groups: unpacked, or multiplied with a vector without ever being stored unpacked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from llcuda_kernels.cpu.jit import parallel, serial


@serial
def _shift(column: Any, awq: Any) -> Any:
    """Where a column of eight is in its word, in bits."""
    if not awq:
        return 4 * column
    return 4 * (column // 2 + 4 * (column % 2))


@serial
def _weight(qweight: Any, row: Any, column: Any, awq: Any) -> Any:
    if awq:
        return (qweight[row, column >> 3] >> _shift(column & 7, True)) & 15
    return (qweight[row >> 3, column] >> (4 * (row & 7))) & 15


@serial
def _zero(qzeros: Any, group: Any, column: Any, awq: Any) -> Any:
    z = (qzeros[group, column >> 3] >> _shift(column & 7, awq)) & 15
    return z if awq else z + 1


@parallel
def dequantize(qweight: Any, qzeros: Any, scales: Any, of: Any, awq: Any, out: Any) -> None:
    """``(q - z) · s``, (K, N); of: (K,), the group of each row."""
    for k in prange(out.shape[0]):
        g = of[k]
        for n in range(out.shape[1]):
            q = _weight(qweight, k, n, awq) - _zero(qzeros, g, n, awq)
            out[k, n] = np.float32(q) * scales[g, n]


@parallel
def times_vector(x: Any, qweight: Any, qzeros: Any, scales: Any, awq: Any, partial: Any) -> None:
    """Fill partial, (parts, N): the sum over the groups of each part."""
    groups, columns = scales.shape
    parts = partial.shape[0]
    size = x.size // max(1, groups)
    for part in prange(parts):
        total = partial[part]
        total[:] = 0.0
        sums = np.empty(columns, np.float32)
        for g in range(groups * part // parts, groups * (part + 1) // parts):
            sums[:] = 0.0
            for k in range(g * size, (g + 1) * size):
                v = x[k]
                for n in range(columns):
                    sums[n] += v * np.float32(
                        _weight(qweight, k, n, awq) - _zero(qzeros, g, n, awq)
                    )
            for n in range(columns):
                total[n] += sums[n] * scales[g, n]


@parallel
def times_vector_in_any_order(
    x: Any, qweight: Any, qzeros: Any, scales: Any, of: Any, partial: Any
) -> None:
    """GPTQ with a group a row (`of`, (K,)). Fill partial, (parts, N): the sum over each part."""
    columns = scales.shape[1]
    parts = partial.shape[0]
    for part in prange(parts):
        total = partial[part]
        total[:] = 0.0
        for k in range(x.size * part // parts, x.size * (part + 1) // parts):
            v, g = x[k], of[k]
            for n in range(columns):
                q = _weight(qweight, k, n, False) - _zero(qzeros, g, n, False)
                total[n] += v * (np.float32(q) * scales[g, n])

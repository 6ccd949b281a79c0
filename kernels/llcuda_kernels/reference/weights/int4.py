"""int4 weights in groups, as AWQ and GPTQ store them, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.reference.norms import Floats

#: AWQ keeps column c of eight in nibble AWQ_NIBBLE[c]; GPTQ keeps row r in nibble r.
AWQ_NIBBLE = (0, 4, 1, 5, 2, 6, 3, 7)


def _nibbles(words: Any, order: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    bits = np.asarray(words).view(np.uint32)[..., None] >> (4 * np.array(order, np.uint32))
    return (bits & 15).astype(np.int64)


def dequantize_int4(
    qweight: Any, qzeros: Any, scales: Any, layout: str = "awq", g_idx: Any = None
) -> Floats:
    """``W[k, n] = (q[k, n] - z[g, n]) · s[g, n]`` with ``g = k // (K / groups)``; (K, N).

    "awq" (Lin et al. 2023, arXiv:2306.00978): qweight (K, N/8), qzeros (groups, N/8), a word
    holding eight columns in the order 0 2 4 6 1 3 5 7. "gptq" (Frantar et al. 2022,
    arXiv:2210.17323, the format of AutoGPTQ's first version): qweight (K/8, N), a word holding
    eight rows; qzeros (groups, N/8), eight columns in order, each stored less one. g_idx: (K,),
    the g of each row where it is not that.
    """
    s = np.asarray(scales, np.float64)
    groups, columns = s.shape
    if layout == "awq":
        q = _nibbles(qweight, AWQ_NIBBLE).reshape(len(qweight), columns)
        z = _nibbles(qzeros, AWQ_NIBBLE).reshape(groups, columns)
    else:
        q = np.moveaxis(_nibbles(qweight, tuple(range(8))), 2, 1).reshape(8 * len(qweight), columns)
        z = _nibbles(qzeros, tuple(range(8))).reshape(groups, columns) + 1
    of = np.arange(q.shape[0]) // max(1, q.shape[0] // max(1, groups)) if g_idx is None else g_idx
    with np.errstate(invalid="ignore"):
        return np.asarray((q - z[of]) * s[of])


def int4_times_vector(
    x: Any, qweight: Any, qzeros: Any, scales: Any, layout: str = "awq", g_idx: Any = None
) -> Floats:
    """``y[n] = Σ_k x[k] W[k, n]``."""
    with np.errstate(invalid="ignore"):
        w = dequantize_int4(qweight, qzeros, scales, layout, g_idx)
        return np.asarray(np.asarray(x, np.float64) @ w)

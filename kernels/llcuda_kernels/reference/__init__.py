"""The truth: every operation in float64 NumPy, written to be read and not to be fast.

Inputs of any float type are taken to float64 first; results are float64 (codes and indices are
integers). What the other paths give is compared with these. NaN and infinity mean what they mean
here. It may import nothing but NumPy.
"""

from __future__ import annotations

from . import (
    elementwise,
    norms,
    planes,
    products,
    quantize,
    sampling,
    search,
    synthetic_load,
    tokens,
    weights,
)

__all__ = [
    "elementwise",
    "norms",
    "planes",
    "products",
    "quantize",
    "sampling",
    "search",
    "synthetic_load",
    "tokens",
    "weights",
]

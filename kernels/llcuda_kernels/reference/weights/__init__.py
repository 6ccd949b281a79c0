"""Quantised weights: int4 in groups, and the blocks of GGUF files. It may import NumPy, `norms`."""

from __future__ import annotations

from . import blocks, int4

__all__ = ["blocks", "int4"]

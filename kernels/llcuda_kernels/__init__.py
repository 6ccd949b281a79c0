"""Kernels for what language models give back: Numba CUDA, with a CPU path for each operation.

Every operation is one function with ``backend="auto" | "cpu" | "cuda"``; `reference` holds each of
them in float64 NumPy. Names are imported when they are first used, since Numba takes a while.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .device import Gpu, gpu, to_device, to_host
    from .embeddings import dequantize_int8, l2_normalize, normalize_quantize, quantize_int8
    from .errors import BackendError, KernelError, MemoryLimitError
    from .search import cosine_topk, inverse_norms
    from .tokens import (
        Certainty,
        ListStatistics,
        TokenStatistics,
        certainty,
        list_statistics,
        token_statistics,
    )
    from .vectors import VectorStore

_HOME = {
    "device": ["Gpu", "gpu", "to_device", "to_host"],
    "embeddings": ["dequantize_int8", "l2_normalize", "normalize_quantize", "quantize_int8"],
    "errors": ["BackendError", "KernelError", "MemoryLimitError"],
    "search": ["cosine_topk", "inverse_norms"],
    "tokens": [
        "Certainty",
        "ListStatistics",
        "TokenStatistics",
        "certainty",
        "list_statistics",
        "token_statistics",
    ],
    "vectors": ["VectorStore"],
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BackendError",
    "Certainty",
    "Gpu",
    "KernelError",
    "ListStatistics",
    "MemoryLimitError",
    "TokenStatistics",
    "VectorStore",
    "certainty",
    "cosine_topk",
    "dequantize_int8",
    "gpu",
    "inverse_norms",
    "l2_normalize",
    "list_statistics",
    "normalize_quantize",
    "quantize_int8",
    "to_device",
    "to_host",
    "token_statistics",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)

"""Kernels for what language models give back: Numba CUDA, with a CPU path for each operation.

Every operation is one function with ``backend="auto" | "cpu" | "cuda"``; `reference` holds each of
them in float64 NumPy. Names are imported when they are first used, since Numba takes a while.

>>> logits = np.log(np.array([[0.5, 0.25, 0.25], [1.0, 1.0, 2.0]], np.float32))
>>> found = token_statistics(logits, np.array([0, 2]), k=2)
>>> print(found.surprisal.round(3), found.perplexity.round(3))
[0.693 0.693] [2.828 2.828]
>>> print(found.top_indices.tolist())
[[0, 1], [2, 0]]

Arrays are NumPy's, CuPy's, PyTorch's or others', and results of the same kind (`runtime.boundary`).

From the ground up: `errors` and `arrays`; `reference`; `cpu`; `cuda`, on its own `cuda.runtime` and
`cuda.primitives`; `runtime`, which chooses between the paths; the operations, each a module here;
`selfcheck`. A module may import what is below it, and nothing of llcuda's other packages.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .elementwise import gelu, relu, silu, vector_add
    from .embeddings import dequantize_int8, l2_normalize, normalize_quantize, quantize_int8
    from .errors import BackendError, KernelError, MemoryLimitError
    from .norms import rms_norm, softmax
    from .planes import PLANE_FIELDS, join_planes, split_planes
    from .products import from_bf16, gemm, matmul, matmul_bf16, matmul_int8, to_bf16
    from .runtime.copies import to_device, to_host
    from .runtime.device import Gpu, gpu
    from .runtime.graphs import Graph, capture
    from .runtime.memory import MemoryPool, PoolStatistics
    from .runtime.streams import StreamManager
    from .sampling import Sampled, sample
    from .search import cosine_topk, inverse_norms
    from .several.one_process import DeviceLostError, SpreadStore, gpu_count
    from .several.sharded import MpiGather, NcclGather, ShardedStore
    from .synthetic_load import post, spin
    from .tokens import (
        Certainty,
        ListStatistics,
        TokenStatistics,
        certainty,
        list_statistics,
        token_statistics,
    )
    from .vectors import VectorStore
    from .weights.blocks import (
        blocks_times_vector,
        dequantize_q4_0,
        dequantize_q4_k,
        dequantize_q6_k,
        dequantize_q8_0,
    )
    from .weights.int4 import dequantize_int4, int4_times_vector

_HOME = {
    "runtime.streams": ["StreamManager"],
    "runtime.memory": ["MemoryPool", "PoolStatistics"],
    "runtime.graphs": ["Graph", "capture"],
    "runtime.copies": ["to_device", "to_host"],
    "runtime.device": ["Gpu", "gpu"],
    "elementwise": [
        "gelu",
        "relu",
        "silu",
        "vector_add",
    ],
    "embeddings": [
        "dequantize_int8",
        "l2_normalize",
        "normalize_quantize",
        "quantize_int8",
    ],
    "errors": [
        "BackendError",
        "KernelError",
        "MemoryLimitError",
    ],
    "several.sharded": [
        "MpiGather",
        "NcclGather",
        "ShardedStore",
        "SpreadStore",
    ],
    "several.one_process": [
        "DeviceLostError",
        "SpreadStore",
        "gpu_count",
    ],
    "synthetic_load": [
        "post",
        "spin",
    ],
    "norms": [
        "rms_norm",
        "softmax",
    ],
    "planes": [
        "PLANE_FIELDS",
        "join_planes",
        "split_planes",
    ],
    "products": [
        "from_bf16",
        "gemm",
        "matmul",
        "matmul_bf16",
        "matmul_int8",
        "to_bf16",
    ],
    "sampling": [
        "Sampled",
        "sample",
    ],
    "search": [
        "cosine_topk",
        "inverse_norms",
    ],
    "tokens": [
        "Certainty",
        "ListStatistics",
        "TokenStatistics",
        "certainty",
        "list_statistics",
        "token_statistics",
    ],
    "vectors": [
        "VectorStore",
    ],
    "weights.blocks": [
        "blocks_times_vector",
        "dequantize_q4_0",
        "dequantize_q4_k",
        "dequantize_q6_k",
        "dequantize_q8_0",
    ],
    "weights.int4": [
        "dequantize_int4",
        "int4_times_vector",
    ],
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "PLANE_FIELDS",
    "BackendError",
    "Certainty",
    "DeviceLostError",
    "Gpu",
    "Graph",
    "KernelError",
    "ListStatistics",
    "MemoryLimitError",
    "MemoryPool",
    "MpiGather",
    "NcclGather",
    "PoolStatistics",
    "Sampled",
    "ShardedStore",
    "SpreadStore",
    "StreamManager",
    "TokenStatistics",
    "VectorStore",
    "blocks_times_vector",
    "capture",
    "certainty",
    "cosine_topk",
    "dequantize_int4",
    "dequantize_int8",
    "dequantize_q4_0",
    "dequantize_q4_k",
    "dequantize_q6_k",
    "dequantize_q8_0",
    "from_bf16",
    "gelu",
    "gemm",
    "gpu",
    "gpu_count",
    "int4_times_vector",
    "inverse_norms",
    "join_planes",
    "l2_normalize",
    "list_statistics",
    "matmul",
    "matmul_bf16",
    "matmul_int8",
    "normalize_quantize",
    "post",
    "quantize_int8",
    "relu",
    "rms_norm",
    "sample",
    "silu",
    "softmax",
    "spin",
    "split_planes",
    "to_bf16",
    "to_device",
    "to_host",
    "token_statistics",
    "vector_add",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = found  # the next time Python finds it by itself
    return found

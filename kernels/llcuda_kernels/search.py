"""The exact nearest vectors by cosine: no index, no approximation, one pass over all of them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .arrays import Array, host, on_device
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary

#: The greatest k, and the longest int8 vector whose dot product fits 32 bits.
MAX_K = 1024
MAX_DIM = 131_071

Host: TypeAlias = np.ndarray[Any, Any]


@boundary("queries", "vectors", "inverse_norms")
def cosine_topk(
    queries: Array,
    vectors: Array,
    k: int,
    *,
    inverse_norms: Array | None = None,
    backend: Backend = "auto",
) -> tuple[Array, Array]:
    """The k vectors nearest to each query by ``q·v / (|q| |v|)``, and their scores.

    queries: (q, dim), vectors: (n, dim), both int8 (codes of `quantize_int8`; scales fall out of a
    cosine) or both float32; k from 1 to 1,024. inverse_norms: (n,) float32, ``1 / |v|`` where they
    are known already (`inverse_norms`); NaN there takes a vector out of the search.

    Returns scores (q, k) float32, greatest first, and rows (q, k) int64. Of equal scores the lower
    row comes first. A vector or query of zeros scores 0 with everything. One with NaN or infinity
    is never found, or finds nothing; where fewer than k are found, the rest is -inf at row -1. For
    int8 the dot product is exact. Raises TypeError, ValueError, BackendError.
    """
    if len(queries.shape) != 2 or len(vectors.shape) != 2 or queries.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and vectors {tuple(vectors.shape)} must be (q, dim) "
            "and (n, dim)"
        )
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be from 1 to {MAX_K}, not {k}")
    if inverse_norms is not None and tuple(inverse_norms.shape) != tuple(vectors.shape[:1]):
        raise ValueError("inverse_norms must be one number a vector")
    whole = np.dtype(vectors.dtype) == np.int8
    if whole and vectors.shape[1] > MAX_DIM:
        raise ValueError(f"int8 vectors can have {MAX_DIM} dimensions at most")
    work = int(vectors.size) * (1 if whole else 4)
    if use_cuda(backend, "cosine_topk", (queries, vectors, inverse_norms), work):
        from .cuda import search as cuda

        return cuda.cosine_topk(queries, vectors, k, inverse_norms)
    kind = np.int8 if whole else np.float32
    q, v = host(queries, kind, "queries", 2), host(vectors, kind, "vectors", 2)
    if not q.shape[0] or not v.shape[0]:
        shape = (q.shape[0], k)
        return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    from .cpu import quantize

    if inverse_norms is None:
        return _on_cpu(q, v, k, quantize.inverse_norms(v))
    return _on_cpu(q, v, k, host(inverse_norms, np.float32, "inverse_norms", 1))


@boundary("vectors")
def inverse_norms(vectors: Array, *, backend: Backend = "auto") -> Array:
    """``1 / |v|`` of each vector, (n, dim) int8 or float32, as float32: 0 for zeros, NaN where one
    is not finite.
    """
    if len(vectors.shape) != 2:
        raise ValueError(f"vectors must have 2 dimensions, not {len(vectors.shape)}")
    if backend == "cuda" or on_device(vectors):
        use_cuda(backend, "inverse_norms", (vectors,), 0)
        from .cuda import search as cuda

        return cuda.inverse_norms(vectors)
    from .cpu import quantize

    whole = np.dtype(vectors.dtype) == np.int8
    return quantize.inverse_norms(host(vectors, np.int8 if whole else np.float32, "vectors", 2))


def _on_cpu(q: Host, v: Host, k: int, inverse_v: Host) -> tuple[Host, Host]:
    from .cpu import quantize
    from .cpu import search as cpu
    from .cpu.jit import FEW, threads
    from .embeddings import l2_normalize

    # A part finds its own k best, so parts must be large beside k.
    parts = max(1, min(threads() * 4, v.shape[0] // max(256, 4 * k)))
    shape = (q.shape[0], parts, k)
    scores, found = np.empty(shape, np.float32), np.empty(shape, np.int64)
    if q.dtype == np.int8:
        cpu.topk_int8(q, quantize.inverse_norms(q), v, inverse_v, scores, found)
    else:
        cpu.topk_float32(l2_normalize(q, backend="cpu"), v, inverse_v, scores, found)
    out = np.empty((q.shape[0], k), np.float32), np.empty((q.shape[0], k), np.int64)
    merge = cpu.merge_all if scores.size > FEW else cpu.merge_few
    merge(scores, found, *out)
    return out


@crossover.probe("cosine_topk")
def _probe(backend: str, size: int) -> None:
    codes = (np.arange(max(1, size // 768) * 768) % 251 - 125).astype(np.int8).reshape(-1, 768)
    cosine_topk(codes[:1], codes, 10, backend=backend)  # type: ignore[arg-type]

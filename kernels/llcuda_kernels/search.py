"""The exact nearest vectors by cosine: no index, no approximation, one pass over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import crossover
from .arrays import Array, host, on_device
from .backend import Backend, use_cuda

#: The greatest k, and the longest int8 vector whose dot product fits 32 bits.
MAX_K = 1024
MAX_DIM = 131_071
#: float32 vectors: how many rows' scores are in memory at once.
_BLOCK = 8192


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
    known = None if inverse_norms is None else host(inverse_norms, np.float32, "inverse_norms", 1)
    if not q.shape[0] or not v.shape[0]:
        shape = (q.shape[0], k)
        return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
    return _int8(q, v, k, known) if whole else _float32(q, v, k, known)


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
    from .cpu import quantize as cpu

    whole = np.dtype(vectors.dtype) == np.int8
    v = host(vectors, np.int8 if whole else np.float32, "vectors", 2)
    out = np.empty(v.shape[0], np.float32)
    if v.shape[0]:
        (cpu.inverse_norms if whole else cpu.inverse_norms_float)(v, out)
    return out


def _int8(
    q: np.ndarray[Any, Any], v: np.ndarray[Any, Any], k: int, known: np.ndarray[Any, Any] | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from .cpu import search as cpu
    from .cpu.jit import threads

    # A part finds its own k best, so parts must be large beside k.
    parts = max(1, min(threads() * 4, v.shape[0] // max(256, 4 * k)))
    shape = (q.shape[0], parts, k)
    scores, found = np.empty(shape, np.float32), np.empty(shape, np.int64)
    inverse_v = inverse_norms(v) if known is None else known
    cpu.topk_int8(q, inverse_norms(q), v, inverse_v, scores, found)
    return _merged(scores, found)


def _float32(
    q: np.ndarray[Any, Any], v: np.ndarray[Any, Any], k: int, known: np.ndarray[Any, Any] | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """BLAS for the products, a block of rows at a time; float64 where float32 would overflow."""
    from .cpu import search as cpu
    from .embeddings import l2_normalize

    unit = l2_normalize(q, backend="cpu")
    ones = np.ones(q.shape[0], np.float32)
    scores = np.full((q.shape[0], k), -np.inf, np.float32)
    found = np.full((q.shape[0], k), -1, np.int64)
    for start in range(0, v.shape[0], _BLOCK):
        block = v[start : start + _BLOCK]
        if known is None:
            inverse = inverse_norms(block, backend="cpu")
        else:
            inverse = known[start : start + _BLOCK]
        with np.errstate(all="ignore"):
            usual = (inverse == 0) | ((inverse > 1e-15) & (inverse < 1e15)) | np.isnan(inverse)
            if usual.all():
                raw = unit @ block.T
            else:
                wide = block.astype(np.float64)
                peak = np.abs(wide).max(axis=1, initial=0.0)
                wide /= np.where(peak > 0, peak, 1.0)[:, None]
                norm = np.sqrt((wide * wide).sum(axis=1))
                wide /= np.where(norm > 0, norm, 1.0)[:, None]
                raw = (unit @ wide.T).astype(np.float32)
                inverse = np.where(np.isnan(inverse), inverse, np.float32(1.0))
        cpu.topk_scores(raw, ones, inverse, start, scores, found)
    return _merged(scores[:, None], found[:, None])


def _merged(
    scores: np.ndarray[Any, Any], found: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from .cpu import search as cpu

    count, _, k = scores.shape
    out = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
    cpu.merge_all(scores, found, *out)
    return out


@crossover.probe("cosine_topk")
def _probe(backend: str, size: int) -> None:
    codes = (np.arange(max(1, size // 768) * 768) % 251 - 125).astype(np.int8).reshape(-1, 768)
    cosine_topk(codes[:1], codes, 10, backend=backend)  # type: ignore[arg-type]

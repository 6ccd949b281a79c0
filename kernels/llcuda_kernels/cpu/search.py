"""The exact nearest by cosine: scores are compared as they are computed, and never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .heap import clear, merge, offer
from .jit import parallel, serial

#: Rows whose scores for one query after the other come out of the nearest cache.
_TILE = 16
#: Inverse norms between which a dot product in float32 neither overflows nor vanishes.
_LEAST, _MOST = np.float32(1e-15), np.float32(1e15)


@parallel
def topk_int8(
    queries: Any, inverse_q: Any, codes: Any, inverse_v: Any, scores: Any, indices: Any
) -> None:
    """Fill scores and indices, (queries, parts, k): the best of each part of the rows.

    The score is ``q·v · inverse_q · inverse_v`` in float32, the dot product exact in int32.
    """
    count, dim = queries.shape
    parts = scores.shape[1]
    total = codes.shape[0]
    for part in prange(parts):
        first, last = total * part // parts, total * (part + 1) // parts
        for q in range(count):
            clear(scores[q, part], indices[q, part])
        for start in range(first, last, _TILE):
            end = min(start + _TILE, last)
            for q in range(count):
                query = queries[q]
                top, at = scores[q, part], indices[q, part]
                for i in range(start, end):
                    row = codes[i]
                    dot = np.int32(0)
                    for j in range(dim):
                        dot += np.int32(query[j]) * np.int32(row[j])
                    score = np.float32(dot) * inverse_q[q] * inverse_v[i]
                    if score > top[0] or at[0] < 0:
                        offer(top, at, score, i)


@serial
def _dot(a: Any, b: Any) -> Any:
    total = np.float32(0.0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@serial
def _wide_cosine(unit: Any, row: Any) -> Any:
    """The cosine with a row whose squares float32 cannot hold, in float64."""
    dot = 0.0
    norm = 0.0
    for j in range(unit.size):
        v = np.float64(row[j])
        dot += np.float64(unit[j]) * v
        norm += v * v
    return np.float32(dot / np.sqrt(norm)) if norm > 0.0 else np.float32(0.0)


@parallel
def topk_float32(unit: Any, vectors: Any, inverse_v: Any, scores: Any, indices: Any) -> None:
    """As `topk_int8`; the queries have unit length already."""
    count = unit.shape[0]
    parts = scores.shape[1]
    total = vectors.shape[0]
    for part in prange(parts):
        first, last = total * part // parts, total * (part + 1) // parts
        for q in range(count):
            clear(scores[q, part], indices[q, part])
        for start in range(first, last, _TILE):
            end = min(start + _TILE, last)
            for q in range(count):
                query = unit[q]
                top, at = scores[q, part], indices[q, part]
                for i in range(start, end):
                    inverse = inverse_v[i]
                    if inverse == 0.0 or _LEAST < inverse < _MOST or inverse != inverse:
                        score = _dot(query, vectors[i]) * inverse
                    else:
                        score = _wide_cosine(query, vectors[i])
                    if score > top[0] or at[0] < 0:
                        offer(top, at, score, i)


@parallel
def merge_all(scores: Any, indices: Any, out_scores: Any, out_indices: Any) -> None:
    """`merge` for every query: (queries, parts, k) to (queries, k)."""
    for q in prange(scores.shape[0]):
        merge(scores[q], indices[q], out_scores[q], out_indices[q])


@serial
def merge_few(scores: Any, indices: Any, out_scores: Any, out_indices: Any) -> None:
    """`merge_all` on one core: waking the others costs more than a few small merges."""
    for q in range(scores.shape[0]):
        merge(scores[q], indices[q], out_scores[q], out_indices[q])

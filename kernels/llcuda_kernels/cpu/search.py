"""The exact nearest by cosine: scores are compared as they are computed, and never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .heap import clear, merge, offer
from .jit import parallel

#: Rows whose scores for one query after the other come out of the nearest cache.
_TILE = 16


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


@parallel
def topk_scores(raw: Any, inverse_q: Any, inverse_v: Any, base: Any, scores: Any, at: Any) -> None:
    """Offer the scores of more rows, from `base` on, to the heaps, (queries, k).

    `raw` holds plain dot products, (queries, rows).
    """
    for q in prange(raw.shape[0]):
        for i in range(raw.shape[1]):
            score = raw[q, i] * inverse_q[q] * inverse_v[i]
            if score > scores[q, 0] or at[q, 0] < 0:
                offer(scores[q], at[q], score, base + i)


@parallel
def merge_all(scores: Any, indices: Any, out_scores: Any, out_indices: Any) -> None:
    """`merge` for every query: (queries, parts, k) to (queries, k)."""
    for q in prange(scores.shape[0]):
        merge(scores[q], indices[q], out_scores[q], out_indices[q])

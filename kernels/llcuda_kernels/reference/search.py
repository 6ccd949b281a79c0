"""The exact nearest by cosine, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from .norms import Floats

Indices = np.ndarray[Any, np.dtype[np.int64]]


def best(scores: Any, k: int) -> tuple[Floats, Indices]:
    """The k greatest of each row, greatest first, and where they are.

    Of equal ones the lower index comes first. NaN is never among them. Where a row has fewer than
    k numbers the rest is -inf at index -1.
    """
    scores = np.asarray(scores, np.float64)
    count, length = scores.shape
    values = np.full((count, k), -np.inf)
    indices = np.full((count, k), -1, np.int64)
    for row in range(count):
        known = np.flatnonzero(~np.isnan(scores[row]))
        order = known[np.argsort(-scores[row, known], kind="stable")][: min(k, length)]
        values[row, : order.size] = scores[row, order]
        indices[row, : order.size] = order
    return values, indices


def cosine_scores(queries: Any, vectors: Any) -> Floats:
    """``q·v / (|q| |v|)`` of each query with each vector; 0 where one of them is zero.

    For int8 codes the scales fall out. NaN where either holds NaN or infinity.
    """
    q, v = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)

    def unit(x: Floats) -> Floats:
        peak = np.abs(x).max(axis=1, initial=0.0, keepdims=True)
        with np.errstate(invalid="ignore"):
            y = x / np.where(peak > 0, peak, 1.0)
        norm = np.sqrt((y * y).sum(axis=1, keepdims=True))
        y = y / np.where(norm > 0, norm, 1.0)
        y[~np.isfinite(x).all(axis=1)] = np.nan
        return np.asarray(y)

    return np.asarray(unit(q) @ unit(v).T)


def cosine_topk(queries: Any, vectors: Any, k: int) -> tuple[Floats, Indices]:
    """`best` of `cosine_scores`."""
    return best(cosine_scores(queries, vectors), k)

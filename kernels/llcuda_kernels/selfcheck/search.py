"""The exact nearest, and the index that grows."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels import embeddings, reference, search
from llcuda_kernels.vectors import VectorStore

from .check import Check, into, normal, odd, topk_miss

CHECKS: dict[str, Check] = {}
#: Rows that a GPU scans: `cuda.primitives.nearest.scan.LEAST_ROWS`, and a few.
MANY = (1 << 18) + 77
_check = into(CHECKS)


@_check("cosine_topk int8")
def _topk_int8(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    cases = [(1, 1, 1, 1), (1000, 33, 3, 10), (50_000, 768, 1, 10), (20_000, 384, 33, 100)]
    for n, dim, q, k in [*cases, (30_000, 64, 2, 1024), (3000, 3, 9, 128)]:
        v = rng.integers(-127, 128, (n, dim)).astype(np.int8)
        queries = rng.integers(-127, 128, (q, dim)).astype(np.int8)
        values, rows = search.cosine_topk(queries, v, k, backend=backend)
        scores = reference.search.cosine_scores(queries, v)
        worst = max(worst, topk_miss(values, rows, scores, k, 3e-6))
    # so many that a GPU scans them against a limit; then those that are found last of all
    for q in (1, 3):
        v = rng.integers(-127, 128, (MANY, 48)).astype(np.int8)
        queries = rng.integers(-127, 128, (q, 48)).astype(np.int8)
        scores = reference.search.cosine_scores(queries, v)
        for order in (slice(None), np.argsort(scores[0])):
            values, rows = search.cosine_topk(queries, v[order], 10, backend=backend)
            worst = max(worst, topk_miss(values, rows, scores[:, order], 10, 3e-6))
    return worst


@_check("cosine_topk float32")
def _topk_float32(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for n, dim, q, k in [
        (1, 1, 1, 1),
        (1000, 33, 3, 10),
        (20_000, 384, 9, 100),
        (5000, 9, 2, 1024),
        (MANY, 20, 2, 10),
    ]:
        v, queries = normal(rng, n, dim), normal(rng, q, dim)
        values, rows = search.cosine_topk(queries, v, k, backend=backend)
        scores = reference.search.cosine_scores(queries, v)
        worst = max(worst, topk_miss(values, rows, scores, k, 5e-6))
    x = odd(rng, 19)
    values, rows = search.cosine_topk(x, x, 8, backend=backend)
    return max(worst, topk_miss(values, rows, reference.search.cosine_scores(x, x), 8, 5e-6))


@_check("VectorStore")
def _store(backend: Any, rng: np.random.Generator) -> float:
    store = VectorStore(100, backend=backend)
    x = normal(rng, 9000, 100)
    for start in range(0, 9000, 1700):
        store.append(x[start : start + 1700])
    store.discard(5)
    codes, scales = store.arrays()
    known = np.where(np.isnan(scales)[:, None], np.float32(np.nan), codes.astype(np.float32))
    queries = embeddings.normalize_quantize(x[:3], backend="cpu")[0]
    values, rows = store.search(x[:3], 20)
    scores = reference.search.cosine_scores(queries.astype(np.float32), known)
    worst = topk_miss(values, rows, scores, 20, 3e-6)
    # many segments, and a scan over them
    many = VectorStore(33, backend=backend)
    codes = rng.integers(-127, 128, (MANY, 33)).astype(np.int8)
    for start in range(0, MANY, 70_001):
        part = codes[start : start + 70_001]
        many.append_codes(part, np.ones(len(part), np.float32))
    for q in (1, 3):
        values, rows = many.search(codes[MANY - q :], 7)
        scores = reference.search.cosine_scores(codes[MANY - q :], codes)
        worst = max(worst, topk_miss(values, rows, scores, 7, 3e-6))
    return worst

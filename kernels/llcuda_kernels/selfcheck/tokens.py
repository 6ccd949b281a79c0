"""Token statistics, of whole vocabularies and of lists."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels import reference, sampling, tokens

from .check import Check, into, miss_of, normal, odd

CHECKS: dict[str, Check] = {}
_check = into(CHECKS)


@_check("token_statistics")
def _tokens(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    cases = [(3, 1, 1), (5, 1000, 0), (4, 32_003, 10), (9, 128_256, 20), (2, 50_000, 1024)]
    rows = [(normal(rng, m, n) * 3, k) for m, n, k in cases]
    rows.append((np.sort(normal(rng, 2, 40_000), axis=1), 50))
    rows.append((odd(rng, 9000), 5))
    rows.append((np.full((2, 30_000), 1.5, np.float32), 20))
    for x, k in rows:
        chosen = rng.integers(0, x.shape[1], x.shape[0])
        got = tokens.token_statistics(x, chosen, k=k, backend=backend)
        want = reference.tokens.token_statistics(x, chosen, k)
        worst = max(
            worst,
            miss_of(got.log_sum_exp, want.log_sum_exp, 3e-6, 3e-6),
            miss_of(got.entropy, want.entropy, 3e-5, 3e-5),
            miss_of(got.perplexity, want.perplexity, 1e-4, 1e-5),
            miss_of(got.surprisal, want.surprisal, 1e-5, 1e-5),
            miss_of(got.top_values, want.top_values, 0.0, 1e-30),
            0.0 if np.array_equal(got.top_indices, want.top_indices) else float("inf"),
        )
    return worst


@_check("list_statistics")
def _lists(backend: Any, rng: np.random.Generator) -> float:
    x = np.log(rng.dirichlet(np.ones(60), 500)).astype(np.float32)[:, :20]
    x[3], x[4, 9:], x[5, 1], x[6, 2] = -np.inf, -np.inf, np.nan, np.inf
    chosen = normal(rng, 500)
    got = tokens.list_statistics(x, chosen, backend=backend)
    entropy, perplexity, surprisal = reference.tokens.list_statistics(x, chosen)
    return max(
        miss_of(got.entropy, entropy, 1e-5, 1e-5),
        miss_of(got.perplexity, perplexity, 1e-4, 1e-5),
        miss_of(got.surprisal, surprisal, 1e-6, 1e-9),
    )


@_check("sample")
def _sample(backend: Any, rng: np.random.Generator) -> float:
    for rows, length in [(1, 5), (300, 1000), (33, 128_256)]:
        values = normal(rng, rows, length)
        values[0, 0] = np.nan if rows > 1 else values[0, 0]
        for top_k, top_p, min_p, temperature in [
            (min(40, length), 0.95, 0.05, 0.8),
            (min(1000, length), 1.0, 0.0, 2.0),
            (1, 1.0, 0.0, 0.0),
        ]:
            seed = int(rng.integers(1 << 62))
            best, indices = reference.search.best(values, top_k)
            broken = np.isnan(values).any(axis=1)
            best[broken] = np.nan
            places = reference.sampling.sample(
                best, temperature=temperature, top_p=top_p, min_p=min_p, seed=seed
            )
            tokens = np.take_along_axis(indices, np.maximum(places, 0)[:, None], 1)[:, 0]
            got = sampling.sample(
                values, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                backend=backend,
            )  # fmt: skip
            if not np.array_equal(got.tokens, np.where(places >= 0, tokens, -1)):
                return float("inf")
    return 0.0

"""Which token a model would have taken: drawn from its logits, the same for a seed everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary
from .tokens import MAX_TOP, TokenStatistics, token_statistics

#: The units of top-p and min-p: shares are compared in whole numbers.
_SHARE = 1 << 20


@dataclass(frozen=True)
class Sampled:
    """What was drawn. tokens: (rows,) int32, -1 of a row without a distribution.

    statistics: of each row, with the surprisal of the token that was drawn and the top_k best.
    """

    tokens: Array
    statistics: TokenStatistics


@boundary("values")
def sample(
    values: Array,
    *,
    seed: int,
    temperature: float = 0.8,
    top_k: int = 40,
    top_p: float = 0.95,
    min_p: float = 0.05,
    first_row: int = 0,
    backend: Backend = "auto",
) -> Sampled:
    """Draw a token of each row, and the statistics of its distribution, in one pass over `values`.

    values: (rows, n_vocab) float32, logits or log-probabilities. The order is llama.cpp's: the
    top_k best; of these the fewest that hold top_p of their probability (Holtzman et al. 2020,
    arXiv:1904.09751); of these the ones at least min_p as probable as the best (Nguyen et al. 2024,
    arXiv:2407.01082); then the temperature; then a draw. Temperature 0 takes the best, the lower
    index first among equals.

    seed: 64 bits. Row r takes the random bits of counter ``first_row + r`` (Philox4x32-10), so that
    parts of a whole can be drawn apart. Probabilities are whole numbers in units of 2^-31, so a
    seed gives the same tokens on every CPU and GPU, for values that are the same.

    A row with NaN or +inf, or of -inf alone, has token -1. Raises TypeError, ValueError for
    parameters out of range (top_k: from 1 to 1,024), BackendError.
    """
    if not 1 <= top_k <= MAX_TOP:
        raise ValueError(f"top_k must be from 1 to {MAX_TOP}, not {top_k}")
    for name, share in (("top_p", top_p), ("min_p", min_p)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be from 0 to 1, not {share}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be 0 or more, and finite, not {temperature}")
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError("seed must fit 64 bits")
    if not 0 <= first_row < 1 << 62:
        raise ValueError(f"first_row must be 0 or more, not {first_row}")
    if len(values.shape) != 2:
        raise ValueError(f"values must have 2 dimensions, not {len(values.shape)}")
    by = 0.0  # greedy
    if temperature > 0:
        by = float(np.float32(min(math.log2(math.e) / temperature, 1e38)))
    shares = round(top_p * _SHARE), round(min_p * _SHARE)
    key = seed - (1 << 64) if seed >= 1 << 63 else seed
    if use_cuda(backend, "token_statistics", (values,), int(values.size) * 4):
        from .cuda import sampling as cuda

        tokens, *found = cuda.sample(values, top_k, by, *shares, key, first_row)
        return Sampled(tokens, TokenStatistics(*found))
    from .cpu import sampling as cpu

    of = token_statistics(values, k=top_k, backend="cpu")
    places = np.empty(values.shape[0], np.int64)
    # a row with NaN has candidates, but no distribution
    best = np.where(np.isnan(of.log_sum_exp)[:, None], np.float32(np.nan), of.top_values)
    cpu.draw(best, np.float32(by), *shares, key, first_row, places)
    at = np.maximum(places, 0)[:, None]
    there = places >= 0
    taken = np.take_along_axis(of.top_values, at, 1)[:, 0]
    tokens = np.where(there, np.take_along_axis(of.top_indices, at, 1)[:, 0], -1)
    with np.errstate(invalid="ignore"):
        surprisal = np.where(there, of.log_sum_exp - taken, np.nan)
    statistics = TokenStatistics(
        of.log_sum_exp,
        of.entropy,
        of.perplexity,
        surprisal.astype(np.float32),
        of.top_values,
        of.top_indices,
    )
    return Sampled(tokens.astype(np.int32), statistics)

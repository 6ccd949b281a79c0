"""What a row of logits or log-probabilities says about a token, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .norms import Floats
from .search import best


@dataclass(frozen=True)
class TokenTruth:
    """As `llcuda_kernels.TokenStatistics`, in float64."""

    log_sum_exp: Floats
    entropy: Floats
    perplexity: Floats
    surprisal: Floats
    top_values: Floats
    top_indices: np.ndarray[Any, np.dtype[np.int32]]


def token_statistics(x: Any, chosen: Any = None, k: int = 0) -> TokenTruth:
    """Statistics of the distributions ``softmax(x[i])``, in nats.

    ``log_sum_exp = log(sum(exp(x)))``; ``entropy = log_sum_exp - sum(p * x)`` with ``p * x = 0``
    where p is 0; ``perplexity = exp(entropy)``; ``surprisal = log_sum_exp - x[chosen]``, NaN where
    `chosen` is no token (negative, or beyond the last). A row of -inf alone, or with +inf or NaN,
    has no entropy: NaN; its log_sum_exp is -inf, +inf, NaN.
    """
    x = np.asarray(x, np.float64)
    count, length = x.shape
    with np.errstate(invalid="ignore", divide="ignore"):
        m = x.max(axis=1, initial=-np.inf)
        finite = np.isfinite(m)
        safe = np.where(finite[:, None], x, 0.0)
        d = safe - np.where(finite, m, 0.0)[:, None]
        e = np.exp(d)
        total = e.sum(axis=1)
        lse = np.where(finite, m + np.log(total), m)
        terms = np.where(e > 0, e * np.where(e > 0, d, 0.0), 0.0).sum(axis=1)
        entropy = np.where(finite, np.log(total) - terms / total, np.nan)
        picked = np.full(count, np.nan)
        if chosen is not None and length:
            at = np.asarray(chosen)
            known = (at >= 0) & (at < length)
            taken = np.take_along_axis(x, np.where(known, at, 0)[:, None], axis=1)[:, 0]
            picked = np.where(known, taken, np.nan)
        surprisal = lse - picked
    values, indices = best(x, k)
    return TokenTruth(lse, entropy, np.exp(entropy), surprisal, values, indices.astype(np.int32))


def list_statistics(logprobs: Any, chosen_logprob: Any) -> tuple[Floats, Floats, Floats]:
    """Entropy, its perplexity and the surprisal, from the n best log-probabilities of each token.

    The list holds true log-probabilities, and -inf where it is shorter than n. What it leaves out,
    ``rest = max(0, 1 - sum(p))``, is counted as one more token, so the entropy,
    ``-sum(p log p) - rest log rest``, is a lower bound of the true one. ``surprisal =
    -chosen_logprob``. An empty list, or one with NaN or +inf, has entropy NaN.
    """
    x = np.asarray(logprobs, np.float64)
    known = np.isneginf(x).all(axis=1) | np.isnan(x).any(axis=1) | np.isposinf(x).any(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        p = np.exp(x)
        rest = np.maximum(0.0, 1.0 - p.sum(axis=1))
        entropy = -np.where(p > 0, p * np.where(p > 0, x, 0.0), 0.0).sum(axis=1)
        entropy = entropy - np.where(rest > 0, rest * np.log(np.where(rest > 0, rest, 1.0)), 0.0)
    entropy = np.where(known, np.nan, entropy)
    return entropy, np.exp(entropy), -np.asarray(chosen_logprob, np.float64)

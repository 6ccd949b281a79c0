"""How sure a model was of a token, from its logits or log-probabilities. All in nats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, host, on_device
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary

#: The greatest k of `token_statistics`.
MAX_TOP = 1024


@dataclass(frozen=True)
class TokenStatistics:
    """One number a row each, float32: see `token_statistics`."""

    log_sum_exp: Array
    entropy: Array
    perplexity: Array
    surprisal: Array
    top_values: Array  # (rows, k) float32
    top_indices: Array  # (rows, k) int32


@dataclass(frozen=True)
class ListStatistics:
    """One number a row each, float32: see `list_statistics`."""

    entropy: Array
    perplexity: Array
    surprisal: Array


@dataclass(frozen=True)
class Certainty:
    """What a whole answer's surprisals say: see `certainty`."""

    mean_surprisal: float
    perplexity: float
    mean_entropy: float
    least_certain: tuple[int, int]  # the tokens from the first up to, not with, the second
    least_certain_surprisal: float


@boundary("values", "chosen")
def token_statistics(
    values: Array, chosen: Array | None = None, *, k: int = 0, backend: Backend = "auto"
) -> TokenStatistics:
    """Statistics of the distributions ``p = softmax(values[i])``, in one pass over `values`.

    values: (rows, n_vocab) float32, logits or log-probabilities (they give the same).
    chosen: (rows,) integers, the token that was taken. k: from 0 to 1,024.

    ``log_sum_exp = log Σ exp(x)``, 0 for true log-probabilities. ``entropy = -Σ p log p`` (Shannon
    1948), ``perplexity = exp(entropy)``. ``surprisal = -log p[chosen]``, NaN where that is no
    token of the vocabulary (as -1, for none).
    The k greatest values, greatest first, the lower index first among equals, with their indices;
    where fewer than k are numbers, the rest is -inf at -1.

    -inf is a token that cannot be. A row with NaN or +inf, or of -inf alone, has entropy NaN.
    Raises TypeError, ValueError for shapes and k out of range, BackendError.
    """
    if not 0 <= k <= MAX_TOP:
        raise ValueError(f"k must be from 0 to {MAX_TOP}, not {k}")
    if len(values.shape) != 2:
        raise ValueError(f"values must have 2 dimensions, not {len(values.shape)}")
    if use_cuda(backend, "token_statistics", (values, chosen), int(values.size) * 4):
        from .cuda import tokens as cuda

        return TokenStatistics(*cuda.token_statistics(values, chosen, k))
    x = host(values, np.float32, "values", 2)
    picked = _chosen(chosen, x.shape)
    count = x.shape[0]
    out = [np.empty(count, np.float32) for _ in range(3)]
    top = np.empty((count, k), np.float32), np.empty((count, k), np.int32)
    if count:
        from .cpu import tokens as cpu

        cpu.token_statistics(x, picked, out[0], out[1], out[2], top[0], top[1])
    lse, entropy, surprisal = out
    with np.errstate(over="ignore"):
        return TokenStatistics(lse, entropy, np.exp(entropy), surprisal, *top)


def _chosen(chosen: Array | None, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if chosen is None:
        return np.full(shape[0], -1, np.int64)
    picked = host(chosen, np.int64, "chosen", 1)
    if picked.shape[0] != shape[0]:
        raise ValueError(f"chosen has {picked.shape[0]} entries for {shape[0]} rows")
    return np.where(picked < shape[1], picked, -1)


@boundary("logprobs", "chosen_logprob")
def list_statistics(
    logprobs: Array, chosen_logprob: Array, *, backend: Backend = "auto"
) -> ListStatistics:
    """The same from a list of the n best log-probabilities a token, as a server gives them.

    logprobs: (rows, n) float32, true log-probabilities in any order, -inf where a list is shorter.
    chosen_logprob: (rows,) float32, that of the token taken, whether in the list or not.

    What the list leaves out, ``rest = max(0, 1 - Σp)``, counts as one more token: the entropy,
    ``-Σ p log p - rest log rest``, is the least that the whole distribution can have.
    ``perplexity = exp(entropy)``; ``surprisal = -chosen_logprob``. An empty list, or one with NaN
    or +inf, has entropy NaN. Raises TypeError, ValueError, BackendError.
    """
    if len(logprobs.shape) != 2 or tuple(chosen_logprob.shape) != tuple(logprobs.shape[:1]):
        raise ValueError("logprobs must be (rows, n), and chosen_logprob (rows,)")
    if use_cuda(backend, "list_statistics", (logprobs, chosen_logprob), int(logprobs.size) * 4):
        from .cuda import tokens as cuda

        return ListStatistics(*cuda.list_statistics(logprobs, chosen_logprob))
    from .cpu import tokens as cpu

    x = host(logprobs, np.float32, "logprobs", 2)
    found = cpu.list_statistics(x, host(chosen_logprob, np.float32, "chosen_logprob", 1))
    with np.errstate(over="ignore"):
        return ListStatistics(*(np.asarray(part).astype(np.float32) for part in found))


def certainty(surprisal: Array, entropy: Array | None = None, *, span: int = 5) -> Certainty:
    """What the tokens' surprisals, (tokens,), say of an answer; NaN ones are left out of means.

    ``perplexity = exp(mean surprisal)``. The least certain span is the run of `span` tokens (or of
    all, if there are fewer) with the greatest mean surprisal, the first of equals; a NaN in it
    counts as 0. Of no tokens everything is NaN, and the span is empty. Raises TypeError where the
    data lies on a device (it is small: copy it), ValueError for a span below 1.
    """
    if span < 1:
        raise ValueError(f"span must be at least 1, not {span}")
    if on_device(surprisal) or (entropy is not None and on_device(entropy)):
        raise TypeError("certainty works in the host's memory: copy the surprisals there first")
    s = np.asarray(surprisal, np.float64)
    known = s[~np.isnan(s)]
    mean = float(known.mean()) if known.size else float("nan")
    h = np.asarray([] if entropy is None else entropy, np.float64)
    h = h[~np.isnan(h)]
    width = min(span, s.size)
    start, worst = 0, float("nan")
    if width:
        sums = np.convolve(np.nan_to_num(s, nan=0.0), np.ones(width), mode="valid")
        start = int(np.argmax(sums > sums.max() - 1e-9))  # sums differ in their last bits
        worst = float(sums[start] / width)
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(mean))
    return Certainty(
        mean, perplexity, float(h.mean()) if h.size else float("nan"), (start, start + width), worst
    )


@crossover.probe("token_statistics")
def _probe(backend: str, size: int) -> None:
    x = np.linspace(-9, 0, size // 4, dtype=np.float32).reshape(-1, 8192)
    token_statistics(x, k=8, backend=backend)  # type: ignore[arg-type]

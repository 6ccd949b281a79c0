"""Token statistics in one pass over each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .fastmath import exp_nonpositive
from .heap import clear, offer, sort
from .jit import parallel

#: The part of a row that is read twice, out of the nearest cache: once for its maximum.
_CHUNK = 2048
_NONE = np.float32(-np.inf)


@parallel
def token_statistics(
    x: Any,
    chosen: Any,
    log_sum_exp: Any,
    entropy: Any,
    surprisal: Any,
    top_values: Any,
    top_indices: Any,
) -> None:
    """Fill the outputs, a row of x each; see `llcuda_kernels.token_statistics`."""
    count, length = x.shape
    k = top_values.shape[1]
    for row in prange(count):
        best = _NONE  # the greatest so far
        total: Any = 0.0  # sum of exp(x - best)
        weighted: Any = 0.0  # sum of exp(x - best) · (x - best)
        broken = False
        scores, indices = top_values[row], top_indices[row]
        if k:
            clear(scores, indices)
        for start in range(0, length, _CHUNK):
            part = x[row, start : start + _CHUNK]
            here = _NONE
            unknown = 0
            for i in range(part.size):
                v = part[i]
                here = max(here, v)
                unknown += v != v
            if unknown:
                broken = True
            if k and (unknown or here > scores[0] or indices[0] < 0):
                for i in range(part.size):
                    if part[i] > scores[0] or indices[0] < 0:
                        offer(scores, indices, part[i], start + i)
            if broken or here == np.inf or here == _NONE:
                best = max(best, here)
                continue
            if here > best:
                if total > 0.0:
                    shift = np.float64(best) - np.float64(here)
                    factor = np.exp(shift)
                    weighted = factor * (weighted + total * shift) if factor > 0.0 else 0.0
                    total *= factor
                best = here
            s = np.float32(0.0)
            w = np.float32(0.0)
            for i in range(part.size):
                d = max(part[i] - best, np.float32(-88.0))
                e = exp_nonpositive(d)
                s += e
                w += e * d
            total += s
            weighted += w
        if k:
            sort(scores, indices)
        picked = np.float32(np.nan)
        if chosen[row] >= 0:
            picked = x[row, chosen[row]]
        if broken:
            log_sum_exp[row] = np.nan
            entropy[row] = np.nan
        elif best == np.inf or best == _NONE:
            log_sum_exp[row] = best
            entropy[row] = np.nan
        else:
            log_sum_exp[row] = best + np.log(total)
            entropy[row] = max(0.0, np.log(total) - weighted / total)
        if broken:
            surprisal[row] = np.nan
        else:
            surprisal[row] = np.float64(log_sum_exp[row]) - np.float64(picked)


def list_statistics(logprobs: Any, chosen_logprob: Any) -> tuple[Any, Any, Any]:
    """A list is short: NumPy's own loops, in float64. See `llcuda_kernels.list_statistics`."""
    from llcuda_kernels.reference import tokens

    return tokens.list_statistics(logprobs, chosen_logprob)

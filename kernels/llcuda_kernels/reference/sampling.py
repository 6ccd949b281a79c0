"""How a token is drawn from a row's best candidates: in whole numbers, so the same everywhere.

Random bits are Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
SC '11): key the seed, counter the row. A weight is ``2^-y`` in units of 2^-31, by the Taylor series
of the exponential in whole numbers; all else is sums and comparisons of those.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

#: What one is in a weight, and in a share (top-p, min-p).
ONE, SHARE = 31, 20
#: ``(ln 2)^n / n!`` in units of 2^-31: ``2^-f = Σ (-f)^n c[n]``.
SERIES = tuple(round(math.log(2) ** n / math.factorial(n) * 2**ONE) for n in range(13))
_MASK = 0xFFFFFFFF


def philox(counter: int, seed: int) -> tuple[int, int, int, int]:
    """Four words of 32 bits for a counter and a key, both of 64 bits."""
    a, b, c, d = counter & _MASK, counter >> 32 & _MASK, 0, 0
    key, second = seed & _MASK, seed >> 32 & _MASK
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ key, q & _MASK, (p >> 32) ^ d ^ second, p & _MASK
        key, second = (key + 0x9E3779B9) & _MASK, (second + 0xBB67AE85) & _MASK
    return a, b, c, d


def weights(values: Any, by: Any) -> Ints:
    """``2^-((v[0] - v) by)`` in units of 2^-31. values: (k,) float32, best first."""
    v = np.asarray(values, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        y = (v[0] - v) * np.float32(by)
        small = y < ONE  # NaN is not
        whole = np.floor(np.where(small, y, 0)).astype(np.float32)
        fraction = ((np.where(small, y, 0) - whole) * np.float32(2.0**ONE)).astype(np.int64)
    total = np.full(v.shape, SERIES[-1], np.int64)
    for c in reversed(SERIES[:-1]):
        total = c - ((total * fraction) >> ONE)
    return np.where(small, total >> whole.astype(np.int64), 0)


def draw(values: Any, row: int, *, by: float | None, top_p: int, min_p: int, seed: int) -> int:
    """The place of the token drawn from a row's candidates, best first; or 0 where `by` is None.

    by: log2 e over the temperature, float32. top_p, min_p: in units of 2^-20.
    """
    if by is None:
        return 0
    plain = [int(w) for w in weights(values, np.float32(math.log2(math.e)))]
    whole, before, kept = sum(plain), 0, 0
    for w in plain:
        if kept and (before << SHARE >= top_p * whole or w << SHARE < min_p * plain[0]):
            break
        before += w
        kept += 1
    drawn = [int(w) for w in weights(values[:kept], by)]
    high, low = (word >> 1 for word in philox(row, seed)[:2])
    at = ((high << 31 | low) * sum(drawn)) >> 62
    for place, w in enumerate(drawn):
        if at < w:
            return place
        at -= w
    raise AssertionError("what is drawn is less than the sum")


def sample(
    values: Any, *, temperature: float, top_p: float, min_p: float, seed: int, first_row: int = 0
) -> Ints:
    """The places drawn from rows of candidates, (rows, k) float32, best first; -1 of none."""
    by = float(np.float32(math.log2(math.e) / temperature)) if temperature > 0 else None
    shares = {"top_p": round(top_p * 2**SHARE), "min_p": round(min_p * 2**SHARE)}
    out = [
        draw(row, first_row + number, by=by, seed=seed, **shares) if np.isfinite(row[0]) else -1
        for number, row in enumerate(np.asarray(values, np.float32))
    ]
    return np.array(out, np.int64)

"""Drawing a token from a row's best candidates, in whole numbers: see `reference.sampling`."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.reference.sampling import ONE, SERIES, SHARE

from .jit import exact

_SERIES = np.array(SERIES, np.int64)
_LOG2E = np.float32(1.4426950408889634)
_MASK = np.int64(0xFFFFFFFF)
_M0, _M1 = np.int64(0xD2511F53), np.int64(0xCD9E8D57)
_W0, _W1 = np.int64(0x9E3779B9), np.int64(0xBB67AE85)


@exact
def _philox(counter: Any, seed: Any) -> Any:
    """The first two words, of 31 bits each."""
    a, b = counter & _MASK, (counter >> 32) & _MASK
    c, d = np.int64(0), np.int64(0)
    key, second = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        p, q = _M0 * a, _M1 * c  # their low 64 bits are right, whatever the sign
        a, b, c, d = (
            ((q >> 32) & _MASK) ^ b ^ key,
            q & _MASK,
            ((p >> 32) & _MASK) ^ d ^ second,
            p & _MASK,
        )
        key, second = (key + _W0) & _MASK, (second + _W1) & _MASK
    return a >> 1, b >> 1


@exact
def _weight(best: Any, value: Any, by: Any) -> Any:
    y = (best - value) * by
    if not y < ONE:
        return np.int64(0)
    whole = np.floor(y)
    fraction = np.int64((y - whole) * np.float32(2147483648.0))
    total = _SERIES[12]
    for n in range(11, -1, -1):
        total = _SERIES[n] - ((total * fraction) >> ONE)
    return total >> np.int64(whole)


@exact
def draw(
    values: Any, by: Any, top_p: Any, min_p: Any, seed: Any, first_row: Any, places: Any
) -> None:
    """values: (rows, k), best first. Fill places, (rows,): what is drawn, -1 of none."""
    rows, k = values.shape
    for row in range(rows):
        v = values[row]
        if not np.isfinite(v[0]):
            places[row] = -1
            continue
        if by == np.float32(0.0):  # greedy
            places[row] = 0
            continue
        whole = np.int64(0)
        for j in range(k):
            whole += _weight(v[0], v[j], _LOG2E)
        first = _weight(v[0], v[0], _LOG2E)
        before, kept = np.int64(0), 0
        for j in range(k):
            w = _weight(v[0], v[j], _LOG2E)
            if j and ((before << SHARE) >= top_p * whole or (w << SHARE) < min_p * first):
                break
            before += w
            kept += 1
        total = np.int64(0)
        for j in range(kept):
            total += _weight(v[0], v[j], by)
        high, low = _philox(first_row + row, seed)
        s1, s0 = total >> 31, total & np.int64(0x7FFFFFFF)
        at = high * s1 + ((high * s0 + low * s1 + ((low * s0) >> 31)) >> 31)
        for j in range(kept):
            w = _weight(v[0], v[j], by)
            if at < w:
                places[row] = j
                break
            at -= w

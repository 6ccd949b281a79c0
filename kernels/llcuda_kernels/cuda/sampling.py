"""Drawing a token from a row's best candidates, in whole numbers: see `reference.sampling`."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.reference.sampling import SERIES, SHARE

from .runtime.array import Call, DeviceArray, empty
from .runtime.intrinsics import lane, multiply, multiply_wide, shuffle
from .runtime.kernel import divide_up, kernel
from .runtime.shim import F32, I32, I64, cuda, device, pointer
from .tokens import token_statistics

THREADS = 256
_LOG2E = np.float32(1.4426950408889634)
_UNIT = np.float32(2.0**31)
_LEAST = np.float32(31.0)
_INF, _NAN = np.float32(np.inf), np.float32(np.nan)
_ZERO = np.int64(0)
_C = tuple(np.int64(c) for c in SERIES)
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12 = _C
_BITS31 = np.int64(0x7FFFFFFF)
# as int32, which is what the words of the generator are here
_M0, _M1 = np.int32(0xD2511F53 - (1 << 32)), np.int32(0xCD9E8D57 - (1 << 32))
_W0, _W1 = np.int64(0x9E3779B9), np.int64(0xBB67AE85)
_WORD = np.int64(0xFFFFFFFF)


@device
def _next(total: Any, fraction: Any, c: Any) -> Any:
    """One step of the series."""
    return c - ((total * fraction) >> np.int64(31))


@device
def _weight(best: Any, value: Any, by: Any) -> Any:
    """``2^-((best - value) by)`` in units of 2^-31."""
    y = multiply(best - value, by)
    if not y < _LEAST:
        return _ZERO
    whole = np.int32(y)
    f = np.int64((y - np.float32(whole)) * _UNIT)
    total = _next(_next(_next(_next(_C12, f, _C11), f, _C10), f, _C9), f, _C8)
    total = _next(_next(_next(_next(total, f, _C7), f, _C6), f, _C5), f, _C4)
    total = _next(_next(_next(_next(total, f, _C3), f, _C2), f, _C1), f, _C0)
    return total >> np.int64(whole)


@device
def _philox(counter: Any, seed: Any) -> Any:
    """The first two words for a counter and a key, of 31 bits each."""
    a, b = np.int32(counter), np.int32(counter >> np.int64(32))
    c, d = np.int32(0), np.int32(0)
    key, second = seed & _WORD, (seed >> np.int64(32)) & _WORD
    for _ in range(10):
        high, low = multiply_wide(_M0, a)
        top, under = multiply_wide(_M1, c)
        a, b = top ^ b ^ np.int32(key), under
        c, d = high ^ d ^ np.int32(second), low
        key, second = (key + _W0) & _WORD, (second + _W1) & _WORD
    return (np.int64(a) & _WORD) >> np.int64(1), (np.int64(b) & _WORD) >> np.int64(1)


@device
def _up_to(value: Any, own: Any) -> Any:
    """The sum over the lanes up to this one."""
    for power in range(5):
        step = np.int32(1) << np.int32(power)
        there = shuffle(value, max(own - step, np.int32(0)))
        value += there if own >= step else _ZERO
    return value


@device
def _sum(values: Any, base: Any, count: Any, by: Any, own: Any) -> Any:
    """The weights of the first `count` candidates, added; in every lane."""
    total = _ZERO
    for j in range(own, count, 32):
        total += _weight(values[base], values[base + j], by)
    return shuffle(_up_to(total, own), 31)


@kernel(
    "sample_draw", pointer(F32), pointer(I32), pointer(F32), I32, I64, F32, I64, I64, I64, I64,
    pointer(I32), pointer(F32), bounds=THREADS,
)  # fmt: skip
def _draw(
    values: Any, indices: Any, log_sum_exp: Any, k: Any, rows: Any, by: Any, top_p: Any, min_p: Any,
    seed: Any, first_row: Any, tokens: Any, surprisal: Any,
) -> None:  # fmt: skip
    """A warp a row of k candidates, best first."""
    own = np.int32(lane())
    row = np.int64(cuda.blockIdx.x) * 8 + (cuda.threadIdx.x >> 5)
    if row >= rows:
        return
    base = row * k
    best = values[base]
    place = np.int32(-1)
    finite = best > -_INF and best < _INF and log_sum_exp[row] == log_sum_exp[row]
    if finite and by == np.float32(0.0):
        place = np.int32(0)
    elif finite:
        whole = _sum(values, base, k, _LOG2E, own)
        first = _weight(best, best, _LOG2E)
        kept, before = np.int32(0), _ZERO
        start = np.int32(0)
        going = True
        while going and start < k:
            j = start + own
            w = _weight(best, values[base + min(j, k - np.int32(1))], _LOG2E) if j < k else _ZERO
            upto = _up_to(w, own)
            ahead = before + upto - w
            keep = j < k and (
                j == 0
                or ((ahead << np.int64(SHARE)) < top_p * whole
                    and (w << np.int64(SHARE)) >= min_p * first)
            )  # fmt: skip
            # kept are the first ones: so many lanes in a row
            count = _up_to(np.int64(1) if keep else _ZERO, own)
            count = np.int32(shuffle(count, 31))
            kept += count
            going = count == np.int32(32)
            before += shuffle(upto, 31)
            start += np.int32(32)
        total = _sum(values, base, kept, by, own)
        high, low = _philox(first_row + row, seed)
        s1, s0 = total >> np.int64(31), total & _BITS31
        middle = high * s0 + low * s1 + ((low * s0) >> np.int64(31))
        at = high * s1 + (middle >> np.int64(31))
        start, passed = np.int32(0), _ZERO
        while place < 0 and start < kept:
            j = start + own
            w = _weight(best, values[base + min(j, k - np.int32(1))], by) if j < kept else _ZERO
            upto = passed + _up_to(w, own)
            # the first lane whose sum is beyond: so many lanes are not
            under = _up_to(np.int64(1) if upto <= at else _ZERO, own)
            under = np.int32(shuffle(under, 31))
            if under < np.int32(32):
                place = start + under
            passed = shuffle(upto, 31)
            start += np.int32(32)
    if own == 0:
        tokens[row] = indices[base + place] if place >= 0 else np.int32(-1)
        surprisal[row] = (
            log_sum_exp[row] - values[base + place] if place >= 0 else np.float32(np.nan)
        )


def sample(
    values: Array, k: int, by: float, top_p: int, min_p: int, seed: int, first_row: int
) -> tuple[Array, ...]:
    """See `llcuda_kernels.sample`: the tokens, then the members of `TokenStatistics`."""
    call = Call(values)
    x = call.take(values, np.float32, "values", 2)
    found: tuple[DeviceArray, ...] = token_statistics(x, None, k)
    lse, entropy, perplexity, _, best, indices = found
    rows = x.shape[0]
    tokens, surprisal = empty((rows,), np.int32), empty((rows,), np.float32)
    if rows:
        _draw.launch(
            divide_up(rows, 8), THREADS,
            best.address, indices.address, lse.address, k, rows, by, top_p, min_p, seed, first_row,
            tokens.address, surprisal.address,
        )  # fmt: skip
    return tuple(map(call.give, (tokens, lse, entropy, perplexity, surprisal, best, indices)))

"""What softmax, RMS norm, L2 norm and int8 codes do to a row, cut into the steps that they share.

Each row is gone through three times, the second and third time where it is near (`rows`):

1. its greatest number, or greatest magnitude: ``peak``;
2. the sum of ``term(x)``;
3. each ``value(x)`` written.

`prepare` makes of the peak the two factors that term and value need, `finish` a third of the sum.
Magnitudes are compared as whole numbers: the bits of floats that are not negative have their order,
with infinity and NaN above all others, so one maximum finds both the peak and what is not finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    exp2_fast,
    float_bits,
    load4,
    multiply_add,
    pick_bytes,
    reciprocal,
    store4,
)
from llcuda_kernels.cuda.runtime.shim import F32, I8, I32, device

ZERO, ONE = np.float32(0.0), np.float32(1.0)
NAN = np.float32(np.nan)
LOG2E = np.float32(math.log2(math.e))
INFINITE = np.int32(0x7F800000)
LOWEST = np.int32(-0x7FFFFFFF)
#: Below it, 1 / peak may overflow; the greatest factor then, whose squares stay in range.
SMALL, LIFT = np.float32(2.0**-120), np.float32(2.0**120)
CODES = np.float32(127.0)
#: 1.5 · 2²³: what is added to it is rounded to a whole number, in the low bits of the sum.
ROUND = np.float32(12582912.0)


@dataclass(frozen=True)
class RowOp:
    """The steps of one operation, all functions for the device, and the type of its output."""

    name: str
    peak: Any
    prepare: Any
    term: Any
    finish: Any
    value: Any
    put4: Any
    put1: Any
    gain4: Any
    gain1: Any
    scale: Any
    kind4: Any
    kind1: Any


@device
def _magnitude(x: Any) -> Any:
    return float_bits(x) & np.int32(0x7FFFFFFF)


@device
def _ordered(x: Any) -> Any:
    """A whole number that orders as the float does; NaN counts as the lowest."""
    bits = float_bits(x)
    key = bits if bits >= 0 else bits ^ np.int32(0x7FFFFFFF)
    return key if x == x else LOWEST


@device
def _softmax_prepare(peak: Any, eps: Any) -> Any:
    best = bits_float(peak if peak >= 0 else peak ^ np.int32(0x7FFFFFFF))
    return best, ONE


@device
def _softmax_term(x: Any, p: Any, q: Any) -> Any:
    return exp2_fast((x - p) * LOG2E)


@device
def _softmax_finish(total: Any, p: Any, q: Any, n: Any, eps: Any) -> Any:
    return reciprocal(total)


@device
def _softmax_value(x: Any, p: Any, q: Any, f: Any, w: Any) -> Any:
    return exp2_fast((x - p) * LOG2E) * f


@device
def _norm_prepare(peak: Any, eps: Any) -> Any:
    """A factor that brings the row's peak to 1, or as near as a float can; and the rest, to 127."""
    top = bits_float(peak)
    inverse = ONE / top if top > SMALL else LIFT
    rest = CODES / (top * inverse) if peak > 0 else ZERO
    if peak >= INFINITE:
        inverse = NAN
    return inverse, rest


@device
def _square(x: Any, p: Any, q: Any) -> Any:
    u = x * p
    return u * u


@device
def _no_term(x: Any, p: Any, q: Any) -> Any:
    return ZERO


@device
def _l2_finish(total: Any, p: Any, q: Any, n: Any, eps: Any) -> Any:
    return ONE / math.sqrt(total) if total > ZERO else ONE


@device
def _scaled_value(x: Any, p: Any, q: Any, f: Any, w: Any) -> Any:
    return x * p * f * w


@device
def _rms_prepare(peak: Any, eps: Any) -> Any:
    """The greater of the row's peak and √eps is brought to 1, or near: squares stay in range."""
    top, root = bits_float(peak), math.sqrt(eps)
    top = root if root > top else top
    inverse = ONE / top if top > SMALL else LIFT
    if peak >= INFINITE:
        inverse = NAN
    return inverse, ONE


@device
def _rms_finish(total: Any, p: Any, q: Any, n: Any, eps: Any) -> Any:
    return ONE / math.sqrt(total / np.float32(n) + eps * p * p)


@device
def _code(x: Any, p: Any, q: Any, f: Any, w: Any) -> Any:
    """A code in the low byte; nothing to saturate, as the row's peak gives 127."""
    return float_bits(multiply_add(x * p, q, ROUND))


@device
def _code_finish(total: Any, p: Any, q: Any, n: Any, eps: Any) -> Any:
    """The bits of codes that count: none where the row is NaN."""
    return np.int32(-1) if p == p else np.int32(0)


@device
def _scale(total: Any, peak: Any) -> Any:
    """``peak / 127``."""
    return NAN if peak >= INFINITE else bits_float(peak) / CODES


@device
def _unit_scale(total: Any, peak: Any) -> Any:
    """``peak / (127 |x|)``: the sum is that of squares, each times the factor of `prepare`."""
    if peak == 0:
        return ZERO
    top = bits_float(peak)
    one = ONE if top > SMALL else top * LIFT
    return NAN if peak >= INFINITE else one / (CODES * math.sqrt(total))


@device
def _no_scale(total: Any, peak: Any) -> Any:
    return ZERO


@device
def _put4_float(out: Any, at: Any, f: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    store4(out, at, a, b, c, d)


@device
def _put4_codes(out: Any, at: Any, f: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    low, high = pick_bytes(a, b, np.int32(0x0040)), pick_bytes(c, d, np.int32(0x0040))
    out[at >> 2] = pick_bytes(low, high, np.int32(0x5410)) & f


@device
def _put1(out: Any, at: Any, f: Any, value: Any) -> None:
    out[at] = value


@device
def _put1_code(out: Any, at: Any, f: Any, value: Any) -> None:
    out[at] = np.int32((value & f) << np.int32(24)) >> np.int32(24)


@device
def _gain4(w: Any, at: Any) -> Any:
    return load4(w, at)


@device
def _gain1(w: Any, at: Any) -> Any:
    return w[at]


@device
def _no_gain4(w: Any, at: Any) -> Any:
    return ONE, ONE, ONE, ONE


@device
def _no_gain1(w: Any, at: Any) -> Any:
    return ONE


def _float_op(
    name: str, peak: Any, prepare: Any, term: Any, finish: Any, value: Any, gains: bool = False
) -> RowOp:
    gain4, gain1 = (_gain4, _gain1) if gains else (_no_gain4, _no_gain1)
    return RowOp(
        name, peak, prepare, term, finish, value,
        _put4_float, _put1, gain4, gain1, _no_scale, F32, F32,
    )  # fmt: skip


def _code_op(name: str, term: Any, scale: Any) -> RowOp:
    return RowOp(
        name, _magnitude, _norm_prepare, term, _code_finish, _code,
        _put4_codes, _put1_code, _no_gain4, _no_gain1, scale, I32, I8,
    )  # fmt: skip


UNIT_CODES = _code_op("normalize_quantize", _square, _unit_scale)
OPS = (
    _float_op(
        "softmax", _ordered, _softmax_prepare, _softmax_term, _softmax_finish, _softmax_value
    ),
    _float_op("l2_normalize", _magnitude, _norm_prepare, _square, _l2_finish, _scaled_value),
    _float_op("rms_norm", _magnitude, _rms_prepare, _square, _rms_finish, _scaled_value),
    _float_op(
        "rms_norm_weighted", _magnitude, _rms_prepare, _square, _rms_finish, _scaled_value, True
    ),
    _code_op("quantize_int8", _no_term, _scale),
    UNIT_CODES,
)

"""GGUF blocks as tensor cores take them: see `reference.weights.blocks` for how their bits lie.

Of a run's 32 numbers lane 4 g + t of a warp has numbers 4 t to 4 t + 3 and 16 more than these, in
words (4 t, 4 t + 2), (4 t + 1, 4 t + 3) and the same from 16 on, as pairs of bfloat16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import (
    add_bf16,
    bits_float,
    from_f16,
    load4,
    load_past,
    multiply,
    nibbles_bf16,
    pick_bytes,
)
from llcuda_kernels.cuda.runtime.shim import device

_ZERO = np.float32(0.0)
_PLUS = np.int32(0x43004300)
_MIDDLE = np.int32(0x5432)  # of two words, the bytes from 2 on
_MAGIC, _MAGIC_FLOAT = np.int32(0x4B000000), np.float32(2.0**23)
_LOW, _TOPS = np.int32(0x0F0F0F0F), np.int32(0x30303030)
_SIGNS = np.int32(-0x7F7F7F80)  # 0x80808080


@device
def _half_of(word: Any, high: Any) -> Any:
    """A word's float16."""
    return from_f16(np.uint16((word >> np.int32(16 * high)) & np.int32(0xFFFF)))


@device
def _bytes(word: Any, less: Any) -> Any:
    """A word's four bytes as floats."""
    return (
        bits_float(pick_bytes(word, _MAGIC, np.int32(0x7440))) - less,
        bits_float(pick_bytes(word, _MAGIC, np.int32(0x7441))) - less,
        bits_float(pick_bytes(word, _MAGIC, np.int32(0x7442))) - less,
        bits_float(pick_bytes(word, _MAGIC, np.int32(0x7443))) - less,
    )


# Of each format. codes(number)(memory, at, off, t): of two runs of the row whose chunk begins `off`
# bytes after word `at`, four words each. scales(memory, at, off, half): four scales of the half
# chunk, and four minima (or four scales more).


def _codes_q4_0(number: int) -> Any:
    @device
    def codes(memory: Any, at: Any, off: Any, t: Any) -> Any:
        a = np.int32(at + t)
        first = nibbles_bf16(
            pick_bytes(
                load_past(memory, a, 9 * number), load_past(memory, a, 9 * number + 1), _MIDDLE
            ),
            _PLUS,
        )
        second = nibbles_bf16(load_past(memory, a, 9 * number + 5), _PLUS)
        less = np.int32(-0x3CF73CF8)  # 0xC308C308: -136 twice
        return (
            (add_bf16(first[0], less), add_bf16(first[2], less),
             add_bf16(first[1], less), add_bf16(first[3], less)),
            (add_bf16(second[0], less), add_bf16(second[2], less),
             add_bf16(second[1], less), add_bf16(second[3], less)),
        )  # fmt: skip

    return codes


@device
def _scales_q4_0(memory: Any, at: Any, off: Any, half: Any) -> Any:
    start = np.int32(at + np.int32(18) * half)
    d0, d1 = _half_of(load_past(memory, start, 0), 0), _half_of(load_past(memory, start, 4), 1)
    d2, d3 = _half_of(load_past(memory, start, 9), 0), _half_of(load_past(memory, start, 13), 1)
    return (d0, d1, d2, d3), (_ZERO, _ZERO, _ZERO, _ZERO)


def _codes_q4_k(number: int) -> Any:
    @device
    def codes(memory: Any, at: Any, off: Any, t: Any) -> Any:
        a = np.int32(at + t)
        first = nibbles_bf16(load_past(memory, a, 4 + 8 * number), _PLUS)
        second = nibbles_bf16(load_past(memory, a, 8 + 8 * number), _PLUS)
        less = np.int32(-0x3CFF3D00)  # 0xC300C300: -128 twice
        return (
            (add_bf16(first[0], less), add_bf16(first[2], less),
             add_bf16(second[0], less), add_bf16(second[2], less)),
            (add_bf16(first[1], less), add_bf16(first[3], less),
             add_bf16(second[1], less), add_bf16(second[3], less)),
        )  # fmt: skip

    return codes


@device
def _scales_q4_k(memory: Any, at: Any, off: Any, half: Any) -> Any:
    head, a, b, c = load4(memory, np.int64(at))
    six = np.int32(0x3F3F3F3F)
    scale, least = a & six, b & six
    if half == np.int32(1):
        scale = (c & _LOW) | ((a >> np.int32(2)) & _TOPS)
        least = ((c >> np.int32(4)) & _LOW) | ((b >> np.int32(2)) & _TOPS)
    d, dmin = _half_of(head, 0), _half_of(head, 1)
    s, m = _bytes(scale, _MAGIC_FLOAT), _bytes(least, _MAGIC_FLOAT)
    return (
        (multiply(d, s[0]), multiply(d, s[1]), multiply(d, s[2]), multiply(d, s[3])),
        (multiply(dmin, m[0]), multiply(dmin, m[1]), multiply(dmin, m[2]), multiply(dmin, m[3])),
    )  # fmt: skip


@device
def _even(memory: Any, at: Any, past: Any, which: Any) -> Any:
    """A word that begins where another does, or in its middle."""
    return pick_bytes(load_past(memory, at, past), load_past(memory, at, past + 1), which)


@device
def _six(word: Any) -> Any:
    """Four bytes of codes of 6 bits, 32 too large, as two pairs of neighbours but one."""
    less = np.int32(-0x3CDF3CE0)  # 0xC320C320: -160 twice
    a = pick_bytes(word, _PLUS, np.int32(0x5250))
    b = pick_bytes(word, _PLUS, np.int32(0x5351))
    return add_bf16(a, less), add_bf16(b, less)


@device
def _which(off: Any) -> Any:
    return np.int32(0x5432) if (off & np.int32(2)) == np.int32(2) else np.int32(0x3210)


def _codes_q6_k(number: int) -> Any:
    h, r = number // 2, number % 2

    @device
    def codes(memory: Any, at: Any, off: Any, t: Any) -> Any:
        """Runs 4 h + r and 4 h + r + 2 of half h, which share their low bits."""
        which = _which(off)
        a = np.int32(at + (off >> np.int32(2)) + t)
        low0 = _even(memory, a, 16 * h + 8 * r, which)
        low1 = _even(memory, a, 16 * h + 8 * r + 4, which)
        top0 = _even(memory, a, 32 + 8 * h, which)
        top1 = _even(memory, a, 32 + 8 * h + 4, which)
        if r == 0:
            u0, u1 = top0 << np.int32(4), top1 << np.int32(4)
            v0, v1 = top0, top1
        else:
            u0, u1 = top0 << np.int32(2), top1 << np.int32(2)
            v0, v1 = top0 >> np.int32(2), top1 >> np.int32(2)
        a0 = _six(np.int32((low0 & _LOW) | (u0 & _TOPS)))
        a1 = _six(np.int32((low1 & _LOW) | (u1 & _TOPS)))
        b0 = _six(np.int32(((low0 >> np.int32(4)) & _LOW) | (v0 & _TOPS)))
        b1 = _six(np.int32(((low1 >> np.int32(4)) & _LOW) | (v1 & _TOPS)))
        return (a0[0], a0[1], a1[0], a1[1]), (b0[0], b0[1], b1[0], b1[1])

    return codes


@device
def _scales_q6_k(memory: Any, at: Any, off: Any, half: Any) -> Any:
    which = _which(off)
    a = np.int32(at + (off >> np.int32(2)))
    d = _half_of(_even(memory, a, 52, which), 0)
    a = np.int32(a + np.int32(2) * half)
    less = np.float32(8388736.0)
    u = _bytes(np.int32(_even(memory, a, 48, which) ^ _SIGNS), less)
    v = _bytes(np.int32(_even(memory, a, 49, which) ^ _SIGNS), less)
    return (
        (multiply(d, u[0]), multiply(d, u[1]), multiply(d, u[2]), multiply(d, u[3])),
        (multiply(d, v[0]), multiply(d, v[1]), multiply(d, v[2]), multiply(d, v[3])),
    )  # fmt: skip


class Tensor(NamedTuple):
    """A format: bytes of 256 numbers, pieces of 16 bytes that hold them wherever they begin, words
    of a row in shared memory (an odd number of pieces: no two rows in the same banks); which runs
    a reading of codes has; whether there are minima, and a scale for each 16 numbers."""

    size: int
    pieces: int
    stride: int
    codes: Any
    scales: Any
    runs: tuple[tuple[int, int], ...]
    least: bool = False
    sixteen: bool = False


_PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7))
FORMATS = {
    "q4_0": Tensor(144, 9, 36, _codes_q4_0, _scales_q4_0, _PAIRS),
    "q4_k": Tensor(144, 9, 36, _codes_q4_k, _scales_q4_k, _PAIRS, least=True),
    "q6_k": Tensor(
        210, 14, 60, _codes_q6_k, _scales_q6_k, ((0, 2), (1, 3), (4, 6), (5, 7)), sixteen=True
    ),
}

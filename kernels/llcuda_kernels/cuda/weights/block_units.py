"""How the blocks of GGUF files are read: see `reference.weights.blocks` for how their bits lie.

A *unit* is eight numbers of a block, two runs of four neighbours, with what they are multiplied
with. A row of K numbers has K / 8 units in every format, and 32 units, a warp's, are 256 numbers:
8 blocks of 32, or one of 256. So one kernel serves all formats, given how to read a unit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    from_f16,
    load4,
    multiply,
    pick_bytes,
)
from llcuda_kernels.cuda.runtime.shim import I32, U16, device

_ZERO = np.float32(0.0)
_LOW = np.int32(0x0F0F0F0F)
_TOPS = np.int32(0x03030303)
_SIGNS = np.int32(-0x7F7F7F80)  # 0x80808080
#: The bits of 2²³: a byte in the low part of its fraction adds to it exactly.
_MAGIC = np.int32(0x4B000000)
_BYTE0, _BYTE1 = np.int32(0x7440), np.int32(0x7441)
_BYTE2, _BYTE3 = np.int32(0x7442), np.int32(0x7443)


@device
def _joined(low: Any, high: Any) -> Any:
    """A word of two pairs of bytes."""
    return np.int32(low) | (np.int32(high) << np.int32(16))


@device
def _word(blocks: Any, at: Any) -> Any:
    """Four bytes at an even place, which may lie across two words."""
    return _joined(blocks[at], blocks[at + 1])


@device
def _floats(word: Any, less: Any) -> Any:
    """The word's four bytes as floats, less 2²³ and what else is to be taken away; exact."""
    a, b = pick_bytes(word, _MAGIC, _BYTE0), pick_bytes(word, _MAGIC, _BYTE1)
    c, d = pick_bytes(word, _MAGIC, _BYTE2), pick_bytes(word, _MAGIC, _BYTE3)
    return bits_float(a) - less, bits_float(b) - less, bits_float(c) - less, bits_float(d) - less


@device
def _signed_byte(pair: Any, high: Any) -> Any:
    """One byte of a pair, as a number from -128 to 127."""
    byte = (pair >> np.int32(8)) if high else (pair & np.int32(255))
    return np.float32((byte ^ np.int32(128)) - np.int32(128))


# Of each format: what unit `unit` of the row at `row` holds: its first four q and the other four,
# what each four is multiplied with, and what is then taken away. And where in x each four begins.


@device
def _q4_0(blocks: Any, row: Any, unit: Any) -> Any:
    start = row + np.int64(unit >> np.int32(2)) * 9
    d = from_f16(blocks[start])
    word = _word(blocks, start + 1 + 2 * (unit & np.int32(3)))
    less = np.float32(8388616.0)
    low = _floats(word & _LOW, less)
    high = _floats((word >> np.int32(4)) & _LOW, less)
    return low, high, d, d, _ZERO, _ZERO


@device
def _places_q4_0(unit: Any) -> Any:
    x = np.int32(32) * (unit >> np.int32(2)) + np.int32(4) * (unit & np.int32(3))
    return x, x + np.int32(16)


@device
def _q8_0(blocks: Any, row: Any, unit: Any) -> Any:
    start = row + np.int64(unit >> np.int32(2)) * 17
    part = unit & np.int32(3)
    d = from_f16(blocks[start])
    less = np.float32(8388736.0)
    first = _floats(_word(blocks, start + 1 + 4 * part) ^ _SIGNS, less)
    second = _floats(_word(blocks, start + 3 + 4 * part) ^ _SIGNS, less)
    return first, second, d, d, _ZERO, _ZERO


@device
def _places_q8_0(unit: Any) -> Any:
    x = np.int32(8) * unit
    return x, x + np.int32(4)


@device
def _six_bits(a: Any, b: Any, c: Any, pair: Any) -> Any:
    """Of runs 2 pair and 2 pair + 1, out of the twelve bytes a, b, c: scales, then minima, a word.

    Bytes 0 to 3: the scales of runs 0 to 3, bytes 4 to 7 their minima; of the others the low
    nibbles lie in bytes 8 to 11 and the high two bits above the first eight bytes' six.
    """
    odd = pair & np.int32(1)
    both = pick_bytes(a, b, np.int32(0x5410) + odd * np.int32(0x2222))
    if pair < np.int32(2):
        return both & np.int32(0x3F3F3F3F)
    low = c >> (np.int32(16) * odd)
    low = (low & np.int32(0x0F0F)) | ((low & np.int32(0xF0F0)) << np.int32(12))
    return low | ((both >> np.int32(2)) & np.int32(0x30303030))


@device
def _q4_k(words: Any, row: Any, unit: Any) -> Any:
    lane = unit & np.int32(31)
    start = row + np.int64(unit >> np.int32(5)) * 36
    head, a, b, c = load4(words, start)  # the same for all lanes
    word = words[start + 4 + lane]
    d = from_f16(np.uint16(head & np.int32(0xFFFF)))
    dmin = from_f16(np.uint16((head >> np.int32(16)) & np.int32(0xFFFF)))
    less = np.float32(8388608.0)
    s0, s1, m0, m1 = _floats(_six_bits(a, b, c, lane >> np.int32(3)), less)
    low = _floats(word & _LOW, less)
    high = _floats((word >> np.int32(4)) & _LOW, less)
    return low, high, multiply(d, s0), multiply(d, s1), multiply(dmin, m0), multiply(dmin, m1)


@device
def _places_q4_k(unit: Any) -> Any:
    lane = unit & np.int32(31)
    x = np.int32(256) * (unit >> np.int32(5)) + np.int32(64) * (lane >> np.int32(3))
    x += np.int32(4) * (lane & np.int32(7))
    return x, x + np.int32(32)


@device
def _q6_k(blocks: Any, row: Any, unit: Any) -> Any:
    lane = unit & np.int32(31)
    half = lane >> np.int32(4)
    part = (lane >> np.int32(3)) & np.int32(1)
    place = lane & np.int32(7)
    start = row + np.int64(unit >> np.int32(5)) * 105
    word = _word(blocks, start + 2 * lane)
    tops = _word(blocks, start + 64 + 16 * half + 2 * place) >> (np.int32(2) * part)
    d = from_f16(blocks[start + 104])
    # scales are bytes 192 to 207: run r of 32 has two, this one's runs are part and part + 2
    at_scale = start + 96 + 4 * half + part
    pair0, pair1 = np.int32(blocks[at_scale]), np.int32(blocks[at_scale + 2])
    less = np.float32(8388640.0)
    first = (word & _LOW) | ((tops & _TOPS) << np.int32(4))
    second = ((word >> np.int32(4)) & _LOW) | (tops & np.int32(0x30303030))
    low, high = _floats(first, less), _floats(second, less)
    odd = place > np.int32(3)
    s0, s1 = multiply(d, _signed_byte(pair0, odd)), multiply(d, _signed_byte(pair1, odd))
    return low, high, s0, s1, _ZERO, _ZERO


@device
def _places_q6_k(unit: Any) -> Any:
    lane = unit & np.int32(31)
    x = np.int32(256) * (unit >> np.int32(5)) + np.int32(128) * (lane >> np.int32(4))
    x += np.int32(32) * ((lane >> np.int32(3)) & np.int32(1)) + np.int32(4) * (lane & np.int32(7))
    return x, x + np.int32(64)


class Format(NamedTuple):
    """What blocks are read as, how, where in x a unit's numbers are, and whether minima go off."""

    kind: Any
    read: Any
    places: Any
    least: bool


FORMATS = {
    "q4_0": Format(U16, _q4_0, _places_q4_0, False),
    "q8_0": Format(U16, _q8_0, _places_q8_0, False),
    "q4_k": Format(I32, _q4_k, _places_q4_k, True),
    "q6_k": Format(U16, _q6_k, _places_q6_k, False),
}

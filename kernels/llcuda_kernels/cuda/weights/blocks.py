"""The blocks of GGUF files on the device: see `reference.weights.blocks` for how their bits lie.

A *unit* is eight numbers of a block, two runs of four neighbours, with what they are multiplied
with. A row of K numbers has K / 8 units in every format, and 32 units, a warp's, are 256 numbers:
8 blocks of 32, or one of 256. So one kernel serves all formats, given how to read a unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.cuda.primitives.reductions import warp_sum
from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import Call, at, empty, filled, realigned
from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    from_f16,
    load2,
    load4,
    multiply,
    multiply_add,
    pick_bytes,
    store4,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, U16, cuda, device, pointer

THREADS = 256
MOST_COLUMNS = 8
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


# What a format's function returns for unit u of a row: the first four q and the other four, what
# each four is multiplied with, what is then taken away, and where in x each four begins.


@device
def _q4_0(blocks: Any, row: Any, unit: Any) -> Any:
    block = unit >> np.int32(2)
    part = unit & np.int32(3)
    start = row + np.int64(block) * 9
    d = from_f16(blocks[start])
    word = _word(blocks, start + 1 + 2 * part)
    less = np.float32(8388616.0)
    low = _floats(word & _LOW, less)
    high = _floats((word >> np.int32(4)) & _LOW, less)
    x = np.int32(32) * block + np.int32(4) * part
    return low, high, d, d, _ZERO, _ZERO, x, x + np.int32(16)


@device
def _q8_0(blocks: Any, row: Any, unit: Any) -> Any:
    block = unit >> np.int32(2)
    part = unit & np.int32(3)
    start = row + np.int64(block) * 17
    d = from_f16(blocks[start])
    less = np.float32(8388736.0)
    first = _floats(_word(blocks, start + 1 + 4 * part) ^ _SIGNS, less)
    second = _floats(_word(blocks, start + 3 + 4 * part) ^ _SIGNS, less)
    x = np.int32(8) * unit
    return first, second, d, d, _ZERO, _ZERO, x, x + np.int32(4)


@device
def _six_bits(a: Any, b: Any, c: Any, pair: Any) -> Any:
    """Scale and minimum of runs 2 pair and 2 pair + 1, out of the twelve bytes a, b, c.

    Bytes 0 to 3: the scales of runs 0 to 3, bytes 4 to 7 their minima; of the others the low
    nibbles lie in bytes 8 to 11 and the high two bits above the first eight bytes' six.
    """
    six, high = np.int32(0x3F3F3F3F), np.int32(0x30303030)
    if pair > np.int32(1):
        scales = (c & _LOW) | ((a >> np.int32(2)) & high)
        minima = ((c >> np.int32(4)) & _LOW) | ((b >> np.int32(2)) & high)
    else:
        scales, minima = a & six, b & six
    shift = (pair & np.int32(1)) << np.int32(4)
    return scales >> shift, minima >> shift


@device
def _q4_k(blocks: Any, row: Any, unit: Any) -> Any:
    block = unit >> np.int32(5)
    lane = unit & np.int32(31)
    pair = lane >> np.int32(3)
    start = row + np.int64(block) * 72
    h0, h1, a0, a1 = load4(blocks, start)
    b0, b1, c0, c1 = load4(blocks, start + 4)
    d, dmin = from_f16(h0), from_f16(h1)
    a, b, c = _joined(a0, a1), _joined(b0, b1), _joined(c0, c1)
    scales, minima = _six_bits(a, b, c, pair)
    q0, q1 = load2(blocks, start + 8 + 2 * lane)
    word = _joined(q0, q1)
    less = np.float32(8388608.0)
    low = _floats(word & _LOW, less)
    high = _floats((word >> np.int32(4)) & _LOW, less)
    byte = np.int32(255)
    s0 = multiply(d, np.float32(scales & byte))
    s1 = multiply(d, np.float32((scales >> np.int32(8)) & byte))
    m0 = multiply(dmin, np.float32(minima & byte))
    m1 = multiply(dmin, np.float32((minima >> np.int32(8)) & byte))
    x = np.int32(256) * block + np.int32(64) * pair + np.int32(4) * (lane & np.int32(7))
    return low, high, s0, s1, m0, m1, x, x + np.int32(32)


@device
def _q6_k(blocks: Any, row: Any, unit: Any) -> Any:
    block = unit >> np.int32(5)
    lane = unit & np.int32(31)
    half = lane >> np.int32(4)
    part = (lane >> np.int32(3)) & np.int32(1)
    place = lane & np.int32(7)
    start = row + np.int64(block) * 105
    word = _word(blocks, start + 2 * lane)
    tops = _word(blocks, start + 64 + 16 * half + 2 * place) >> (np.int32(2) * part)
    less = np.float32(8388640.0)
    first = (word & _LOW) | ((tops & _TOPS) << np.int32(4))
    second = ((word >> np.int32(4)) & _LOW) | (tops & np.int32(0x30303030))
    low, high = _floats(first, less), _floats(second, less)
    d = from_f16(blocks[start + 104])
    # scales are bytes 192 to 207: run r of 32 has two, this one's runs are part and part + 2
    at_scale = start + 96 + 4 * half + part
    odd = place > np.int32(3)
    s0 = multiply(d, _signed_byte(np.int32(blocks[at_scale]), odd))
    s1 = multiply(d, _signed_byte(np.int32(blocks[at_scale + 2]), odd))
    x = np.int32(256) * block + np.int32(128) * half + np.int32(32) * part + np.int32(4) * place
    return low, high, s0, s1, _ZERO, _ZERO, x, x + np.int32(64)


def _dequantize(name: str, read: Any, least: bool) -> Kernel:
    @kernel(name, pointer(U16), pointer(F32), I32, bounds=THREADS)
    def run(blocks: Any, out: Any, units: Any) -> None:
        """A thread a unit; the whole tensor is one row of `units` units."""
        unit = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if unit >= units:
            return
        low, high, s0, s1, m0, m1, x0, x1 = read(blocks, np.int64(0), unit)
        if least:
            store4(
                out, np.int64(x0),
                multiply(low[0], s0) - m0, multiply(low[1], s0) - m0,
                multiply(low[2], s0) - m0, multiply(low[3], s0) - m0,
            )  # fmt: skip
            store4(
                out, np.int64(x1),
                multiply(high[0], s1) - m1, multiply(high[1], s1) - m1,
                multiply(high[2], s1) - m1, multiply(high[3], s1) - m1,
            )  # fmt: skip
        else:  # nothing is taken away: -0 stays -0
            store4(out, np.int64(x0), low[0] * s0, low[1] * s0, low[2] * s0, low[3] * s0)
            store4(out, np.int64(x1), high[0] * s1, high[1] * s1, high[2] * s1, high[3] * s1)

    return run


@device
def _four(x: Any, at: Any, q: Any) -> Any:
    """Σ x q, and Σ x, of four neighbours."""
    a, b, c, d = load4(x, at)
    y = multiply_add(a, q[0], multiply_add(b, q[1], multiply_add(c, q[2], d * q[3])))
    return y, a + b + c + d


def _times_vector(name: str, read: Any, columns: int, least: bool) -> Kernel:
    places = 8 * columns  # a sum a warp and column

    @device
    def add(total: Any, x: Any, units: Any, last: Any, unit: Any) -> None:
        low, high, s0, s1, m0, m1, x0, x1 = unit
        for c in range(columns):
            base = np.int64(min(np.int32(c), last)) * np.int64(8 * units)
            y0, t0 = _four(x, base + x0, low)
            y1, t1 = _four(x, base + x1, high)
            total[c] = multiply_add(y0, s0, multiply_add(y1, s1, total[c]))
            if least:
                total[c] -= multiply_add(t0, m0, t1 * m1)

    @kernel(
        name, pointer(F32), pointer(U16), pointer(F32), I32, I32, I32, I32, I32,
        bounds=(THREADS, 3 if columns == 1 else 1), shared=4 * places,
    )  # fmt: skip
    def run(
        x: Any, blocks: Any, out: Any, rows: Any, units: Any, pairs: Any, parts: Any, last: Any,
    ) -> None:  # fmt: skip
        """A row of W takes `parts` (1, 2, 4 or 8) warps of a block, which share its units.

        x: (columns, 8 units), column c read at min(c, last); pairs: two bytes in a row of W;
        out: (columns, rows), of which columns 0 to last are written.
        """
        lane = np.int32(cuda.threadIdx.x) & np.int32(31)
        warp = np.int32(cuda.threadIdx.x) >> np.int32(5)
        sums = cuda.shared.array(places, F32)
        part = warp % parts
        n = np.int32(cuda.blockIdx.x) * (np.int32(8) // parts) + warp // parts
        total = cuda.local.array(columns, F32)
        for c in range(columns):
            total[c] = _ZERO
        if n < rows:
            row = np.int64(n) * np.int64(pairs)
            step = np.int32(32) * parts
            unit = np.int32(32) * part + lane
            while unit + step < units:
                # two readings are under way at a time
                first, second = read(blocks, row, unit), read(blocks, row, unit + step)
                add(total, x, units, last, first)
                add(total, x, units, last, second)
                unit += step + step
            if unit < units:
                add(total, x, units, last, read(blocks, row, unit))
        for c in range(columns):
            y = warp_sum(total[c])
            if lane == 0:
                sums[np.int32(c) * np.int32(8) + warp] = y
        cuda.syncthreads()
        t = np.int32(cuda.threadIdx.x)
        each = np.int32(8) // parts
        if t < np.int32(columns) * each:
            c = t // each
            own = t % each
            n = np.int32(cuda.blockIdx.x) * each + own
            if n < rows and c <= last:
                y = _ZERO
                for p in range(parts):
                    y += sums[c * np.int32(8) + own * parts + p]
                out[np.int64(c) * rows + n] = y

    return run


_READ = {"q4_0": _q4_0, "q8_0": _q8_0, "q4_k": _q4_k, "q6_k": _q6_k}
DEQUANTIZE = {
    kind: _dequantize(f"dequantize_{kind}", read, kind == "q4_k") for kind, read in _READ.items()
}
#: By format and how many columns share a reading.
VECTOR = {
    (kind, columns): _times_vector(f"{kind}_times_{columns}", read, columns, kind == "q4_k")
    for kind, read in _READ.items()
    for columns in (1, 2, 4, 8)
}


def dequantize(blocks: Array, kind: str, size: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """See `llcuda_kernels.dequantize_q4_0` and its like; size: numbers and bytes of a block."""
    call = Call(blocks)
    out = empty(shape, np.float32)
    if not out.size:
        return call.give(out)
    w = _pairs(call, blocks)
    numbers, pairs = size[0], size[1] // 2
    units = out.size // 8
    # a launch counts units in 31 bits; each begins at a whole block
    most = ((1 << 30) // 32) * 32
    for first in range(0, units, most):
        count = min(most, units - first)
        DEQUANTIZE[kind].launch(
            divide_up(count, THREADS), THREADS,
            at(w, first * 8 // numbers * pairs), at(out, first * 8), count,
        )  # fmt: skip
    return call.give(out)


def times_vector(x: Array, blocks: Array, kind: str, size: tuple[int, int]) -> Array:
    """See `llcuda_kernels.blocks_times_vector`; size: numbers and bytes of a block."""
    call = Call(x, blocks)
    v = call.take(x, np.float32, "x")
    rows = int(blocks.shape[0])
    inner = int(blocks.shape[1]) // size[1] * size[0]
    columns = v.shape[0] if v.ndim == 2 else 1
    shape = (columns, rows) if v.ndim == 2 else (rows,)
    if not rows or not columns:
        return call.give(empty(shape, np.float32))
    if not inner:
        return call.give(filled(shape, np.float32, 0.0))
    v = realigned(v)
    w = _pairs(call, blocks)
    out = empty(shape, np.float32)
    parts = _parts(rows, inner // 256)
    for first in range(0, columns, MOST_COLUMNS):
        count = min(MOST_COLUMNS, columns - first)
        VECTOR[kind, 1 << (count - 1).bit_length()].launch(
            divide_up(rows * parts, 8), THREADS,
            at(v, first * inner), w.address, at(out, first * rows),
            rows, inner // 8, inner // size[0] * size[1] // 2, parts, count - 1,
        )  # fmt: skip
    return call.give(out)


def _pairs(call: Call, blocks: Array) -> Any:
    w = realigned(call.take(blocks, np.uint8, "blocks"))
    return w.view(np.uint16, (w.size // 2,))


def _parts(rows: int, most: int) -> int:
    """How many warps share a row: enough to fill the device, none without a unit of its own."""
    if shim.SIMULATED:
        wanted = 2
    else:
        from llcuda_kernels.cuda.runtime import driver

        wanted = divide_up(driver.multiprocessors() * 48, rows)
    parts = 1
    while parts < 8 and 2 * parts <= max(1, min(wanted, most)):
        parts *= 2
    return parts

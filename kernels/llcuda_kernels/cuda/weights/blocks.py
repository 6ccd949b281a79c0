"""The blocks of GGUF files on the device: dequantised, or times a few columns as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.cuda.primitives.reductions import warp_sum
from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import Call, DeviceArray, at, empty, filled, realigned
from llcuda_kernels.cuda.runtime.intrinsics import (
    load4,
    multiply,
    multiply_add,
    store4,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from . import block_codes, block_tensor
from .block_units import FORMATS, Format
from .planes import add_parts, capability, parts_for

THREADS = 256
MOST_COLUMNS = 8
_ZERO = np.float32(0.0)


def _dequantize(name: str, form: Format) -> Kernel:
    kind, read, places, least = form

    @kernel(name, pointer(kind), pointer(F32), I32, bounds=THREADS)
    def run(blocks: Any, out: Any, units: Any) -> None:
        """A thread a unit; the whole tensor is one row of `units` units."""
        unit = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if unit >= units:
            return
        low, high, s0, s1, m0, m1 = read(blocks, np.int64(0), unit)
        x0, x1 = places(unit)
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
def _four(x: Any, w: Any, at: Any) -> Any:
    """Σ x q of four neighbours."""
    a, b, c, d = x
    y = multiply_add(c, w[at + 2], d * w[at + 3])
    return multiply_add(a, w[at], multiply_add(b, w[at + 1], y))


def _times_vector(name: str, form: Format, columns: int, shape: tuple[int, int, int]) -> Kernel:
    """`each` rows of W a warp, so that x is read once for them; `ahead` units under way at a time.

    What a multiprocessor has under way decides: 20 KB are on their way from the memory of a device
    that gives 4 TB/s after 600 ns.
    """
    kind, read, places, least = form
    each, ahead, resident = shape
    held_w, held_s = 8 * each * ahead, 4 * each * ahead
    sums_held, places_held = each * columns, 8 * each * columns

    @device
    def take(blocks: Any, rows: Any, unit: Any, at: Any, w: Any, s: Any) -> None:
        """Unit `unit` of each of the rows, into w and s from unit `at` on."""
        for r in range(each):
            low, high, s0, s1, m0, m1 = read(blocks, rows[r], unit)
            to = at + r
            w[8 * to], w[8 * to + 1], w[8 * to + 2], w[8 * to + 3] = low
            w[8 * to + 4], w[8 * to + 5], w[8 * to + 6], w[8 * to + 7] = high
            s[4 * to], s[4 * to + 1], s[4 * to + 2], s[4 * to + 3] = s0, s1, m0, m1

    @device
    def add(x: Any, inner: Any, last: Any, unit: Any, at: Any, w: Any, s: Any, total: Any) -> None:
        x0, x1 = places(unit)
        for c in range(columns):
            base = np.int64(min(np.int32(c), last)) * inner
            a, b = load4(x, base + x0), load4(x, base + x1)
            ta, tb = (a[0] + a[1]) + (a[2] + a[3]), (b[0] + b[1]) + (b[2] + b[3])
            for r in range(each):
                to = at + r
                y0, y1 = _four(a, w, 8 * to), _four(b, w, 8 * to + 4)
                t = multiply_add(
                    y0, s[4 * to], multiply_add(y1, s[4 * to + 1], total[r * columns + c])
                )
                if least:
                    t -= multiply_add(ta, s[4 * to + 2], tb * s[4 * to + 3])
                total[r * columns + c] = t

    @kernel(
        name, pointer(F32), pointer(kind), pointer(F32), I32, I32, I32, I32, I32,
        bounds=(THREADS, resident), shared=4 * places_held,
    )  # fmt: skip
    def run(
        x: Any, blocks: Any, out: Any, rows: Any, units: Any, length: Any, parts: Any, last: Any,
    ) -> None:  # fmt: skip
        """`each` rows take `parts` (1, 2, 4 or 8) warps of a block, which share their units.

        x: (columns, 8 units), column c read at min(c, last); length: of a row of W, in what blocks
        counts; out: (columns, rows), of which columns 0 to last are written.
        """
        lane = np.int32(cuda.threadIdx.x) & np.int32(31)
        warp = np.int32(cuda.threadIdx.x) >> np.int32(5)
        sums = cuda.shared.array(places_held, F32)
        groups = np.int32(8) // parts
        part = warp % parts
        n = (np.int32(cuda.blockIdx.x) * groups + warp // parts) * np.int32(each)
        total = cuda.local.array(sums_held, F32)
        for i in range(sums_held):
            total[i] = _ZERO
        if n < rows:
            w = cuda.local.array(held_w, F32)
            s = cuda.local.array(held_s, F32)
            at = cuda.local.array(each, I64)
            for r in range(each):
                at[r] = np.int64(min(n + np.int32(r), rows - np.int32(1))) * np.int64(length)
            inner = np.int64(8) * units
            step = np.int32(32) * parts
            unit = np.int32(32) * part + lane
            while unit + np.int32(ahead - 1) * step < units:
                for u in range(ahead):
                    take(blocks, at, unit + np.int32(u) * step, u * each, w, s)
                for u in range(ahead):
                    add(x, inner, last, unit + np.int32(u) * step, u * each, w, s, total)
                unit += np.int32(ahead) * step
            while unit < units:
                take(blocks, at, unit, 0, w, s)
                add(x, inner, last, unit, 0, w, s, total)
                unit += step
        for i in range(sums_held):
            y = warp_sum(total[i])
            if lane == 0:
                sums[np.int32(8 * i) + warp] = y
        cuda.syncthreads()
        # thread: column c of row r of group g
        t = np.int32(cuda.threadIdx.x)
        i = t // groups
        g = t % groups
        c = i % np.int32(columns)
        n = (np.int32(cuda.blockIdx.x) * groups + g) * np.int32(each) + i // np.int32(columns)
        if i < np.int32(sums_held) and n < rows and c <= last:
            y = _ZERO
            for p in range(parts):
                y += sums[np.int32(8) * i + g * parts + p]
            out[np.int64(c) * rows + n] = y

    return run


#: By how many columns share a reading: rows a warp, units under way, blocks a multiprocessor.
_SHAPES = {1: (8, 1, 2), 2: (4, 2, 2), 4: (4, 1, 1), 8: (2, 1, 1)}
DEQUANTIZE = {name: _dequantize(f"dequantize_{name}", form) for name, form in FORMATS.items()}
VECTOR = {
    (name, columns): _times_vector(f"{name}_times_{columns}", form, columns, shape)
    for name, form in FORMATS.items()
    for columns, shape in _SHAPES.items()
}


#: On tensor cores, by format and by how many columns share a reading.
_TENSOR_SHAPES = {1: (8, 2, 3, 2), 4: (8, 2, 2, 2), 8: (8, 2, 2, 1)}
_STAGES = {columns: shape[2] for columns, shape in _TENSOR_SHAPES.items()}
TENSOR = {
    (name, columns): block_tensor.times(f"{name}_tensor_{columns}", form, columns, *shape)
    for name, form in block_codes.FORMATS.items()
    for columns, shape in _TENSOR_SHAPES.items()
}


def dequantize(blocks: Array, kind: str, size: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """See `llcuda_kernels.dequantize_q4_0` and its like; size: numbers and bytes of a block."""
    call = Call(blocks)
    out = empty(shape, np.float32)
    if not out.size:
        return call.give(out)
    w = _blocks(call, blocks, kind)
    numbers, length = size[0], size[1] // w.dtype.itemsize
    units = out.size // 8
    # a launch counts units in 31 bits; each begins at a whole block
    most = ((1 << 30) // 32) * 32
    for first in range(0, units, most):
        count = min(most, units - first)
        DEQUANTIZE[kind].launch(
            divide_up(count, THREADS), THREADS,
            at(w, first * 8 // numbers * length), at(out, first * 8), count,
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
    w = _blocks(call, blocks, kind)
    length = inner // size[0] * size[1] // w.dtype.itemsize
    out = empty(shape, np.float32)
    for first in range(0, columns, MOST_COLUMNS):
        count = min(MOST_COLUMNS, columns - first)
        width = 1 << (count - 1).bit_length()
        if _on_tensor_cores(kind, min(n for n in _STAGES if n >= count), v, first, w, out, count):
            continue
        groups = divide_up(rows, _SHAPES[width][0])
        parts = _parts(groups, inner // 256)
        VECTOR[kind, width].launch(
            divide_up(groups * parts, 8), THREADS,
            at(v, first * inner), w.address, at(out, first * rows),
            rows, inner // 8, length, parts, count - 1,
        )  # fmt: skip
    return call.give(out)


def _on_tensor_cores(
    kind: str, width: int, x: DeviceArray, first: int, w: DeviceArray, out: DeviceArray, count: int
) -> bool:
    """Columns `first` to `first + count` of the products, where device and sizes allow it."""
    made, form = TENSOR.get((kind, width)), block_codes.FORMATS.get(kind)
    rows, inner = out.shape[-1], x.shape[-1]
    # chunks are whole, and pieces of 16 bytes end where the tensor does
    if made is None or form is None or inner % block_tensor.CHUNK or w.nbytes % 16:
        return False
    if capability() < made.least:
        return False
    tall, stages, chunks = _TENSOR_SHAPES[width][0], _STAGES[width], inner // block_tensor.CHUNK

    def shared(steps: int) -> int:
        return 4 * block_tensor.shared_words(form, width, stages, steps)

    tiles = divide_up(rows, block_tensor.ROWS * tall)
    parts = parts_for(made, tiles, chunks, shared)
    if not parts:
        return False
    groups = parts // made.cluster
    to = at(out, first * rows)
    sums = empty((groups, count * rows), np.float32) if groups > 1 else None
    made.launch(
        tiles * parts, block_tensor.THREADS,
        at(x, first * inner), w.view(np.int32, (w.nbytes // 4,)).address,
        to if sums is None else sums.address, rows, chunks, parts, count - 1,
        shared=shared(divide_up(chunks, parts)),
    )  # fmt: skip
    if sums is not None:
        add_parts(sums, to)
    return True


def _blocks(call: Call, blocks: Array, kind: str) -> DeviceArray:
    """The bytes as what the format's kernels read them as."""
    w = realigned(call.take(blocks, np.uint8, "blocks"))
    dtype = np.dtype(np.int32 if FORMATS[kind].kind is I32 else np.uint16)
    return w.view(dtype, (w.size // dtype.itemsize,))


def _parts(groups: int, most: int) -> int:
    """How many warps share a group of rows: enough to fill the device, none without a unit."""
    if shim.SIMULATED:
        wanted = 2
    else:
        from llcuda_kernels.cuda.runtime import driver

        wanted = divide_up(driver.multiprocessors() * 24, groups)
    parts = 1
    while parts < 8 and 2 * parts <= max(1, min(wanted, most)):
        parts *= 2
    return parts

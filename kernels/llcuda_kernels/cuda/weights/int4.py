"""int4 weights on the device.

AWQ holds eight columns of one row in a word, GPTQ eight rows of one column; either way a thread
takes words as they lie, neighbours by neighbours, and keeps what belongs to its columns in
registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.cuda.primitives import int4_vector
from llcuda_kernels.cuda.primitives.reductions import warp_sum
from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import Call, DeviceArray, empty, filled, realigned
from llcuda_kernels.cuda.runtime.intrinsics import from_f16, store4
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel, limits
from llcuda_kernels.cuda.runtime.shim import F32, I32, U16, cuda, device, pointer
from llcuda_kernels.cuda.weights import act_order

THREADS = 256
_ZERO = np.float32(0.0)
_NIBBLE = np.int32(15)


@device
def _half(scale: Any) -> Any:
    return from_f16(scale)


@device
def _single(scale: Any) -> Any:
    return scale


def _dequantize_awq(name: str, kind: Any, scale: Any) -> Kernel:
    @kernel(name, pointer(I32), pointer(I32), pointer(kind), pointer(F32), I32, I32, I32,
            bounds=THREADS)  # fmt: skip
    def run(q: Any, zeros: Any, scales: Any, out: Any, first: Any, columns: Any, size: Any) -> None:
        """A thread a word: eight columns of eight rows; a block row of the grid: eight rows."""
        words = columns >> np.int32(3)
        word = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if word >= words:
            return
        k0 = first + np.int32(cuda.blockIdx.y) * np.int32(8)
        group = np.int64(k0 // size)
        z = zeros[group * words + word]
        at = group * columns + 8 * word
        s0, s1, s2, s3 = scale(scales[at]), scale(scales[at + 1]), scale(scales[at + 2]), scale(
            scales[at + 3]
        )  # fmt: skip
        s4, s5, s6, s7 = scale(scales[at + 4]), scale(scales[at + 5]), scale(scales[at + 6]), scale(
            scales[at + 7]
        )  # fmt: skip
        for j in range(8):
            k = np.int64(k0 + np.int32(j))
            w = q[k * words + word]
            to = k * columns + 8 * word
            a, b = _less(w, z, 0) * s0, _less(w, z, 4) * s1
            c, d = _less(w, z, 1) * s2, _less(w, z, 5) * s3
            store4(out, to, a, b, c, d)
            a, b = _less(w, z, 2) * s4, _less(w, z, 6) * s5
            c, d = _less(w, z, 3) * s6, _less(w, z, 7) * s7
            store4(out, to + 4, a, b, c, d)

    return run


@device
def _less(word: Any, zeros: Any, nibble: Any) -> Any:
    """A number less its zero."""
    shift = np.int32(4 * nibble)
    return np.float32(((word >> shift) & _NIBBLE) - ((zeros >> shift) & _NIBBLE))


def _dequantize_gptq(name: str, kind: Any, scale: Any) -> Kernel:
    @kernel(name, pointer(I32), pointer(I32), pointer(kind), pointer(F32), I32, I32, I32,
            bounds=THREADS)  # fmt: skip
    def run(q: Any, zeros: Any, scales: Any, out: Any, first: Any, columns: Any, size: Any) -> None:
        """A thread a word: eight rows of one column; a block row of the grid: eight rows."""
        n = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if n >= columns:
            return
        k0 = first + np.int32(cuda.blockIdx.y) * np.int32(8)
        group = np.int64(k0 // size)
        shift = np.int32(4) * (n & np.int32(7))
        z = ((zeros[group * (columns >> 3) + (n >> 3)] >> shift) & _NIBBLE) + np.int32(1)
        s = scale(scales[group * columns + n])
        word = q[np.int64(k0 >> np.int32(3)) * columns + n]
        for j in range(8):
            v = (word >> np.int32(4 * j)) & _NIBBLE
            out[np.int64(k0 + np.int32(j)) * columns + n] = np.float32(v - z) * s

    return run


@kernel("sum_groups", pointer(F32), pointer(F32), I32, I32, bounds=THREADS)
def _sum_groups(x: Any, out: Any, groups: Any, size: Any) -> None:
    """The sum of x over each group: a warp a group. What zeros are multiplied with."""
    group = np.int32(cuda.blockIdx.x) * np.int32(8) + (np.int32(cuda.threadIdx.x) >> np.int32(5))
    if group >= groups:
        return
    y = _ZERO
    for i in range(np.int32(cuda.threadIdx.x) & np.int32(31), size, 32):
        y += x[np.int64(group) * size + i]
    y = warp_sum(y)
    if (cuda.threadIdx.x & 31) == 0:
        out[group] = y


@kernel("sum_parts", pointer(F32), pointer(F32), I32, I32, bounds=THREADS)
def _sum_parts(parts: Any, out: Any, count: Any, columns: Any) -> None:
    """The parts of each column, added."""
    n = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    if n < columns:
        y = _ZERO
        for p in range(count):
            y += parts[np.int64(p) * columns + n]
        out[n] = y


#: By layout and type of the scales.
DEQUANTIZE = {
    (True, "float16"): _dequantize_awq("dequantize_awq_f16", U16, _half),
    (True, "float32"): _dequantize_awq("dequantize_awq_f32", F32, _single),
    (False, "float16"): _dequantize_gptq("dequantize_gptq_f16", U16, _half),
    (False, "float32"): _dequantize_gptq("dequantize_gptq_f32", F32, _single),
}
VECTOR = {
    (True, "float16"): int4_vector.awq("awq_times_vector_f16", U16, _half),
    (True, "float32"): int4_vector.awq("awq_times_vector_f32", F32, _single),
    (False, "float16"): int4_vector.gptq("gptq_times_vector_f16", U16, _half),
    (False, "float32"): int4_vector.gptq("gptq_times_vector_f32", F32, _single),
}


def _scales(call: Call, scales: Array) -> tuple[str, DeviceArray]:
    kind = np.dtype(scales.dtype).name
    kind = kind if kind == "float16" else "float32"
    s = call.take(scales, kind, "scales", 2)
    return kind, s.view(np.uint16, s.shape) if kind == "float16" else s


def dequantize(
    qweight: Array, qzeros: Array, scales: Array, awq: bool, inner: int, g_idx: Array | None = None
) -> Array:
    """See `llcuda_kernels.dequantize_int4`."""
    call = Call(qweight, qzeros, scales, g_idx)
    q, z = call.take(qweight, np.int32, "qweight", 2), call.take(qzeros, np.int32, "qzeros", 2)
    kind, s = _scales(call, scales)
    groups, columns = s.shape
    out = empty((inner, columns), np.float32)
    if out.size:
        of = None if g_idx is None else call.take(g_idx, np.int32, "g_idx", 1)
        across, most = divide_up(columns // 8 if awq else columns, THREADS), limits().grid[1]
        for first in range(0, inner // 8, most):
            grid = (across, min(most, inner // 8 - first))
            given = q.address, z.address, s.address
            if of is None:
                DEQUANTIZE[awq, kind].launch(
                    grid, THREADS, *given, out.address, 8 * first, columns, inner // groups
                )
            else:
                act_order.DEQUANTIZE[kind].launch(
                    grid, THREADS, *given, of.address, out.address, 8 * first, columns, groups
                )
    return call.give(out)


def times_vector(
    x: Array, qweight: Array, qzeros: Array, scales: Array, awq: bool, g_idx: Array | None = None
) -> Array:
    """See `llcuda_kernels.int4_times_vector`."""
    call = Call(x, qweight, qzeros, scales, g_idx)
    v = call.take(x, np.float32, "x", 1)
    q, z = call.take(qweight, np.int32, "qweight", 2), call.take(qzeros, np.int32, "qzeros", 2)
    kind, s = _scales(call, scales)
    groups, columns = s.shape
    inner = v.shape[0]
    if not inner or not columns:
        return call.give(filled((columns,), np.float32, 0.0))
    v, q = realigned(v), realigned(q)
    if g_idx is not None:
        of = call.take(g_idx, np.int32, "g_idx", 1)
        across = divide_up(columns, THREADS)
        parts = _parts(inner // 8, across)
        made = empty((parts, columns), np.float32)
        act_order.VECTOR[kind].launch(
            (across, parts), THREADS,
            v.address, q.address, z.address, s.address, of.address, made.address,
            columns, inner // parts, groups,
        )  # fmt: skip
        return call.give(_summed(made))
    size = inner // groups
    across = divide_up(columns, 256) if awq else divide_up(columns, 128)
    parts = _parts(groups, across)
    made = empty((parts, columns), np.float32)
    sums_x = empty((groups,), np.float32)
    _sum_groups.launch(divide_up(groups, 8), THREADS, v.address, sums_x.address, groups, size)
    VECTOR[awq, kind].launch(
        (across, parts), THREADS,
        v.address, sums_x.address, q.address, z.address, s.address, made.address,
        columns, size, inner // parts,
    )  # fmt: skip
    return call.give(_summed(made))


def _summed(parts: DeviceArray) -> DeviceArray:
    """The sum over the first axis."""
    count, columns = parts.shape
    if count == 1:
        return parts.reshape(columns)
    out = empty((columns,), np.float32)
    _sum_parts.launch(
        divide_up(columns, THREADS), THREADS, parts.address, out.address, count, columns
    )
    return out


def _parts(groups: int, across: int) -> int:
    """How many blocks share a column: a divisor of the groups, enough to fill the device."""
    if shim.SIMULATED:
        wanted = 2
    else:
        from llcuda_kernels.cuda.runtime import driver

        wanted = divide_up(driver.multiprocessors() * 32, across)  # the last wave is short
    return max(n for n in range(1, groups + 1) if groups % n == 0 and n <= max(1, wanted))

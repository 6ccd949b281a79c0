"""int4 weights on the device.

AWQ holds eight columns of one row in a word, GPTQ eight rows of one column; either way a thread
takes words as they lie, neighbours by neighbours, and keeps what belongs to its columns in
registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from llcuda_kernels.arrays import Array
from llcuda_kernels.cuda.primitives import int4_vector
from llcuda_kernels.cuda.primitives.reductions import warp_sum
from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import Call, DeviceArray, empty, filled, realigned
from llcuda_kernels.cuda.runtime.intrinsics import from_f16, load4, store4
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel, limits
from llcuda_kernels.cuda.runtime.shim import F32, I32, U16, cuda, device, pointer
from llcuda_kernels.cuda.weights import act_order, awq_tensor, gptq_tensor
from llcuda_kernels.cuda.weights.planes import add_parts, capability, parts_for

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
        """A thread half a word: four columns of eight rows, all read before the first is written;
        a block row of the grid: eight rows."""
        half = np.int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        words = columns >> np.int32(3)
        word, right = half >> np.int32(1), half & np.int32(1)
        if word >= words:
            return
        k0 = first + np.int32(cuda.blockIdx.y) * np.int32(8)
        held = cuda.local.array(8, I32)
        for j in range(8):
            held[j] = q[np.int64(k0 + np.int32(j)) * words + word]
        group = np.int64(k0 // size)
        at = 8 * np.int64(word) + 4 * np.int64(right)
        s0, s1, s2, s3 = load4(scales, group * columns + at)
        a, b, c, d = scale(s0), scale(s1), scale(s2), scale(s3)
        shift = np.int32(8) * right  # columns 4 to 7 lie two nibbles above 0 to 3
        z = zeros[group * words + word] >> shift
        for j in range(8):
            w = held[j] >> shift
            to = np.int64(k0 + np.int32(j)) * columns + at
            store4(
                out, to, _less(w, z, 0) * a, _less(w, z, 4) * b, _less(w, z, 1) * c,
                _less(w, z, 5) * d,
            )  # fmt: skip

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


class _Tensor(NamedTuple):
    """A kernel for tensor cores, its columns a block and rows a step, and its shared memory.

    unit: of how many columns N is a multiple, so that a load of 16 bytes is in one row.
    """

    made: Kernel
    tile: int
    step: int
    unit: int
    shared: Callable[[int], int]


def _tensor(awq: bool, kind: str, across: int, down: int, cluster: int, stages: int) -> _Tensor:
    module: Any = awq_tensor if awq else gptq_tensor
    make = awq_tensor.awq if awq else gptq_tensor.gptq
    threads = 32 * across * down
    half = kind == "float16"
    made = make(
        f"{'awq' if awq else 'gptq'}_tensor_{'f16' if half else 'f32'}", U16 if half else F32,
        _half if half else _single, across, down, cluster, stages, 1 if awq else 3,
    )  # fmt: skip
    return _Tensor(
        made, module.TILE * across, module.STEP, 32 if awq else 4,
        lambda steps: module.shared(threads, stages, steps, down),
    )  # fmt: skip


#: By layout and type of the scales; how the work is shared out was tuned on layers of two shapes.
TENSOR = {
    (awq, kind): _tensor(awq, kind, *shape)
    for awq, shape in ((True, (1, 16, 2, 4)), (False, (4, 2, 2, 8)))
    for kind in ("float16", "float32")
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
        s = realigned(s)
        across, most = divide_up(columns // 4 if awq else columns, THREADS), limits().grid[1]
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
    found = _on_tensor_cores(TENSOR[awq, kind], v, q, realigned(z), realigned(s), size)
    if found is not None:
        return call.give(found)
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


def _on_tensor_cores(
    tensor: _Tensor, x: DeviceArray, q: DeviceArray, z: DeviceArray, s: DeviceArray, size: int
) -> DeviceArray | None:
    """The product; None where the device or the sizes do not allow it."""
    made, tile, step, unit, shared = tensor
    inner, columns = x.shape[0], s.shape[1]
    if size % step or columns % unit or capability() < made.least:
        return None
    tiles = divide_up(columns, tile)
    parts = parts_for(made, tiles, inner // step, shared)
    if not parts:
        return None
    out = empty((parts // made.cluster, columns), np.float32)
    threads = made.bounds[0] if isinstance(made.bounds, tuple) else made.bounds
    made.launch(
        tiles * parts, threads, x.address, q.address, z.address, s.address, out.address,
        columns, size, inner, parts, shared=shared(divide_up(inner // step, parts)),
    )  # fmt: skip
    return _summed(out)


def _summed(parts: DeviceArray) -> DeviceArray:
    """The sum over the first axis."""
    count, columns = parts.shape
    if count == 1:
        return parts.reshape(columns)
    out = empty((columns,), np.float32)
    add_parts(parts, out.address)
    return out


def _parts(groups: int, across: int) -> int:
    """How many blocks share a column: a divisor of the groups, enough to fill the device."""
    if shim.SIMULATED:
        wanted = 2
    else:
        from llcuda_kernels.cuda.runtime import driver

        wanted = divide_up(driver.multiprocessors() * 32, across)  # the last wave is short
    return max(n for n in range(1, groups + 1) if groups % n == 0 and n <= max(1, wanted))

"""float32 products of 1 to 64 rows with a matrix: B is read once, at the memory's speed.

A block has 128 columns of C and a part of k; its warps take steps of it in turn, and a thread four
columns, so that a warp reads 512 neighbouring bytes of a row of B. What a thread holds is a sum for
each of its columns and rows of A. More than 16 rows are blocks side by side: the second finds B in
the second-level cache.

Where columns alone do not fill the GPU, k is shared among blocks too, and `add_parts` adds what
they found, in order: the same call gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import DeviceArray, aligned, empty
from llcuda_kernels.cuda.runtime.intrinsics import load4, multiply_add, store4
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

#: The most rows for which these are faster than our kernel for large products, and than cuBLAS.
MOST, FASTER = 64, 16
COLUMNS, THREADS, WARPS, DEPTH = 128, 256, 8, 8
_ZERO = np.float32(0.0)


@device
def _columns(b: Any, row: Any, column: Any, apart: Any, n: Any) -> Any:
    """A thread's four columns of a row; zeros beyond the edge."""
    at, second, third = np.int64(row) * n, column + apart, column + 2 * apart
    return (
        b[at + column] if column < n else _ZERO,
        b[at + second] if second < n else _ZERO,
        b[at + third] if third < n else _ZERO,
        b[at + third + apart] if third + apart < n else _ZERO,
    )


@device
def _add(sums: Any, at: Any, x: Any, b: Any) -> None:
    sums[at] = multiply_add(x, b[0], sums[at])
    sums[at + 1] = multiply_add(x, b[1], sums[at + 1])
    sums[at + 2] = multiply_add(x, b[2], sums[at + 2])
    sums[at + 3] = multiply_add(x, b[3], sums[at + 3])


def _make(rows: int, blocks: int) -> Kernel:
    together = min(rows, 4)  # rows of sums in shared memory at once
    count, held, wide = 4 * rows, WARPS * together * COLUMNS, together * COLUMNS

    @device
    def end_(
        near: Any, sums: Any, r0: Any, out: Any, part: Any, row0: Any, m: Any, column0: Any, n: Any,
        fit_b: Any,
    ) -> None:  # fmt: skip
        """Add what the warps have of up to four rows, and keep it."""
        t = np.int32(cuda.threadIdx.x)
        lane, warp = t & np.int32(31), t >> np.int32(5)
        cuda.syncthreads()
        for r in range(together):
            s = 4 * (r0 + r)
            to = (warp * together + r) * COLUMNS + 4 * lane
            store4(near, to, sums[s], sums[s + 1], sums[s + 2], sums[s + 3])
        cuda.syncthreads()
        for i in range(t, wide, THREADS):
            total = _ZERO
            for w in range(WARPS):
                total += near[w * wide + i]
            below, c = i // np.int32(COLUMNS), i & np.int32(COLUMNS - 1)
            # where the columns were 32 apart, number c is of thread c / 4, its c % 4
            far = (c >> np.int32(2)) + np.int32(32) * (c & np.int32(3))
            at = column0 + (c if fit_b else far)
            row = row0 + np.int32(r0) + below
            if row < m and at < n:
                out[(part + row) * n + at] = total

    @kernel(
        f"matmul_{rows}_rows",
        pointer(F32), pointer(F32), pointer(F32), I32, I32, I32, I32, I32, I32,
        bounds=(THREADS, blocks), shared=4 * held,
    )  # fmt: skip
    def run(
        a: Any, b: Any, out: Any, m: Any, n: Any, inner: Any, share: Any, fit_a: Any, fit_b: Any
    ) -> None:
        """Block (rows and columns, part). share: of k a part; fit_a, fit_b: whole vectors."""
        near = cuda.shared.array(held, F32, 16)
        sums = cuda.local.array(count, F32)
        for i in range(count):
            sums[i] = _ZERO
        t = np.int32(cuda.threadIdx.x)
        lane, warp = t & np.int32(31), t >> np.int32(5)
        high = (m + np.int32(rows - 1)) // np.int32(rows)
        block = np.int32(cuda.blockIdx.x)
        row0 = block % high * np.int32(rows)
        column0 = block // high * np.int32(COLUMNS)
        apart = np.int32(1) if fit_b else np.int32(32)
        column = column0 + (np.int32(4) * lane if fit_b else lane)
        inside = fit_a and fit_b and column < n
        first = np.int32(cuda.blockIdx.y) * share
        end = min(inner, first + share)
        k = first + np.int32(DEPTH) * warp
        while k < end:
            if inside and k + DEPTH <= end:
                at = np.int64(k) * n + column
                p0, p1 = load4(b, at), load4(b, at + n)
                p2, p3 = load4(b, at + 2 * np.int64(n)), load4(b, at + 3 * np.int64(n))
                p4, p5 = load4(b, at + 4 * np.int64(n)), load4(b, at + 5 * np.int64(n))
                p6, p7 = load4(b, at + 6 * np.int64(n)), load4(b, at + 7 * np.int64(n))
                for r in range(rows):
                    # rows beyond the last are the last once more, and are not kept
                    here = np.int64(min(row0 + np.int32(r), m - np.int32(1))) * inner + k
                    x0, x1, x2, x3 = load4(a, here)
                    y0, y1, y2, y3 = load4(a, here + 4)
                    s = 4 * r
                    _add(sums, s, x0, p0)
                    _add(sums, s, x1, p1)
                    _add(sums, s, x2, p2)
                    _add(sums, s, x3, p3)
                    _add(sums, s, y0, p4)
                    _add(sums, s, y1, p5)
                    _add(sums, s, y2, p6)
                    _add(sums, s, y3, p7)
            else:
                for one in range(k, min(end, k + np.int32(DEPTH))):
                    p = _columns(b, one, column, apart, n)
                    for r in range(rows):
                        row = min(row0 + np.int32(r), m - np.int32(1))
                        _add(sums, 4 * r, a[np.int64(row) * inner + one], p)
            k += np.int32(DEPTH * WARPS)
        part = np.int64(cuda.blockIdx.y) * m
        end_(near, sums, 0, out, part, row0, m, column0, n, fit_b)
        # written out: indices must be known, so that the sums stay in registers
        if rows > 4:
            end_(near, sums, 4, out, part, row0, m, column0, n, fit_b)
        if rows > 8:
            end_(near, sums, 8, out, part, row0, m, column0, n, fit_b)
            end_(near, sums, 12, out, part, row0, m, column0, n, fit_b)

    return run


#: Kernels, the rows that they have, and the blocks that run on a multiprocessor at once.
_KINDS = ((_make(1, 3), 1, 3), (_make(4, 3), 4, 3), (_make(16, 1), 16, 1))


def _adding(name: str, kind: Any, zero: Any) -> Kernel:
    @kernel(name, pointer(kind), pointer(kind), I64, I32, bounds=THREADS)
    def run(source: Any, out: Any, size: Any, parts: Any) -> None:
        """Parts of a result, one behind the other, added in order."""
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < size:
            total = zero
            for p in range(parts):
                total += source[p * size + i]
            out[i] = total

    return run


ADD = {
    np.dtype(np.float32): _adding("add_parts_float32", F32, _ZERO),
    np.dtype(np.int32): _adding("add_parts_int32", I32, np.int32(0)),
}


def parts_for(blocks: int, steps: int, resident: int) -> int:
    """Into how many parts k is split: as many as are at work at once, of four steps at least."""
    return max(1, min(resident * processors() // blocks, steps // 4))


def processors() -> int:
    """Multiprocessors of the current device."""
    if shim.SIMULATED:
        return 2
    from llcuda_kernels.cuda.runtime import driver

    return driver.multiprocessors()


def add_parts(source: DeviceArray, out: DeviceArray, parts: int) -> None:
    """Sum (parts, …) over its first axis."""
    ADD[out.dtype].launch(
        divide_up(out.size, THREADS), THREADS, source.address, out.address, out.size, parts
    )


def launch(x: DeviceArray, y: DeviceArray, to: DeviceArray, parts: int = 0) -> None:
    """C = A B, none of them empty, at most `MOST` rows of A. parts: 0 to choose."""
    (m, inner), n = x.shape, y.shape[1]
    made, rows, resident = next(kind for kind in _KINDS if m <= kind[1] or kind is _KINDS[-1])
    blocks, steps = divide_up(m, rows) * divide_up(n, COLUMNS), divide_up(inner, DEPTH * WARPS)
    parts = parts or parts_for(blocks, steps, resident)
    share = divide_up(steps, parts) * DEPTH * WARPS
    parts = divide_up(inner, share)
    where = to if parts == 1 else empty((parts, m, n), np.float32)
    fit_a, fit_b = inner % 4 == 0 and aligned(x), n % 4 == 0 and aligned(y)
    made.launch(
        (blocks, parts), THREADS,
        x.address, y.address, where.address, m, n, inner, share, fit_a, fit_b,
    )  # fmt: skip
    if parts > 1:
        add_parts(where, to, parts)

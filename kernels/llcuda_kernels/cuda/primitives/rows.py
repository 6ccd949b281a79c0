"""Kernels for rows, in three sizes; the steps are in `row_operations`.

* ``_warp``: up to 1,024 numbers. A warp a row; the row stays in registers, 32 numbers a lane, and
  no thread waits for another warp.
* ``_block``: up to 12,000 numbers. A block a row; the row stays in shared memory, not in registers,
  so that many rows are under way at once. Blocks are small for the same reason.
* ``_plain``: any length and alignment. A block a row; the row is read three times.

The first two read vectors of four: the length must be a multiple of four, and the arrays aligned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import lane, load4, store4
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .reductions import block_max_int_once, block_sum_once, warp_max_int, warp_sum
from .row_operations import LOWEST, OPS, ZERO, RowOp

THREADS, ROWS_A_BLOCK = 256, 8
WARP_MOST, BLOCK_MOST = 1024, 12000
BLOCK_THREADS, PLAIN_THREADS = 128, 512


@device
def _most(a: Any, b: Any) -> Any:
    return b if b > a else a


def _signature(kind: Any) -> list[Any]:
    return [pointer(F32), pointer(F32), pointer(kind), pointer(F32), I64, I32, F32]


def _warp(op: RowOp) -> Kernel:
    peak_of, prepare, term, finish = op.peak, op.prepare, op.term, op.finish
    value, put4, gain4, scale_of = op.value, op.put4, op.gain4, op.scale

    @kernel(f"{op.name}_warp", *_signature(op.kind4), bounds=(THREADS, 3))
    def run(x: Any, w: Any, out: Any, scales: Any, rows: Any, n: Any, eps: Any) -> None:
        row = np.int64(cuda.blockIdx.x) * ROWS_A_BLOCK + (cuda.threadIdx.x >> 5)
        if row >= rows:
            return
        base = row * n
        first = np.int32(lane()) * np.int32(4)
        v = cuda.local.array(32, F32)
        top = LOWEST
        for j in range(8):
            at = first + np.int32(128) * np.int32(j)
            if at < n:
                a, b, c, d = load4(x, base + at)
                v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3] = a, b, c, d
        for j in range(8):
            if first + np.int32(128) * np.int32(j) < n:
                for i in range(4):
                    top = _most(top, peak_of(v[4 * j + i]))
        top = warp_max_int(top)
        p, q = prepare(top, eps)
        total = ZERO
        for j in range(8):
            if first + np.int32(128) * np.int32(j) < n:
                for i in range(4):
                    total += term(v[4 * j + i], p, q)
        total = warp_sum(total)
        f = finish(total, p, q, n, eps)
        for j in range(8):
            at = first + np.int32(128) * np.int32(j)
            if at < n:
                g0, g1, g2, g3 = gain4(w, np.int64(at))
                put4(
                    out,
                    base + at,
                    value(v[4 * j], p, q, f, g0),
                    value(v[4 * j + 1], p, q, f, g1),
                    value(v[4 * j + 2], p, q, f, g2),
                    value(v[4 * j + 3], p, q, f, g3),
                )
        if first == 0:
            scales[row] = scale_of(total, top)

    return run


def _block(op: RowOp) -> Kernel:
    peak_of, prepare, term, finish = op.peak, op.prepare, op.term, op.finish
    value, put4, gain4, scale_of = op.value, op.put4, op.gain4, op.scale

    @kernel(f"{op.name}_block", *_signature(op.kind4), bounds=BLOCK_THREADS, shared=256)
    def run(x: Any, w: Any, out: Any, scales: Any, rows: Any, n: Any, eps: Any) -> None:
        near = cuda.shared.array(0, F32, 16)
        row = np.int64(cuda.blockIdx.x)
        base = row * n
        t = np.int32(cuda.threadIdx.x)
        top = LOWEST
        for at in range(4 * t, n, 4 * BLOCK_THREADS):
            a, b, c, d = load4(x, base + at)
            store4(near, at, a, b, c, d)
            top = _most(_most(top, peak_of(a)), peak_of(b))
            top = _most(_most(top, peak_of(c)), peak_of(d))
        top = block_max_int_once(top, BLOCK_THREADS)
        p, q = prepare(top, eps)
        total = ZERO
        for at in range(4 * t, n, 4 * BLOCK_THREADS):
            a, b, c, d = load4(near, at)
            total += (term(a, p, q) + term(b, p, q)) + (term(c, p, q) + term(d, p, q))
        total = block_sum_once(total, BLOCK_THREADS)
        f = finish(total, p, q, n, eps)
        for at in range(4 * t, n, 4 * BLOCK_THREADS):
            a, b, c, d = load4(near, at)
            g0, g1, g2, g3 = gain4(w, at)
            put4(
                out,
                base + at,
                value(a, p, q, f, g0),
                value(b, p, q, f, g1),
                value(c, p, q, f, g2),
                value(d, p, q, f, g3),
            )
        if t == 0:
            scales[row] = scale_of(total, top)

    return run


def _plain(op: RowOp) -> Kernel:
    peak_of, prepare, term, finish = op.peak, op.prepare, op.term, op.finish
    value, put1, gain1, scale_of = op.value, op.put1, op.gain1, op.scale

    @kernel(f"{op.name}_plain", *_signature(op.kind1), bounds=PLAIN_THREADS, shared=256)
    def run(x: Any, w: Any, out: Any, scales: Any, rows: Any, n: Any, eps: Any) -> None:
        row = np.int64(cuda.blockIdx.x)
        base = row * n
        t = np.int32(cuda.threadIdx.x)
        top = LOWEST
        for at in range(t, n, PLAIN_THREADS):
            top = _most(top, peak_of(x[base + at]))
        top = block_max_int_once(top, PLAIN_THREADS)
        p, q = prepare(top, eps)
        total = ZERO
        for at in range(t, n, PLAIN_THREADS):
            total += term(x[base + at], p, q)
        total = block_sum_once(total, PLAIN_THREADS)
        f = finish(total, p, q, n, eps)
        for at in range(t, n, PLAIN_THREADS):
            put1(out, base + at, value(x[base + at], p, q, f, gain1(w, np.int64(at))))
        if t == 0:
            scales[row] = scale_of(total, top)

    return run


KERNELS = {op.name: (_warp(op), _block(op), _plain(op)) for op in OPS}


def run(
    name: str, x: Any, w: Any, out: Any, scales: Any, rows: int, n: int, eps: float, fit: bool
) -> None:
    """Launch the kernel for rows of this length; `fit`: all arrays are aligned."""
    warp, block, plain = KERNELS[name]
    args = (x, w, out, scales, rows, n, eps)
    if fit and n % 4 == 0 and n <= WARP_MOST:
        warp.launch(divide_up(rows, ROWS_A_BLOCK), THREADS, *args)
    elif fit and n % 4 == 0 and n <= BLOCK_MOST and block.fits(4 * n):
        block.launch(rows, BLOCK_THREADS, *args, shared=4 * n)
    else:
        plain.launch(rows, PLAIN_THREADS, *args)

"""Kernels for rows, in four sizes; the steps are in `row_operations`.

* ``_warp``: up to 1,024 numbers. A warp a row; the row stays in registers, 32 numbers a lane, and
  no thread waits for another warp.
* ``_block``: up to 16,384 numbers. A block a row, with a warp for each 1,024 numbers; the row stays
  in registers. `unit_codes` has its own.
* ``_cluster``: up to some 460,000 numbers, from compute capability 9.0 on. Eight blocks a row, each
  with its share in shared memory; they tell each other their greatest numbers and their sums.
* ``_plain``: any length and alignment. A block a row; the row is read three times.

All but the last read vectors of four: the length must be a multiple of four, and the arrays
aligned. They read each number once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    cluster_arrive,
    cluster_put,
    cluster_wait,
    copy_async4,
    copy_commit,
    copy_wait,
    float_bits,
    lane,
    load4,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from . import unit_codes
from .reductions import block_max_int_once, block_sum_once, warp_max_int, warp_sum
from .row_operations import LOWEST, OPS, UNIT_CODES, ZERO, RowOp

THREADS, ROWS_A_BLOCK = 256, 8
WARP_MOST, BLOCK_MOST = 1024, 16384
CLUSTER, CLUSTER_THREADS, PLAIN_THREADS = 8, 256, 512
CLUSTERS_FROM = (9, 0)
#: So many clusters at most, which take the rows in turn: 0.716 ms for 2048 x 128k, 0.735 with 256.
CLUSTERS = 512


@device
def _most(a: Any, b: Any) -> Any:
    return b if b > a else a


@device
def share_of(n: Any) -> Any:
    """How many numbers of a row each block of a cluster gets: whole vectors."""
    return (n + np.int32(4 * CLUSTER - 1)) // np.int32(4 * CLUSTER) * np.int32(4)


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
                    f,
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

    @kernel(f"{op.name}_block", *_signature(op.kind4), bounds=BLOCK_MOST // 32, shared=256)
    def run(x: Any, w: Any, out: Any, scales: Any, rows: Any, n: Any, eps: Any) -> None:
        base = np.int64(cuda.blockIdx.x) * n
        threads = np.int32(cuda.blockDim.x)
        first = np.int32(4) * np.int32(cuda.threadIdx.x)
        v = cuda.local.array(32, F32)
        for j in range(8):
            at = first + np.int32(4 * j) * threads
            if at < n:
                a, b, c, d = load4(x, base + at)
                v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3] = a, b, c, d
        top = LOWEST
        for j in range(8):
            if first + np.int32(4 * j) * threads < n:
                for i in range(4):
                    top = _most(top, peak_of(v[4 * j + i]))
        top = block_max_int_once(top, threads)
        p, q = prepare(top, eps)
        total = ZERO
        for j in range(8):
            if first + np.int32(4 * j) * threads < n:
                for i in range(4):
                    total += term(v[4 * j + i], p, q)
        total = block_sum_once(total, threads)
        f = finish(total, p, q, n, eps)
        for j in range(8):
            at = first + np.int32(4 * j) * threads
            if at < n:
                g0, g1, g2, g3 = gain4(w, np.int64(at))
                put4(
                    out,
                    base + at,
                    f,
                    value(v[4 * j], p, q, f, g0),
                    value(v[4 * j + 1], p, q, f, g1),
                    value(v[4 * j + 2], p, q, f, g2),
                    value(v[4 * j + 3], p, q, f, g3),
                )
        if first == 0:
            scales[cuda.blockIdx.x] = scale_of(total, top)

    return run


def _cluster(op: RowOp) -> Kernel:
    peak_of, prepare, term, finish = op.peak, op.prepare, op.term, op.finish
    value, put4, gain4, scale_of = op.value, op.put4, op.gain4, op.scale

    @kernel(
        f"{op.name}_cluster", *_signature(op.kind4), bounds=(CLUSTER_THREADS, 3), shared=320,
        least=CLUSTERS_FROM, cluster=CLUSTER,
    )  # fmt: skip
    def run(x: Any, w: Any, out: Any, scales: Any, rows: Any, n: Any, eps: Any) -> None:
        """Row after row; each thread copies its numbers of the next row as it writes this one's."""
        near = cuda.shared.array(0, F32, 16)
        tops = cuda.shared.array(CLUSTER, I32)
        sums = cuda.shared.array(CLUSTER, I32)
        cluster_arrive()  # nobody writes to a block before it has started
        t = np.int32(cuda.threadIdx.x)
        own = np.int32(cuda.blockIdx.x) & np.int32(CLUSTER - 1)
        share = share_of(n)
        size = min(share, n - own * share)
        row = np.int64(cuda.blockIdx.x) // CLUSTER
        step = np.int64(cuda.gridDim.x) // CLUSTER
        for at in range(4 * t, size, 4 * CLUSTER_THREADS):
            copy_async4(near, at, x, row * n + own * share + at)
        copy_commit()
        cluster_wait()
        while row < rows:
            base = row * n + own * share
            top = LOWEST
            copy_wait(0)
            for at in range(4 * t, size, 4 * CLUSTER_THREADS):
                a, b, c, d = load4(near, at)
                top = _most(
                    top, _most(_most(peak_of(a), peak_of(b)), _most(peak_of(c), peak_of(d)))
                )
            top = block_max_int_once(top, CLUSTER_THREADS)
            if t < CLUSTER:
                cluster_put(tops, own, top, t)
            cluster_arrive()
            cluster_wait()
            for i in range(CLUSTER):
                top = _most(top, tops[i])
            p, q = prepare(top, eps)
            total = ZERO
            for at in range(4 * t, size, 4 * CLUSTER_THREADS):
                a, b, c, d = load4(near, at)
                total += (term(a, p, q) + term(b, p, q)) + (term(c, p, q) + term(d, p, q))
            total = block_sum_once(total, CLUSTER_THREADS)
            if t < CLUSTER:
                cluster_put(sums, own, float_bits(total), t)
            cluster_arrive()
            cluster_wait()
            total = ZERO
            for i in range(CLUSTER):
                total += bits_float(sums[i])
            f = finish(total, p, q, n, eps)
            for at in range(4 * t, size, 4 * CLUSTER_THREADS):
                a, b, c, d = load4(near, at)
                if row + step < rows:
                    copy_async4(near, at, x, base + step * n + at)
                g0, g1, g2, g3 = gain4(w, np.int64(own * share + at))
                put4(
                    out,
                    base + at,
                    f,
                    value(a, p, q, f, g0),
                    value(b, p, q, f, g1),
                    value(c, p, q, f, g2),
                    value(d, p, q, f, g3),
                )
            copy_commit()
            if t == 0 and own == 0:
                scales[row] = scale_of(total, top)
            row += step

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
            put1(out, base + at, f, value(x[base + at], p, q, f, gain1(w, np.int64(at))))
        if t == 0:
            scales[row] = scale_of(total, top)

    return run


KERNELS = {
    op.name: (
        _warp(op),
        unit_codes.block if op is UNIT_CODES else _block(op),
        _cluster(op),
        _plain(op),
    )
    for op in OPS
}


def in_vectors(n: int, fit: bool) -> bool:
    """Whether rows of this length are written four numbers at a time; `fit`: all are aligned."""
    return fit and n % 4 == 0 and (n <= BLOCK_MOST or _clustered(n))


def _near(n: int) -> int:
    """The bytes of a block's share of a row."""
    return 16 * divide_up(n, 4 * CLUSTER)


def _clustered(n: int) -> bool:
    if not shim.SIMULATED:
        from llcuda_kernels.cuda.runtime import driver

        if driver.compute_capability() < CLUSTERS_FROM:
            return False
    return KERNELS["softmax"][2].fits(_near(n))


def run(
    name: str, x: Any, w: Any, out: Any, scales: Any, rows: int, n: int, eps: float, fit: bool
) -> None:
    """Launch the kernel for rows of this length; `fit`: all arrays are aligned."""
    warp, block, cluster, plain = KERNELS[name]
    args = (x, w, out, scales, rows, n, eps)
    if not in_vectors(n, fit):
        plain.launch(rows, PLAIN_THREADS, *args)
    elif n <= WARP_MOST:
        warp.launch(divide_up(rows, ROWS_A_BLOCK), THREADS, *args)
    elif n <= BLOCK_MOST:
        block.launch(rows, 32 * divide_up(n, 1024), *args)
    else:
        cluster.launch(min(rows, CLUSTERS) * CLUSTER, CLUSTER_THREADS, *args, shared=_near(n))

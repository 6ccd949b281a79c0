"""GPTQ's int4 weights times a vector on tensor cores; compute capability 8.0 on.

As `awq_tensor`, but that the halves of a word, shifted, are two rows of the same column: the
columns of B are the planes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import (
    add_bf16,
    cluster_arrive,
    cluster_wait,
    copy_async_bytes,
    copy_commit,
    copy_wait,
    load4,
    mma_bf16,
    nibbles_bf16,
    shuffle_xor,
    store4,
    store_past,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer
from llcuda_kernels.cuda.weights.planes import finish, joined, split, twice

_ZERO = np.float32(0.0)
#: Above a nibble: 128 + q, as pairs of bfloat16.
_PLUS = np.int32(0x43004300)
#: Columns of a warp, and rows of a step.
TILE, STEP = 32, 32


def gptq(
    name: str, kind: Any, scale: Any, across: int, down: int, cluster: int, stages: int,
    resident: int,
) -> Kernel:  # fmt: skip
    """A lane has four columns of eight rows of each step.

    A block has `across` warps for neighbouring columns, and `down` of these that share K.
    """
    threads = 32 * across * down
    tile_size = TILE * across
    ending = finish(tile_size, down, threads, cluster)
    queue, before, ring = stages * threads * 4, stages - 2, np.int32(stages - 1)

    @device
    def early2(x: Any, first: Any, i: Any, rest: Any) -> Any:
        """The two rows of pair i of a share of x."""
        row = np.int32(8) * (i >> np.int32(2)) + (i & np.int32(3))
        if i < rest:
            return x[first + np.int64(row)], x[first + np.int64(row) + 4]
        return _ZERO, _ZERO

    @device
    def keep(memory: Any, i: Any, rest: Any, a: Any, b: Any) -> None:
        """The planes of x: of a step, for each and one of zeros, four words of eight rows."""
        if i < rest:
            h0, m0, r0 = split(a)
            h1, m1, r1 = split(b)
            row = i >> np.int32(2)
            to = (row >> np.int32(2)) * np.int32(64) + (row & np.int32(3)) * np.int32(4)
            to = np.int32(to + (i & np.int32(3)))
            store_past(memory, to, queue, joined(h0, h1))
            store_past(memory, to, queue + 16, joined(m0, m1))
            store_past(memory, to, queue + 32, joined(r0, r1))
            store_past(memory, to, queue + 48, np.int32(0))

    @device
    def less(word: Any, zero: Any) -> Any:
        a, b, c, d = nibbles_bf16(word, _PLUS)
        return add_bf16(a, zero), add_bf16(b, zero), add_bf16(c, zero), add_bf16(d, zero)

    @device
    def zero_of(word: Any, column: Any) -> Any:
        """-(128 + z), twice, of a column: its zero is stored less one."""
        z = ((word >> (np.int32(4) * (column & np.int32(7)))) & np.int32(15)) + np.int32(0xC301)
        return twice(z << np.int32(16))

    @device
    def multiply(acc: Any, at: Any, p: Any, r: Any, b0: Any, b1: Any, b2: Any, b3: Any) -> None:
        acc[at], acc[at + 1], acc[at + 2], acc[at + 3] = mma_bf16(
            p[0], r[0], p[1], r[1], b0, b1, acc[at], acc[at + 1], acc[at + 2], acc[at + 3]
        )
        acc[at], acc[at + 1], acc[at + 2], acc[at + 3] = mma_bf16(
            p[2], r[2], p[3], r[3], b2, b3, acc[at], acc[at + 1], acc[at + 2], acc[at + 3]
        )

    @kernel(
        name, pointer(F32), pointer(I32), pointer(I32), pointer(kind), pointer(F32),
        I32, I32, I32, I32, bounds=(threads, resident), least=(9, 0) if cluster > 1 else (8, 0),
        shared=4 * tile_size, cluster=cluster,
    )  # fmt: skip
    def run(
        x: Any, q: Any, zeros: Any, scales: Any, out: Any,
        columns: Any, size: Any, inner: Any, parts: Any,
    ) -> None:  # fmt: skip
        """Block (tile · parts + part): columns `tile_size` tile on, a share of K."""
        memory = cuda.shared.array(0, I32, 16)
        got = cuda.shared.array(tile_size, I32)
        if cluster > 1:
            cluster_arrive()  # nobody writes to a block before it has started
        t = np.int32(cuda.threadIdx.x)
        lane, warp = t & np.int32(31), t >> np.int32(5)
        g, tq = lane >> np.int32(2), lane & np.int32(3)
        part = np.int32(cuda.blockIdx.x) % parts
        tile = np.int32(cuda.blockIdx.x) // parts
        place, below = warp % np.int32(across), warp // np.int32(across)
        steps = inner // np.int32(STEP)
        units = parts * np.int32(down)
        unit = part * np.int32(down)
        base = np.int32(np.int64(unit) * steps // units)
        first = np.int32(np.int64(unit + below) * steps // units)
        last = np.int32(np.int64(unit + below + np.int32(1)) * steps // units)
        end = np.int32(np.int64(unit + np.int32(down)) * steps // units)
        local = np.int32(TILE) * place + np.int32(4) * g
        column = min(tile * np.int32(tile_size) + local, columns - np.int32(4))
        # eight lanes copy 128 bytes of a row; what lane 4 g + tq needs lies where no two of eight
        # that read, or write, meet in a bank
        gc, tc = lane & np.int32(7), lane >> np.int32(3)
        mine = np.int32(512) * warp + np.int32(128) * tc
        mine = np.int32(mine + np.int32(16) * (gc ^ (np.int32(2) * tc)))
        near_q = np.int32(128) * warp + np.int32(32) * tq
        near_q = np.int32(near_q + np.int32(4) * (g ^ (np.int32(2) * tq)))
        apart = np.int64(16) * columns  # four rows of words, in bytes
        copied = tile * np.int32(tile_size) + np.int32(TILE) * place + np.int32(4) * gc
        copied = min(copied, columns - np.int32(4))
        at = (np.int64(first * np.int32(4) + tc) * columns + copied) * 4
        # what is needed first is asked for first: the weights that follow take their time; zeros
        # and scales are asked for two groups ahead, as a group may be four steps
        words = np.int64(columns >> np.int32(3))
        word = np.int64(column >> np.int32(3))
        group = np.int32(first * np.int32(STEP) // size)
        most = inner // size - np.int32(1)
        known = np.int64(min(group, most))
        z, f = zeros[known * words + word], load4(scales, known * columns + column)
        known = np.int64(min(group + np.int32(1), most))
        z_next, f_next = zeros[known * words + word], load4(scales, known * columns + column)
        rest = np.int32((end - base) * np.int32(16))
        of_x = np.int64(base) * STEP
        late = np.int32(t + np.int32(threads))
        e0, e1 = early2(x, of_x, t, rest)
        e2, e3 = early2(x, of_x, late, rest)
        for s in range(stages - 1):
            if first + np.int32(s) < last:
                to = mine + ((first + np.int32(s)) & ring) * np.int32(threads * 16)
                copy_async_bytes(memory, to, q, at)
            copy_commit()
            at += apart
        keep(memory, t, rest, e0, e1)
        keep(memory, late, rest, e2, e3)
        i: Any = np.int32(t + np.int32(2 * threads))
        while i < rest:
            e0, e1 = early2(x, of_x, i, rest)
            keep(memory, i, rest, e0, e1)
            i = np.int32(i + np.int32(threads))
        if cluster > 1:
            cluster_wait()
        cuda.syncthreads()
        near = np.int32(queue) + np.int32(16) * min(g, np.int32(3)) + np.int32(4) * tq
        acc = cuda.local.array(8, F32)
        t0, t1, t2, t3 = _ZERO, _ZERO, _ZERO, _ZERO
        step = np.int32(first)
        while step < last:
            until = np.int32(min((group + np.int32(1)) * size // np.int32(STEP), last))
            n0, n1 = zero_of(z, column), zero_of(z, column + np.int32(1))
            n2, n3 = zero_of(z, column + np.int32(2)), zero_of(z, column + np.int32(3))
            group = np.int32(group + np.int32(1))
            known = np.int64(min(group + np.int32(1), most))
            s0, s1, s2, s3 = f
            z, f = z_next, f_next
            z_next, f_next = zeros[known * words + word], load4(scales, known * columns + column)
            for i in range(8):
                acc[i] = _ZERO
            while step < until:
                copy_wait(before)
                cuda.syncwarp()
                here = near_q + (step & ring) * np.int32(threads * 4)
                q0, q1, q2, q3 = load4(memory, np.int64(here))
                b0, b1, b2, b3 = load4(memory, np.int64(near + (step - base) * np.int32(64)))
                coming = np.int32(step + ring)
                if coming < last:
                    to = mine + (coming & ring) * np.int32(threads * 16)
                    copy_async_bytes(memory, to, q, at)
                copy_commit()
                at += apart
                multiply(acc, 0, less(q0, n0), less(q1, n1), b0, b1, b2, b3)
                multiply(acc, 4, less(q2, n2), less(q3, n3), b0, b1, b2, b3)
                step = np.int32(step + np.int32(1))
            t0 += (acc[0] + acc[1]) * scale(s0)
            t1 += (acc[2] + acc[3]) * scale(s1)
            t2 += (acc[4] + acc[5]) * scale(s2)
            t3 += (acc[6] + acc[7]) * scale(s3)
        t0, t1 = t0 + shuffle_xor(t0, 1), t1 + shuffle_xor(t1, 1)
        t2, t3 = t2 + shuffle_xor(t2, 1), t3 + shuffle_xor(t3, 1)
        copy_wait(0)
        cuda.syncthreads()  # the queue becomes the sums of the warps
        sums = cuda.shared.array(0, F32, 16)
        if tq == np.int32(0):
            store4(sums, np.int64(below * np.int32(tile_size) + local), t0, t1, t2, t3)
        ending(sums, got, out, tile, columns, part, t)

    return run


def shared(threads: int, stages: int, steps: int, down: int) -> int:
    """The bytes of shared memory that a launch adds, with so many steps of K a block."""
    return stages * threads * 16 + (steps + down) * 256

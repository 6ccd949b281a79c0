"""AWQ's int4 weights times a vector on tensor cores; compute capability 8.0 on.

x is three bfloat16 planes (`planes`), a weight is its code less its zero point, exact in bfloat16,
so that infinity meets what the reference multiplies it with. The two halves of a word, shifted, are
two neighbours of the same row, and a tile's 16 inner places are 8 rows of two neighbours. So the
columns of B are plane and neighbour, with zeros at the places of the other neighbour: six of eight
are used, and no bit is moved from word to word.

A warp shares K with the others of its block, and a block with the other parts of its columns: a
cluster of blocks, whose sums go from block to block, and whole clusters that write their sums for
another kernel to add. What a warp multiplies it has copied itself to shared memory, some steps
ahead (cp.async), eight neighbouring lanes 128 bytes of a row: 32 bytes each of four rows halved the
speed.
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
    load2,
    load4,
    mma_bf16,
    nibbles_bf16,
    shuffle_xor,
    store4,
    store_past,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer
from llcuda_kernels.cuda.weights.planes import early, finish, split, twice

_ZERO = np.float32(0.0)
#: Above a nibble: 128 + q, and -(128 + z), as pairs of bfloat16.
_PLUS, _MINUS = np.int32(0x43004300), np.int32(-0x3CFF3D00)  # 0xC300C300
_LOW, _HIGH = np.int32(0xFFFF), np.int32(-65536)
#: Columns of a warp, and rows of a step.
TILE, STEP = 256, 8


def awq(
    name: str, kind: Any, scale: Any, across: int, down: int, cluster: int, stages: int,
    resident: int,
) -> Kernel:  # fmt: skip
    """A lane has four words of rows t and t + 4 of each step: 32 columns, all summed in registers.

    A block has `across` warps for neighbouring columns, and `down` of these that share K.

    stages: steps that are under way or used, a power of two. resident: blocks a multiprocessor, at
    least.
    """
    threads = 32 * across * down
    tile_size = TILE * across
    ending = finish(tile_size, down, threads, cluster)
    queue, before, ring = stages * threads * 8, stages - 2, np.int32(stages - 1)

    @device
    def keep(memory: Any, i: Any, rest: Any, value: Any) -> None:
        """The planes of x, of a step 3 of 8 rows, t and t + 4 beside each other, each twice."""
        if i < rest:
            h, m, r = split(value)
            to = np.int32(
                (i >> np.int32(3)) * np.int32(24) + np.int32(2) * (i & np.int32(3))
                + ((i >> np.int32(2)) & np.int32(1))
            )  # fmt: skip
            store_past(memory, to, queue, twice(h))
            store_past(memory, to, queue + 8, twice(m))
            store_past(memory, to, queue + 16, twice(r))

    @device
    def less(word: Any, zero: Any) -> Any:
        a, b, c, d = nibbles_bf16(word, _PLUS)
        return (
            add_bf16(a, zero[0]), add_bf16(b, zero[1]), add_bf16(c, zero[2]), add_bf16(d, zero[3])
        )  # fmt: skip

    @device
    def multiply(acc: Any, at: Any, p: Any, r: Any, b0: Any, b1: Any) -> None:
        """A word of each of two rows: two tiles, of eight columns."""
        acc[at], acc[at + 1], acc[at + 2], acc[at + 3] = mma_bf16(
            p[0], p[1], r[0], r[1], b0, b1, acc[at], acc[at + 1], acc[at + 2], acc[at + 3]
        )
        acc[at + 4], acc[at + 5], acc[at + 6], acc[at + 7] = mma_bf16(
            p[2], p[3], r[2], r[3], b0, b1, acc[at + 4], acc[at + 5], acc[at + 6], acc[at + 7]
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
        words = columns >> np.int32(3)
        steps = inner // np.int32(STEP)
        place, below = warp % np.int32(across), warp // np.int32(across)
        units, unit = parts * np.int32(down), part * np.int32(down)
        base = np.int32(np.int64(unit) * steps // units)
        first = np.int32(np.int64(unit + below) * steps // units)
        last = np.int32(np.int64(unit + below + np.int32(1)) * steps // units)
        end = np.int32(np.int64(unit + np.int32(down)) * steps // units)
        left = np.int32((tile * np.int32(across) + place) * np.int32(32))  # in words
        column = min(left + np.int32(4) * g, words - np.int32(4))  # the last tile may be narrow
        own = min(left + lane, words - np.int32(1))
        # eight lanes copy 128 bytes of a row; what lane 4 g + tq needs lies where no two of eight
        # that read, or write, meet in a bank
        gc, tc = lane & np.int32(7), lane >> np.int32(3)
        mine = np.int32(512) * warp + np.int32(128) * tc
        mine = np.int32(mine + np.int32(16) * (gc ^ (np.int32(2) * tc)))
        near_q = np.int32(128) * warp + np.int32(32) * tq
        near_q = np.int32(near_q + np.int32(4) * (g ^ (np.int32(2) * tq)))
        apart = np.int64(16) * words  # four rows, in bytes
        copied = min(left + np.int32(4) * gc, words - np.int32(4))
        at = (np.int64(first * np.int32(STEP) + tc) * words + copied) * 4
        # what is needed first is asked for first: the weights that follow take their time
        group = np.int32(first * np.int32(STEP) // size)
        known = np.int64(min(group, inner // size - np.int32(1)))
        z0, z1, z2, z3 = load4(zeros, known * words + column)
        f0, f1, f2, f3 = load4(scales, known * columns + 8 * np.int64(own))
        f4, f5, f6, f7 = load4(scales, known * columns + 8 * np.int64(own) + 4)
        rest = np.int32((end - base) * np.int32(STEP))
        of_x = np.int64(base) * STEP
        e0, e1 = early(x, of_x, t, rest), early(x, of_x, t + np.int32(threads), rest)
        e2 = early(x, of_x, t + np.int32(2 * threads), rest)
        e3 = early(x, of_x, t + np.int32(3 * threads), rest)
        for s in range(stages - 1):
            if first + np.int32(s) < last:
                to: Any = mine + ((first + np.int32(s)) & ring) * np.int32(threads * 32)
                copy_async_bytes(memory, to, q, at)
                copy_async_bytes(memory, to + np.int32(threads * 16), q, at + apart)
            copy_commit()
            at += 2 * apart
        keep(memory, t, rest, e0)
        keep(memory, t + np.int32(threads), rest, e1)
        keep(memory, t + np.int32(2 * threads), rest, e2)
        keep(memory, t + np.int32(3 * threads), rest, e3)
        i: Any = np.int32(t + np.int32(4 * threads))
        while i < rest:
            keep(memory, i, rest, x[of_x + np.int64(i)])
            i = np.int32(i + np.int32(threads))
        if cluster > 1:
            cluster_wait()
        cuda.syncthreads()
        plane = min(g >> np.int32(1), np.int32(2))
        side = _HIGH if (g & np.int32(1)) == np.int32(1) else _LOW
        side = side if g < np.int32(6) else np.int32(0)
        near = np.int32(queue) + np.int32(8) * plane + np.int32(2) * tq
        acc = cuda.local.array(32, F32)
        total = cuda.local.array(8, F32)
        for i in range(8):
            total[i] = _ZERO
        step = np.int32(first)
        while step < last:
            until = np.int32(min((group + np.int32(1)) * size // np.int32(STEP), last))
            n0, n1 = nibbles_bf16(z0, _MINUS), nibbles_bf16(z1, _MINUS)
            n2, n3 = nibbles_bf16(z2, _MINUS), nibbles_bf16(z3, _MINUS)
            group = np.int32(group + np.int32(1))
            known = np.int64(min(group, inner // size - np.int32(1)))
            z0, z1, z2, z3 = load4(zeros, known * words + column)  # of the next group
            for i in range(32):
                acc[i] = _ZERO
            while step < until:
                copy_wait(before)
                cuda.syncwarp()
                here = near_q + (step & ring) * np.int32(threads * 8)
                u0, u1, u2, u3 = load4(memory, np.int64(here))
                v0, v1, v2, v3 = load4(memory, np.int64(here + np.int32(4 * threads)))
                b0, b1 = load2(memory, np.int64(near + (step - base) * np.int32(24)))
                coming = np.int32(step + ring)
                if coming < last:
                    to = mine + (coming & ring) * np.int32(threads * 32)
                    copy_async_bytes(memory, to, q, at)
                    copy_async_bytes(memory, to + np.int32(threads * 16), q, at + apart)
                copy_commit()
                at += 2 * apart
                b0, b1 = b0 & side, b1 & side
                multiply(acc, 0, less(u0, n0), less(v0, n0), b0, b1)
                multiply(acc, 8, less(u1, n1), less(v1, n1), b0, b1)
                multiply(acc, 16, less(u2, n2), less(v2, n2), b0, b1)
                multiply(acc, 24, less(u3, n3), less(v3, n3), b0, b1)
                step = np.int32(step + np.int32(1))
            # the planes lie in the lanes of a row of four: lane t gets the sums of word t
            lower, even = tq < np.int32(2), (tq & np.int32(1)) == np.int32(0)
            for i in range(16):
                a, b = acc[i], acc[16 + i]
                other = shuffle_xor(b if lower else a, 2)
                acc[i] = (a if lower else b) + other
            for i in range(8):
                a, b = acc[i], acc[8 + i]
                other = shuffle_xor(b if even else a, 1)
                acc[i] = (a if even else b) + other
            total[0] += acc[0] * scale(f0)
            total[1] += acc[1] * scale(f1)
            total[2] += acc[2] * scale(f2)
            total[3] += acc[3] * scale(f3)
            total[4] += acc[4] * scale(f4)
            total[5] += acc[5] * scale(f5)
            total[6] += acc[6] * scale(f6)
            total[7] += acc[7] * scale(f7)
            f0, f1, f2, f3 = load4(scales, known * columns + 8 * np.int64(own))
            f4, f5, f6, f7 = load4(scales, known * columns + 8 * np.int64(own) + 4)
        copy_wait(0)
        cuda.syncthreads()  # the queue becomes the sums of the warps
        sums = cuda.shared.array(0, F32, 16)
        to = np.int64(below * np.int32(tile_size) + place * np.int32(TILE) + np.int32(8) * lane)
        store4(sums, to, total[0], total[1], total[2], total[3])
        store4(sums, to + 4, total[4], total[5], total[6], total[7])
        ending(sums, got, out, tile, columns, part, t)

    return run


def shared(threads: int, stages: int, steps: int, down: int) -> int:
    """The bytes of shared memory that a launch adds, with so many steps of K a block."""
    return stages * threads * 32 + (steps + down) * 96

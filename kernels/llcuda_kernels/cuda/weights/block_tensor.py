"""GGUF blocks times a few columns on tensor cores; compute capability 8.0 on.

A warp has 16 rows of W, and takes 256 numbers of each at a time; a block's warps share its part of
K, and the columns' planes of bfloat16 (`planes`) of that part in shared memory. The codes are exact
in bfloat16, so a run of 32 (q6_k: 16) numbers is multiplied as it is (`block_codes`), and then
scaled. A block shares its rows with other parts of K: a cluster, and whole clusters whose sums
another kernel adds.

The bytes of a chunk are copied by the warp, some chunks ahead (cp.async). Scales are made by the
lane of their row and half chunk, and go to where they are needed from lane to lane.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.primitives.reductions import warp_sum
from llcuda_kernels.cuda.runtime.intrinsics import (
    bits_float,
    cluster_arrive,
    cluster_put,
    cluster_wait,
    copy_async_bytes,
    copy_commit,
    copy_wait,
    float_bits,
    load4,
    load_past,
    mma_bf16,
    multiply_add,
    shuffle,
    shuffle_xor,
    store_past,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer
from llcuda_kernels.cuda.weights.block_codes import Tensor
from llcuda_kernels.cuda.weights.planes import joined, split

WARPS, ROWS, CHUNK = 8, 16, 256
THREADS = 32 * WARPS
_ZERO = np.float32(0.0)


def shared_words(form: Tensor, columns: int, stages: int, chunks: int) -> int:
    """What a block takes of shared memory, in words, with so many chunks a part."""
    planes = chunks * 8 * 3 * columns * 16
    sums = chunks * 8 * columns if form.least else 0
    return WARPS * stages * ROWS * form.stride + planes + sums


def times(
    name: str, form: Tensor, columns: int, tall: int, cluster: int, stages: int, resident: int
) -> Kernel:
    """The kernel of a format, for up to `columns` columns.

    A block has `tall` times 16 rows; its other warps take neighbouring chunks of these.
    """
    size, pieces, stride, codes, scales, runs, least, sixteen = form
    planes = 3 * columns
    tiles = -(-planes // 8)
    held = 4 * tiles
    before, ahead = stages - 2, stages - 1
    at_once = 32 // pieces
    rounds = -(-ROWS // at_once)
    mine_words = stages * ROWS * stride
    block_rows, beside = ROWS * tall, WARPS // tall
    own, exchanged = block_rows // cluster, columns * block_rows
    queue = WARPS * mine_words
    whole = size % 16 == 0
    row_words = 8 * tiles + 1

    @device
    def fetch(memory: Any, w: Any, at: Any, apart: Any, to: Any, lane: Any, most: Any) -> None:
        """Start bringing a chunk of each of the warp's rows, some rows at once."""
        for i in range(rounds):
            if lane < np.int32(min(at_once, ROWS - at_once * i) * pieces):
                # a row beyond the last gets what is there, and its sums are not written
                copy_async_bytes(
                    memory, np.int32(to + np.int32(4 * stride * at_once * i)), w,
                    min(at & np.int64(-16), most),
                )  # fmt: skip
            at += apart

    @device
    def run32(
        memory: Any, total: Any, places: Any, near: Any, p: Any, r: Any, s0: Any, s1: Any,
        u0: Any, u1: Any,
    ) -> None:  # fmt: skip
        """32 numbers of rows g (p) and g + 8 (r); s0, s1: their scales, u0, u1: the last 16's."""
        for m in range(tiles):
            b0, b1, b2, b3 = load4(memory, np.int64(np.int32(places[m] + near)))
            c0, c1, c2, c3 = mma_bf16(p[0], r[0], p[1], r[1], b0, b1, _ZERO, _ZERO, _ZERO, _ZERO)
            if sixteen:
                total[4 * m] = multiply_add(c0, s0, total[4 * m])
                total[4 * m + 1] = multiply_add(c1, s0, total[4 * m + 1])
                total[4 * m + 2] = multiply_add(c2, s1, total[4 * m + 2])
                total[4 * m + 3] = multiply_add(c3, s1, total[4 * m + 3])
                c0, c1, c2, c3 = _ZERO, _ZERO, _ZERO, _ZERO
            c0, c1, c2, c3 = mma_bf16(p[2], r[2], p[3], r[3], b2, b3, c0, c1, c2, c3)
            total[4 * m] = multiply_add(c0, u0, total[4 * m])
            total[4 * m + 1] = multiply_add(c1, u0, total[4 * m + 1])
            total[4 * m + 2] = multiply_add(c2, u1, total[4 * m + 2])
            total[4 * m + 3] = multiply_add(c3, u1, total[4 * m + 3])

    def step(number: int) -> Any:
        """The two runs of a reading of codes."""
        read = codes(number)
        first, second = runs[number]
        width = 8 if sixteen else 4  # scales of a lane
        half0, half1 = (
            (2 if sixteen else 1) * first // width,
            (2 if sixteen else 1) * second // width,
        )
        i0, i1 = (2 if sixteen else 1) * first % width, (2 if sixteen else 1) * second % width

        @device
        def scale_at(held: Any, g: Any, half: Any, i: Any) -> Any:
            value = held[i]
            source = np.int32(2) * g + np.int32(half)
            return shuffle(value, source), shuffle(value, source + np.int32(16))

        @device
        def run(
            memory: Any, total: Any, places: Any, near: Any, at_g: Any, at_h: Any, off_g: Any,
            off_h: Any, tq: Any, by: Any, g: Any,
        ) -> None:  # fmt: skip
            p, pp = read(memory, at_g, off_g, tq)
            r, rr = read(memory, at_h, off_h, tq)
            s0, s1 = scale_at(by, g, half0, i0)
            u0, u1 = s0, s1
            if sixteen:
                u0, u1 = scale_at(by, g, half0, i0 + 1)
            at = np.int32(near + np.int32(first * planes * 16))
            run32(memory, total, places, at, p, r, s0, s1, u0, u1)
            s0, s1 = scale_at(by, g, half1, i1)
            u0, u1 = s0, s1
            if sixteen:
                u0, u1 = scale_at(by, g, half1, i1 + 1)
            at = np.int32(near + np.int32(second * planes * 16))
            run32(memory, total, places, at, pp, rr, s0, s1, u0, u1)

        return run

    step0, step1, step2, step3 = step(0), step(1), step(2), step(3)

    @kernel(
        name, pointer(F32), pointer(I32), pointer(F32), I32, I32, I32, I32,
        bounds=(THREADS, resident), least=(9, 0) if cluster > 1 else (8, 0),
        shared=4 * columns * block_rows, cluster=cluster,
    )  # fmt: skip
    def run(
        x: Any, w: Any, out: Any, rows: Any, chunks: Any, parts: Any, last_column: Any
    ) -> None:  # fmt: skip
        """Block (tile of rows · parts + part). x: (columns, 256 chunks), column c read at
        min(c, last); out: (columns, rows), of which columns 0 to last are written."""
        i: Any
        c: Any
        memory = cuda.shared.array(0, I32, 16)
        got = cuda.shared.array(exchanged, I32)
        if cluster > 1:
            cluster_arrive()  # nobody writes to a block before it has started
        t = np.int32(cuda.threadIdx.x)
        lane, warp = t & np.int32(31), t >> np.int32(5)
        g, tq = lane >> np.int32(2), lane & np.int32(3)
        part = np.int32(np.int32(cuda.blockIdx.x) % parts)
        rank = np.int32(part % np.int32(cluster))
        segment = np.int64(part // np.int32(cluster)) * (last_column + 1)
        n0 = np.int32((np.int32(cuda.blockIdx.x) // parts) * np.int32(block_rows))
        first = np.int32(np.int64(part) * chunks // parts)
        last = np.int32(np.int64(part + np.int32(1)) * chunks // parts)
        of_row = np.int32(n0 + warp % np.int32(tall) * np.int32(ROWS))
        mine_first = np.int32(first + warp // np.int32(tall))
        length = np.int64(chunks) * size
        most = np.int64(rows) * length - 16
        start = np.int64(of_row + lane // np.int32(pieces)) * length
        start += 16 * np.int64(lane % np.int32(pieces)) + np.int64(mine_first) * size
        apart = np.int64(at_once) * length
        mine = np.int32(warp * np.int32(mine_words))
        near_w = lane // np.int32(pieces) * np.int32(4 * stride) + np.int32(16) * (
            lane % np.int32(pieces)
        )
        near_w = np.int32(np.int32(4) * mine + near_w)
        for s in range(ahead):
            if mine_first + np.int32(s * beside) < last:
                to = np.int32(near_w + np.int32(4 * s * ROWS * stride))
                fetch(memory, w, start, apart, to, lane, most)
            start += np.int64(size * beside)
            copy_commit()
        # the planes of the part's x: of a run, for each plane, lanes t of four words
        inner = np.int64(chunks) * CHUNK
        begin = np.int64(first) * CHUNK
        count = np.int32(last - first) * np.int32(128)
        for c in range(columns):
            of_x = np.int64(min(np.int32(c), last_column)) * inner + begin
            pair = np.int32(t)
            while pair < count:
                j, lt = pair & np.int32(3), (pair >> np.int32(2)) & np.int32(3)
                of = pair >> np.int32(4)
                k = of_x + np.int64(
                    np.int32(32) * of + np.int32(4) * lt + (j & np.int32(1))
                    + np.int32(16) * (j >> np.int32(1))
                )  # fmt: skip
                h0, m0, r0 = split(x[k])
                h1, m1, r1 = split(x[k + 2])
                to = (of * np.int32(planes) + np.int32(3 * c)) * np.int32(16)
                to = np.int32(to + np.int32(4) * lt + j)
                store_past(memory, to, queue, joined(h0, h1))
                store_past(memory, to, queue + 16, joined(m0, m1))
                store_past(memory, to, queue + 32, joined(r0, r1))
                pair = np.int32(pair + np.int32(THREADS))
        run0 = np.int32(queue) + np.int32(last - first) * np.int32(8 * planes * 16)
        if least:
            # the sums of x over each run, of each column, as bits
            for i in range(warp, np.int32(last - first) * np.int32(8 * columns), WARPS):
                c = np.int32(np.int32(i) % np.int32(columns))
                k = np.int64(min(c, last_column)) * inner + begin
                y = warp_sum(
                    x[k + np.int64(np.int32(32) * (np.int32(i) // np.int32(columns)) + lane)]
                )
                if lane == np.int32(0):
                    memory[run0 + i] = float_bits(y)
        if cluster > 1:
            cluster_wait()
        cuda.syncthreads()
        total = cuda.local.array(held, F32)
        taken = cuda.local.array(columns, F32)
        by = cuda.local.array(8, F32)
        places = cuda.local.array(tiles, I32)
        for i in range(tiles):
            v = min(np.int32(8 * i) + g, np.int32(planes - 1))
            places[i] = np.int32(np.int32(queue) + np.int32(4) * tq + np.int32(16) * v)
        for i in range(held):
            total[i] = _ZERO
        for c in range(columns):
            taken[c] = _ZERO
        row, half = lane >> np.int32(1), lane & np.int32(1)
        start_g = np.int64(min(of_row + g, rows - np.int32(1))) * length
        start_h = np.int64(min(of_row + g + np.int32(8), rows - np.int32(1))) * length
        start_r = np.int64(min(of_row + row, rows - np.int32(1))) * length
        off_g, off_h, off_r = np.int32(0), np.int32(0), np.int32(0)
        chunk = np.int32(mine_first)
        slot = np.int32(0)
        while chunk < last:
            copy_wait(before)
            cuda.syncwarp()
            here = np.int32(mine + slot * np.int32(ROWS * stride))
            if not whole:
                off_g = np.int32((start_g + np.int64(chunk) * size) & np.int64(15))
                off_h = np.int32((start_h + np.int64(chunk) * size) & np.int64(15))
                off_r = np.int32((start_r + np.int64(chunk) * size) & np.int64(15))
            at_g = np.int32(here + g * np.int32(stride))
            at_h = np.int32(here + (g + np.int32(8)) * np.int32(stride))
            s, m = scales(memory, np.int32(here + row * np.int32(stride)), off_r, half)
            by[0], by[1], by[2], by[3] = s
            by[4], by[5], by[6], by[7] = m
            local = np.int32(chunk - first)
            if least:
                for c in range(columns):
                    at = np.int32(
                        run0 + (local * np.int32(8) + np.int32(4) * half) * np.int32(columns)
                    )
                    y = taken[c]
                    y = multiply_add(m[0], bits_float(load_past(memory, at, c)), y)
                    y = multiply_add(m[1], bits_float(load_past(memory, at, columns + c)), y)
                    y = multiply_add(m[2], bits_float(load_past(memory, at, 2 * columns + c)), y)
                    taken[c] = multiply_add(
                        m[3], bits_float(load_past(memory, at, 3 * columns + c)), y
                    )
            near = np.int32(local * np.int32(8 * planes * 16))
            step0(memory, total, places, near, at_g, at_h, off_g, off_h, tq, by, g)
            step1(memory, total, places, near, at_g, at_h, off_g, off_h, tq, by, g)
            step2(memory, total, places, near, at_g, at_h, off_g, off_h, tq, by, g)
            step3(memory, total, places, near, at_g, at_h, off_g, off_h, tq, by, g)
            cuda.syncwarp()
            coming = np.int32(chunk + np.int32(ahead * beside))
            if coming < last:
                to = np.int32(slot - np.int32(1) if slot > np.int32(0) else np.int32(stages - 1))
                to = np.int32(near_w + to * np.int32(4 * ROWS * stride))
                fetch(memory, w, start, apart, to, lane, most)
            start += np.int64(size * beside)
            copy_commit()
            slot = np.int32(slot + np.int32(1) if slot < np.int32(stages - 1) else np.int32(0))
            chunk = np.int32(chunk + np.int32(beside))
        copy_wait(0)
        cuda.syncwarp()
        # the planes of a column lie in several lanes: through the warp's own shared memory
        at = np.int32(mine + g * np.int32(row_words) + np.int32(2) * tq)
        for i in range(tiles):
            for e in range(2):
                store_past(memory, at, 8 * i + e, float_bits(total[4 * i + e]))
                store_past(memory, at, 8 * (i + row_words) + e, float_bits(total[4 * i + 2 + e]))
        cuda.syncwarp()
        for c in range(columns):
            at = np.int32(mine + row * np.int32(row_words))
            y = bits_float(load_past(memory, at, 3 * c))
            y += bits_float(load_past(memory, at, 3 * c + 1))
            y += bits_float(load_past(memory, at, 3 * c + 2))
            if least:
                y -= taken[c] + shuffle_xor(taken[c], 1)
            taken[c] = y
        cuda.syncthreads()  # the queue becomes the sums of the warps
        at = np.int32(warp // np.int32(tall) * np.int32(exchanged))
        at = np.int32(at + warp % np.int32(tall) * np.int32(ROWS) + row)
        for c in range(columns):
            if half == np.int32(c & 1):
                store_past(memory, at, c * block_rows, float_bits(taken[c]))
        cuda.syncthreads()
        i = np.int32(t)
        while i < np.int32((last_column + np.int32(1)) * np.int32(block_rows)):
            y = _ZERO
            for b in range(beside):
                y += bits_float(load_past(memory, i, b * exchanged))
            c, of = np.int32(i // np.int32(block_rows)), np.int32(i % np.int32(block_rows))
            if cluster > 1:
                to = (c * np.int32(cluster) + rank) * np.int32(own) + of % np.int32(own)
                cluster_put(got, np.int64(to), float_bits(y), np.int32(of // np.int32(own)))
            elif n0 + of < rows:
                out[(segment + np.int64(c)) * rows + np.int64(n0 + of)] = y
            i = np.int32(i + np.int32(THREADS))
        if cluster > 1:
            cluster_arrive()
            cluster_wait()
            i = np.int32(t)
            while i < np.int32((last_column + np.int32(1)) * np.int32(own)):
                c, of = i // np.int32(own), i % np.int32(own)
                n = n0 + rank * np.int32(own) + of
                if n < rows:
                    y = _ZERO
                    at = np.int32(c * np.int32(cluster * own) + of)
                    for q in range(cluster):
                        y += bits_float(load_past(got, at, q * own))
                    out[(segment + np.int64(c)) * rows + np.int64(n)] = y
                i = np.int32(i + np.int32(THREADS))

    return run

"""Products of 1 to 64 rows with a layer's weights on tensor cores; compute capability 8.0 on.

C = A Bᵀ, both stored by rows along k: bfloat16 into float32, int8 into int32. What takes time is
reading B, so A is padded to 16, 32 or 64 rows in shared memory, and a block has 128 rows of B (a
warp 16) and a part of k. 128 bytes of each row are a step; all steps of a block but one are on
their way (cp.async) while one is multiplied. A row takes 144 bytes in shared memory: eight rows 144
bytes apart lie in different banks.

Rows are whole pieces of 16 bytes; what lies beyond the edges is zeros, which are not read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.array import DeviceArray, empty
from llcuda_kernels.cuda.runtime.intrinsics import (
    copy_async16_if,
    copy_commit,
    copy_wait,
    lane,
    load_matrix4,
    mma_bf16,
    mma_int8,
    shared_address,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer

from .few_rows import add_parts, parts_for

#: The most rows that these take, and for which they are about as fast as cuBLAS, or faster.
MOST, FASTER = 64, 32
COLUMNS, THREADS = 128, 256
#: Words of a row in a step, and what a row takes in shared memory, in bytes.
DEPTH, STRIDE = 32, 144


@device
def _fetch(memory: Any, to: Any, row: Any, rows: Any, words: Any, word: Any, end: Any) -> None:
    """Start bringing 16 bytes of a row."""
    inside = row < rows and word < end
    at = np.int64(row) * words + word if inside else np.int64(0)
    copy_async16_if(to, memory, at, np.int32(16) if inside else np.int32(0))


def _make(name: str, tiles: int, stages: int, mma: Any, kind: Any, zero: Any) -> Kernel:
    rows = 16 * tiles
    stage = (rows + COLUMNS) * STRIDE
    count, before = 8 * tiles, stages - 2
    rounds = (rows * 8 + THREADS - 1) // THREADS

    @device
    def fetch(
        a: Any,
        b: Any,
        to: Any,
        m: Any,
        n: Any,
        column0: Any,
        words: Any,
        word: Any,
        end: Any,
        t: Any,
    ) -> None:
        """Start bringing one step: a thread four pieces of B, and what it has of A."""
        own, piece = t >> np.int32(3), t & np.int32(7)
        near = to + own * np.int32(STRIDE) + np.int32(16) * piece
        here = word + np.int32(4) * piece
        for i in range(4):
            row = column0 + own + np.int32(32 * i)
            _fetch(b, near + np.int32((rows + 32 * i) * STRIDE), row, n, words, here, end)
        for i in range(rounds):
            row = own + np.int32(32 * i)
            if row < rows:
                _fetch(a, near + np.int32(32 * i * STRIDE), row, m, words, here, end)

    @device
    def keep2(
        out: Any, row: Any, at: Any, m: Any, n: Any, part: Any, left: Any, right: Any
    ) -> None:
        if row < m:
            to = (np.int64(part) * m + row) * n + at
            if at < n:
                out[to] = left
            if at + 1 < n:
                out[to + 1] = right

    @kernel(
        name, pointer(I32), pointer(I32), pointer(kind), I32, I32, I32, I32,
        bounds=(THREADS, 2), least=(8, 0), twin=False,
    )  # fmt: skip
    def run(a: Any, b: Any, out: Any, m: Any, n: Any, words: Any, share: Any) -> None:
        """Block (columns, part): A and B as words; share: steps a part."""
        memory = cuda.shared.array(0, I32, 16)
        base = shared_address(memory)
        t = np.int32(cuda.threadIdx.x)
        column0 = np.int32(cuda.blockIdx.x) * np.int32(COLUMNS)
        part = np.int32(cuda.blockIdx.y)
        first = part * share * np.int32(DEPTH)
        end = min(words, first + share * np.int32(DEPTH))
        steps = (end - first + np.int32(DEPTH - 1)) // np.int32(DEPTH)
        sums = cuda.local.array(count, kind)
        for i in range(count):
            sums[i] = zero
        for s in range(stages - 1):
            if s < steps:
                word = first + np.int32(s * DEPTH)
                fetch(a, b, base + np.int32(s * stage), m, n, column0, words, word, end, t)
            copy_commit()
        ln, warp = np.int32(lane()), t >> np.int32(5)
        which, inner = ln >> np.int32(3), ln & np.int32(7)
        from_a = np.int32(8) * (which & np.int32(1)) + inner
        from_a = from_a * np.int32(STRIDE) + np.int32(16) * (which >> np.int32(1))
        from_b = np.int32(16) * warp + np.int32(8) * (which >> np.int32(1)) + inner
        from_b = (from_b + np.int32(rows)) * np.int32(STRIDE)
        from_b += np.int32(16) * (which & np.int32(1))
        now, later = np.int32(0), np.int32(stages - 1)
        for step in range(steps):
            copy_wait(before)
            cuda.syncthreads()
            coming = np.int32(step) + np.int32(stages - 1)
            if coming < steps:
                word = first + coming * np.int32(DEPTH)
                to = base + later * np.int32(stage)
                fetch(a, b, to, m, n, column0, words, word, end, t)
            copy_commit()
            near = base + now * np.int32(stage)
            for quarter in range(4):
                pa = near + from_a + np.int32(32 * quarter)
                b0, b1, b2, b3 = load_matrix4(near + from_b + np.int32(32 * quarter))
                for i in range(tiles):
                    a0, a1, a2, a3 = load_matrix4(pa + np.int32(16 * STRIDE * i))
                    p = 8 * i
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, b0, b1, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = 8 * i + 4
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, b2, b3, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
            now = now + np.int32(1) if now < stages - 1 else np.int32(0)
            later = later + np.int32(1) if later < stages - 1 else np.int32(0)
        column = column0 + np.int32(16) * warp + np.int32(2) * (ln & np.int32(3))
        for i in range(tiles):
            row = np.int32(16 * i) + (ln >> np.int32(2))
            for j in range(2):
                s = 8 * i + 4 * j
                at = column + np.int32(8 * j)
                keep2(out, row, at, m, n, part, sums[s], sums[s + 1])
                keep2(out, row + np.int32(8), at, m, n, part, sums[s + 2], sums[s + 3])

    return run


#: By rows of A: the kernels, and the shared memory that they take. Three stages of 64 rows, and
#: four of fewer, fit two to a multiprocessor, and 99 KB a block.
_STAGES = {16: 4, 32: 4, 64: 3}
SHARED = {rows: stages * (rows + COLUMNS) * STRIDE for rows, stages in _STAGES.items()}
BF16 = {
    rows: _make(f"matmul_bf16_{rows}_rows", rows // 16, stages, mma_bf16, F32, np.float32(0.0))
    for rows, stages in _STAGES.items()
}
INT8 = {
    rows: _make(f"matmul_int8_{rows}_rows", rows // 16, stages, mma_int8, I32, np.int32(0))
    for rows, stages in _STAGES.items()
}


def launch(
    made: dict[int, Kernel], x: DeviceArray, y: DeviceArray, to: DeviceArray, parts: int = 0
) -> None:
    """C = A Bᵀ of words, none of them empty, at most 64 rows of A. parts: 0 to choose."""
    (m, words), n = x.shape, y.shape[0]
    rows = 16 if m <= 16 else 32 if m <= 32 else 64
    blocks, steps = divide_up(n, COLUMNS), divide_up(words, DEPTH)
    parts = parts or parts_for(blocks, steps, 1)  # two a multiprocessor were slower
    share = divide_up(steps, parts)
    parts = divide_up(steps, share)
    where = to if parts == 1 else empty((parts, m, n), to.dtype)
    made[rows].launch(
        (blocks, parts), THREADS, x.address, y.address, where.address, m, n, words, share,
        shared=SHARED[rows],
    )  # fmt: skip
    if parts > 1:
        add_parts(where, to, parts)

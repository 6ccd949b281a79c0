"""Products of 1 to 64 rows with a layer's weights on the tensor cores of compute capability 9.0.

C = A Bᵀ, both stored by rows along k: bfloat16 into float32, int8 into int32. What takes time is
reading B, so it takes the part of wgmma's first operand: Cᵀ = B Aᵀ, 64 rows of B a group of four
warps, and 16, 32 or 64 rows of A. The tensor cores fetch both from shared memory by themselves, so
that the warps do little but start copies (cp.async), of which all steps of a block but two are on
their way. A block has a part of k; `few_rows.add_parts` adds what they found.
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
    shared_address,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer

from .few_rows import add_parts, parts_for
from .warpgroup import add_products_bf16, add_products_int8, shared_ready, wait, wait_all

#: Of B a block has so many rows, with one group of four warps; so many blocks run at once.
COLUMNS, THREADS, RESIDENT = 64, 128, 2
#: Words of a row in a step, and its bytes.
DEPTH, STRIDE = 32, 128
#: Rows from one piece of a thread to its next.
_APART = THREADS // 8


def _make(name: str, rows: int, stages: int, add_products: Any, kind: Any, zero: Any) -> Kernel:
    stage = (rows + COLUMNS) * STRIDE
    rounds, count, ahead = rows // _APART, rows // 2, stages - 2
    pending = ahead - 1

    @device
    def fetch(
        a: Any, b: Any, to: Any, own: Any, p0: Any, p1: Any, p2: Any, p3: Any, q0: Any, far: Any,
        m: Any, word: Any, end: Any,
    ) -> None:  # fmt: skip
        """Start bringing one step: a thread four pieces of B, and what it has of A."""
        size = np.int32(16) if word < end else np.int32(0)
        at = np.int64(word if word < end else np.int32(0))
        copy_async16_if(to, b, p0 + at, size)
        copy_async16_if(to + np.int32(_APART * STRIDE), b, p1 + at, size)
        copy_async16_if(to + np.int32(2 * _APART * STRIDE), b, p2 + at, size)
        copy_async16_if(to + np.int32(3 * _APART * STRIDE), b, p3 + at, size)
        near = np.int32(to + np.int32(COLUMNS * STRIDE))
        for i in range(rounds):
            # rows beyond the last are the first once more
            more = np.int64(i) * far if own + np.int32(i * _APART) < m else np.int64(0)
            copy_async16_if(near + np.int32(i * _APART * STRIDE), a, q0 + more + at, size)

    @device
    def keep(out: Any, row: Any, at: Any, m: Any, n: Any, part: Any, value: Any) -> None:
        if row < m and at < n:
            out[(np.int64(part) * m + row) * n + at] = value

    @kernel(
        name, pointer(I32), pointer(I32), pointer(kind), I32, I32, I32, I32,
        bounds=(THREADS, RESIDENT), least=(9, 0), twin=False, exact=True,
    )  # fmt: skip
    def run(a: Any, b: Any, out: Any, m: Any, n: Any, words: Any, share: Any) -> None:
        """Block (columns, part): A and B as words; share: steps a part."""
        memory = cuda.shared.array(0, I32, 16)
        base = np.int32((shared_address(memory) + np.int32(1023)) & np.int32(-1024))
        t = np.int32(cuda.threadIdx.x)
        column0 = np.int32(cuda.blockIdx.x) * np.int32(COLUMNS)
        part = np.int32(cuda.blockIdx.y)
        first = np.int32(part * share * np.int32(DEPTH))
        end = np.int32(min(words, first + share * np.int32(DEPTH)))
        steps = np.int32((end - first + np.int32(DEPTH - 1)) // np.int32(DEPTH))
        sums = cuda.local.array(count, kind)
        for i in range(count):
            sums[i] = zero
        own, piece = np.int32(t >> np.int32(3)), np.int32(t & np.int32(7))
        to = np.int32(own * np.int32(STRIDE) + np.int32(16) * (piece ^ (own & np.int32(7))))
        to = np.int32(to + base)
        last = np.int32(n - np.int32(1))
        p0 = np.int64(min(column0 + own, last)) * words
        p1 = np.int64(min(column0 + own + np.int32(_APART), last)) * words
        p2 = np.int64(min(column0 + own + np.int32(2 * _APART), last)) * words
        p3 = np.int64(min(column0 + own + np.int32(3 * _APART), last)) * words
        q0 = np.int64(min(own, m - np.int32(1))) * words
        far = np.int64(_APART) * words
        word = np.int32(first + np.int32(4) * piece)
        for s in range(ahead):
            if s < steps:
                fetch(
                    a, b, to + np.int32(s * stage), own, p0, p1, p2, p3, q0, far, m, word, end,
                )  # fmt: skip
            word = np.int32(word + np.int32(DEPTH))
            copy_commit()
        from_b = np.int32(1 << 16)
        from_a = np.int32(COLUMNS * STRIDE // 16 + (1 << 16))
        now, later = np.int32(0), np.int32(ahead * stage)
        for step in range(steps):
            copy_wait(pending)
            shared_ready()
            cuda.syncthreads()
            near = np.int32(np.int32(base + now) >> np.int32(4))
            add_products(sums, np.int32(near + from_b), np.int32(near + from_a), count)
            if step + ahead < steps:
                fetch(a, b, to + later, own, p0, p1, p2, p3, q0, far, m, word, end)
            word = np.int32(word + np.int32(DEPTH))
            copy_commit()
            wait()
            now = np.int32(now + np.int32(stage))
            now = now if now < stages * stage else np.int32(0)
            later = np.int32(later + np.int32(stage))
            later = later if later < stages * stage else np.int32(0)
        wait_all(sums, count)
        at = column0 + np.int32(16) * (t >> np.int32(5))
        at += np.int32(lane()) >> np.int32(2)
        row = np.int32(2) * (np.int32(lane()) & np.int32(3))
        for j in range(rows // 8):
            r = row + np.int32(8 * j)
            keep(out, r, at, m, n, part, sums[4 * j])
            keep(out, r + np.int32(1), at, m, n, part, sums[4 * j + 1])
            keep(out, r, at + np.int32(8), m, n, part, sums[4 * j + 2])
            keep(out, r + np.int32(1), at + np.int32(8), m, n, part, sums[4 * j + 3])

    return run


#: By rows of A: the steps that have a place, and the shared memory that they take. So many fit two
#: blocks to a multiprocessor.
_STAGES = {16: 10, 32: 8, 64: 6}
SHARED = {rows: stages * (rows + COLUMNS) * STRIDE + 1024 for rows, stages in _STAGES.items()}
BF16 = {
    rows: _make(
        f"matmul_bf16_{rows}_rows_wgmma", rows, stages, add_products_bf16, F32, np.float32(0.0)
    )
    for rows, stages in _STAGES.items()
}
INT8 = {
    rows: _make(f"matmul_int8_{rows}_rows_wgmma", rows, stages, add_products_int8, I32, np.int32(0))
    for rows, stages in _STAGES.items()
}


def launch(
    made: dict[int, Kernel], x: DeviceArray, y: DeviceArray, to: DeviceArray, parts: int = 0
) -> None:
    """C = A Bᵀ of words, none of them empty, at most 64 rows of A. parts: 0 to choose."""
    (m, words), n = x.shape, y.shape[0]
    rows = 16 if m <= 16 else 32 if m <= 32 else 64
    blocks, steps = divide_up(n, COLUMNS), divide_up(words, DEPTH)
    parts = parts or parts_for(blocks, steps, RESIDENT)
    share = divide_up(steps, parts)
    parts = divide_up(steps, share)
    where = to if parts == 1 else empty((parts, m, n), to.dtype)
    made[rows].launch(
        (blocks, parts), THREADS, x.address, y.address, where.address, m, n, words, share,
        shared=SHARED[rows],
    )  # fmt: skip
    if parts > 1:
        add_parts(where, to, parts)

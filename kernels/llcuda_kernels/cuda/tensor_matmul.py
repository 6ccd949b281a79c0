"""Products on tensor cores: bfloat16 into float32, int8 into int32. From compute capability 8.0.

C = A Bᵀ, both stored by rows along k. A block computes 128x128, each of its four warps 64x64 out of
16x8 tiles. Rows are 64 bytes deep a step, whatever the numbers are: 32 bfloat16, or 64 int8. Four
steps are in shared memory at once, three of them still on their way (cp.async), so that the tensor
cores need not wait. A row takes 80 bytes there: eight rows 80 bytes apart lie in different banks.

::

    warp w: rows 64 (w % 2) .., columns 64 (w / 2) ..
    A: four matrices of 16x32 bytes, B: four of 16x32 bytes, each one ldmatrix

Sizes are whole tiles: what calls it pads with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .runtime.intrinsics import (
    copy_async16,
    copy_commit,
    copy_wait,
    lane,
    load_matrix4,
    mma_bf16,
    mma_int8,
    shared_address,
)
from .runtime.kernel import Kernel, divide_up, kernel
from .runtime.shim import F32, I32, cuda, device, pointer

SIDE, THREADS, STAGES = 128, 128, 4
#: Words of a row in a step, and what a row takes in shared memory, in bytes.
DEPTH, STRIDE = 16, 80
_STAGE = 2 * SIDE * STRIDE
SHARED = STAGES * _STAGE
#: Tiles computed one after the other lie in bands of so many tile rows: B is read less often.
_BAND = 8


@device
def _fetch(a: Any, b: Any, to: Any, row0: Any, column0: Any, words: Any, step: Any, t: Any) -> None:
    """Start bringing one step of A and of B: each thread eight times 16 bytes."""
    own, piece = t >> np.int32(2), t & np.int32(3)
    at = np.int64(step) * DEPTH + 4 * piece
    near = to + own * np.int32(STRIDE) + np.int32(16) * piece
    from_a, from_b = np.int64(row0 + own) * words + at, np.int64(column0 + own) * words + at
    far = np.int64(words) * 32
    other = near + np.int32(SIDE * STRIDE)
    copy_async16(near, a, from_a)
    copy_async16(near + np.int32(32 * STRIDE), a, from_a + far)
    copy_async16(near + np.int32(64 * STRIDE), a, from_a + 2 * far)
    copy_async16(near + np.int32(96 * STRIDE), a, from_a + 3 * far)
    copy_async16(other, b, from_b)
    copy_async16(other + np.int32(32 * STRIDE), b, from_b + far)
    copy_async16(other + np.int32(64 * STRIDE), b, from_b + 2 * far)
    copy_async16(other + np.int32(96 * STRIDE), b, from_b + 3 * far)


def _product(name: str, mma: Any, kind: Any, zero: Any) -> Kernel:
    @device
    def keep2(c: Any, row: Any, at: Any, m: Any, n: Any, left: Any, right: Any) -> None:
        if row < m:
            if at < n:
                c[np.int64(row) * n + at] = left
            if at + 1 < n:
                c[np.int64(row) * n + at + 1] = right

    @kernel(
        name, pointer(I32), pointer(I32), pointer(kind), I32, I32, I32, I32, I32,
        bounds=(THREADS, 2), least=(8, 0), twin=False,
    )  # fmt: skip
    def run(a: Any, b: Any, c: Any, m: Any, n: Any, words: Any, tiles_m: Any, tiles_n: Any) -> None:
        """A, B as words, rows padded to whole tiles; C is m by n."""
        memory = cuda.shared.array(0, I32, 16)
        base = shared_address(memory)
        t = np.int32(cuda.threadIdx.x)
        # which tile: down a band of rows, then on to the next column
        number = np.int32(cuda.blockIdx.x)
        band = number // (_BAND * tiles_n)
        rest = number - band * _BAND * tiles_n
        height = min(tiles_m - band * _BAND, np.int32(_BAND))
        row0 = np.int32(band * _BAND + rest % height) * np.int32(SIDE)
        column0 = np.int32(rest // height) * np.int32(SIDE)
        sums = cuda.local.array(128, kind)
        for i in range(128):
            sums[i] = zero
        steps = words // np.int32(DEPTH)
        for s in range(STAGES - 1):
            if s < steps:
                _fetch(a, b, base + np.int32(s * _STAGE), row0, column0, words, s, t)
            copy_commit()
        ln, warp = np.int32(lane()), t >> np.int32(5)
        which, inner = ln >> np.int32(3), ln & np.int32(7)
        from_a = np.int32(64) * (warp & np.int32(1)) + np.int32(8) * (which & np.int32(1)) + inner
        from_a = from_a * np.int32(STRIDE) + np.int32(16) * (which >> np.int32(1))
        from_b = np.int32(64) * (warp >> np.int32(1)) + np.int32(8) * (which >> np.int32(1)) + inner
        from_b = (from_b + np.int32(SIDE)) * np.int32(STRIDE)
        from_b += np.int32(16) * (which & np.int32(1))
        for step in range(steps):
            copy_wait(2)
            cuda.syncthreads()
            coming = np.int32(step) + np.int32(STAGES - 1)
            if coming < steps:
                to = base + (coming & np.int32(3)) * np.int32(_STAGE)
                _fetch(a, b, to, row0, column0, words, coming, t)
            copy_commit()
            near = base + (np.int32(step) & np.int32(3)) * np.int32(_STAGE)
            for half in range(2):
                pa = near + from_a + np.int32(32 * half)
                pb = near + from_b + np.int32(32 * half)
                b0, b1, b2, b3 = load_matrix4(pb)
                c0, c1, c2, c3 = load_matrix4(pb + np.int32(16 * STRIDE))
                d0, d1, d2, d3 = load_matrix4(pb + np.int32(32 * STRIDE))
                e0, e1, e2, e3 = load_matrix4(pb + np.int32(48 * STRIDE))
                for i in range(4):
                    a0, a1, a2, a3 = load_matrix4(pa + np.int32(16 * STRIDE * i))
                    s = 32 * i
                    # written out: indices must be known, so that the sums stay in registers
                    p = s + 0
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, b0, b1, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 4
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, b2, b3, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 8
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, c0, c1, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 12
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, c2, c3, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 16
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, d0, d1, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 20
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, d2, d3, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 24
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, e0, e1, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
                    p = s + 28
                    sums[p], sums[p + 1], sums[p + 2], sums[p + 3] = mma(
                        a0, a1, a2, a3, e2, e3, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]
                    )  # fmt: skip
        row = row0 + np.int32(64) * (warp & np.int32(1)) + (ln >> np.int32(2))
        column = column0 + np.int32(64) * (warp >> np.int32(1)) + np.int32(2) * (ln & np.int32(3))
        for i in range(4):
            r = row + np.int32(16 * i)
            for j in range(8):
                s = 32 * i + 4 * j
                at = column + np.int32(8 * j)
                keep2(c, r, at, m, n, sums[s], sums[s + 1])
                keep2(c, r + np.int32(8), at, m, n, sums[s + 2], sums[s + 3])

    return run


BF16 = _product("matmul_bf16_mma", mma_bf16, F32, np.float32(0.0))
INT8 = _product("matmul_int8_mma", mma_int8, I32, np.int32(0))


def launch(made: Kernel, a: Any, b: Any, c: Any, m: int, n: int, words: int) -> None:
    """Launch on addresses of padded A and B."""
    tiles_m, tiles_n = divide_up(m, SIDE), divide_up(n, SIDE)
    args = (a, b, c, m, n, words, tiles_m, tiles_n)
    made.launch(tiles_m * tiles_n, THREADS, *args, shared=SHARED)

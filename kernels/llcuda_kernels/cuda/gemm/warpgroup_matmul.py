"""Large products on the tensor cores of compute capability 9.0: bfloat16, and int8.

C = A Bᵀ, both stored by rows along k: bfloat16 into float32, int8 into int32. A block computes
192x256 with three groups of four warps, each 64x256 of sums in registers: what limits smaller tiles
is reading the second-level cache. 128 bytes of each row are a step; four steps have their place in
shared memory. While the tensor cores work on one and the next is queued, two are on their way
(cp.async).

Rows are whole pieces of 16 bytes; what lies beyond their end is zeros, which are not read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.array import DeviceArray
from llcuda_kernels.cuda.runtime.intrinsics import (
    copy_async16_if,
    copy_commit,
    copy_wait,
    lane,
    shared_address,
)
from llcuda_kernels.cuda.runtime.kernel import Kernel, divide_up, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, cuda, device, pointer

from .warpgroup import (
    add_products_bf16,
    add_products_int8,
    shared_ready,
    store2,
    wait,
    wait_all,
)

#: The compute capability that has these instructions; neither older nor newer ones do.
ONLY = (9, 0)
ROWS, COLUMNS, THREADS, STAGES = 192, 256, 384, 4
_AHEAD = STAGES - 2
_PENDING = _AHEAD - 1
#: Words of a row in a step, and its bytes.
DEPTH, STRIDE = 32, 128
_STAGE = (ROWS + COLUMNS) * STRIDE
#: The greatest part is what the steps take; they begin at a multiple of 1,024 bytes.
SHARED = STAGES * _STAGE + 1024
#: Rows from one piece of 16 bytes that a thread brings to its next, and how many it has of A and B.
_APART = THREADS // 8
_ROUNDS_A, _ROUNDS_B = ROWS // _APART, divide_up(COLUMNS, _APART)
_ROUNDS = _ROUNDS_A + _ROUNDS_B
#: Tiles computed one after the other lie in bands of so many tile rows: B is read less often.
_BAND = 8


def _make(name: str, add_products: Any, kind: Any, zero: Any) -> Kernel:
    @device
    def fetch(a: Any, b: Any, to: Any, own: Any, places: Any, word: Any, words: Any) -> None:
        """Start bringing one step: 16 bytes of each of a thread's rows of A and of B."""
        size = np.int32(16) if word < words else np.int32(0)
        at = np.int64(word if word < words else np.int32(0))
        for i in range(_ROUNDS_A):
            copy_async16_if(to + np.int32(i * _APART * STRIDE), a, places[i] + at, size)
        near = np.int32(to + np.int32(ROWS * STRIDE))
        for i in range(_ROUNDS_B):
            if own + np.int32(i * _APART) < COLUMNS:
                place = places[_ROUNDS_A + i]
                copy_async16_if(near + np.int32(i * _APART * STRIDE), b, place + at, size)

    @device
    def keep2(c: Any, row: Any, at: Any, m: Any, n: Any, left: Any, right: Any) -> None:
        if row < m:
            to = np.int64(row) * n + at
            if at + 1 < n and n & 1 == 0:
                store2(c, to, left, right)
            else:
                if at < n:
                    c[to] = left
                if at + 1 < n:
                    c[to + 1] = right

    @kernel(
        name, pointer(I32), pointer(I32), pointer(kind), I32, I32, I32, I32, I32,
        bounds=(THREADS, 1), least=ONLY, twin=False, exact=True,
    )  # fmt: skip
    def run(a: Any, b: Any, c: Any, m: Any, n: Any, words: Any, tiles_m: Any, tiles_n: Any) -> None:
        """A, B as words; C is m by n."""
        memory = cuda.shared.array(0, I32, 16)
        base = np.int32((shared_address(memory) + np.int32(1023)) & np.int32(-1024))
        t = np.int32(cuda.threadIdx.x)
        # which tile: down a band of rows, then on to the next column
        number = np.int32(cuda.blockIdx.x)
        band = number // (_BAND * tiles_n)
        rest = number - band * _BAND * tiles_n
        height = min(tiles_m - band * _BAND, np.int32(_BAND))
        row0 = np.int32(band * _BAND + rest % height) * np.int32(ROWS)
        column0 = np.int32(rest // height) * np.int32(COLUMNS)
        sums = cuda.local.array(128, kind)
        for i in range(128):
            sums[i] = zero
        steps = np.int32((words + np.int32(DEPTH - 1)) // np.int32(DEPTH))
        own, piece = np.int32(t >> np.int32(3)), np.int32(t & np.int32(7))
        to = np.int32(own * np.int32(STRIDE) + np.int32(16) * (piece ^ (own & np.int32(7))))
        to = np.int32(to + base)
        # rows beyond the last are the last once more
        places = cuda.local.array(_ROUNDS, I64)
        for i in range(_ROUNDS_A):
            row = min(np.int32(row0 + own + np.int32(i * _APART)), np.int32(m - np.int32(1)))
            places[i] = np.int64(row) * words
        for i in range(_ROUNDS_B):
            row = min(np.int32(column0 + own + np.int32(i * _APART)), np.int32(n - np.int32(1)))
            places[_ROUNDS_A + i] = np.int64(row) * words
        word = np.int32(4) * piece
        for s in range(_AHEAD):
            if s < steps:
                fetch(a, b, to + np.int32(s * _STAGE), own, places, word, words)
            word = np.int32(word + np.int32(DEPTH))
            copy_commit()
        group = np.int32(t >> np.int32(7))
        from_a = np.int32(group * np.int32(64 * STRIDE // 16) + np.int32(1 << 16))
        from_b = np.int32(ROWS * STRIDE // 16 + (1 << 16))
        for step in range(steps):
            copy_wait(_PENDING)
            shared_ready()
            cuda.syncthreads()
            now = np.int32((np.int32(step) & np.int32(STAGES - 1)) * np.int32(_STAGE))
            near = np.int32(np.int32(base + now) >> np.int32(4))
            add_products(sums, np.int32(near + from_a), np.int32(near + from_b), 128)
            coming = np.int32(np.int32(step) + np.int32(_AHEAD))
            if coming < steps:
                later = (coming & np.int32(STAGES - 1)) * np.int32(_STAGE)
                fetch(a, b, to + later, own, places, word, words)
            word = np.int32(word + np.int32(DEPTH))
            copy_commit()
            wait()
        wait_all(sums, 128)
        row = row0 + np.int32(64) * group + np.int32(16) * ((t >> np.int32(5)) & np.int32(3))
        row += np.int32(lane()) >> np.int32(2)
        column = column0 + np.int32(2) * (np.int32(lane()) & np.int32(3))
        for j in range(32):
            at = column + np.int32(8 * j)
            keep2(c, row, at, m, n, sums[4 * j], sums[4 * j + 1])
            keep2(c, row + np.int32(8), at, m, n, sums[4 * j + 2], sums[4 * j + 3])

    return run


BF16 = _make("matmul_bf16_wgmma", add_products_bf16, F32, np.float32(0.0))
INT8 = _make("matmul_int8_wgmma", add_products_int8, I32, np.int32(0))


def launch(made: Kernel, a: DeviceArray, b: DeviceArray, c: DeviceArray) -> None:
    """C = A Bᵀ of words, none of them empty."""
    (m, words), n = a.shape, b.shape[0]
    tiles_m, tiles_n = divide_up(m, ROWS), divide_up(n, COLUMNS)
    args = (a.address, b.address, c.address, m, n, words, tiles_m, tiles_n)
    made.launch(tiles_m * tiles_n, THREADS, *args, shared=SHARED)

"""Pairs of bytes, as of float16 numbers, through registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import load4, pick_bytes, store4
from llcuda_kernels.cuda.runtime.kernel import kernel
from llcuda_kernels.cuda.runtime.shim import I32, I64, cuda, pointer

THREADS = 256
_LOW, _HIGH = np.int32(0x6420), np.int32(0x7531)  # every second byte of two words
_FIRST, _LAST = np.int32(0x5140), np.int32(0x7362)  # bytes of two words in turn


@kernel("split_pairs", pointer(I32), pointer(I32), pointer(I32), I64, bounds=THREADS)
def split_pairs(data: Any, low: Any, high: Any, units: Any) -> None:
    """16 pairs a thread."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < units:
        a, b, c, d = load4(data, 8 * i)
        e, f, g, h = load4(data, 8 * i + 4)
        store4(
            low, 4 * i,
            pick_bytes(a, b, _LOW), pick_bytes(c, d, _LOW),
            pick_bytes(e, f, _LOW), pick_bytes(g, h, _LOW),
        )  # fmt: skip
        store4(
            high, 4 * i,
            pick_bytes(a, b, _HIGH), pick_bytes(c, d, _HIGH),
            pick_bytes(e, f, _HIGH), pick_bytes(g, h, _HIGH),
        )  # fmt: skip


@kernel("join_pairs", pointer(I32), pointer(I32), pointer(I32), I64, bounds=THREADS)
def join_pairs(low: Any, high: Any, out: Any, units: Any) -> None:
    """16 pairs a thread."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < units:
        a, b, c, d = load4(low, 4 * i)
        e, f, g, h = load4(high, 4 * i)
        store4(
            out, 8 * i,
            pick_bytes(a, e, _FIRST), pick_bytes(a, e, _LAST),
            pick_bytes(b, f, _FIRST), pick_bytes(b, f, _LAST),
        )  # fmt: skip
        store4(
            out, 8 * i + 4,
            pick_bytes(c, g, _FIRST), pick_bytes(c, g, _LAST),
            pick_bytes(d, h, _FIRST), pick_bytes(d, h, _LAST),
        )  # fmt: skip

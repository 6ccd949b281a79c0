"""What the threads of a warp and of a block find together."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import lane, shuffle_xor
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device

F32_ZERO = np.float32(0.0)


@device
def warp_sum(value: Any) -> Any:
    """The sum over the warp, in every lane: halves exchange five times."""
    value = value + shuffle_xor(value, 16)
    value = value + shuffle_xor(value, 8)
    value = value + shuffle_xor(value, 4)
    value = value + shuffle_xor(value, 2)
    return value + shuffle_xor(value, 1)


@device
def greater(a: Any, b: Any) -> Any:
    """The greater of two; a where b is NaN."""
    return b if b > a else a


@device
def warp_max(value: Any) -> Any:
    """The greatest in the warp, in every lane."""
    value = greater(value, shuffle_xor(value, 16))
    value = greater(value, shuffle_xor(value, 8))
    value = greater(value, shuffle_xor(value, 4))
    value = greater(value, shuffle_xor(value, 2))
    return greater(value, shuffle_xor(value, 1))


@device
def block_sum(value: Any, threads: Any) -> Any:
    """The sum over a block of whole warps, in every thread.

    Each warp's sum goes to shared memory; each warp sums those. Both barriers are needed: the
    second keeps a following call from overwriting what a slow warp still reads.
    """
    parts = cuda.shared.array(32, F32)
    value = warp_sum(value)
    if lane() == 0:
        parts[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    own = lane()
    value = warp_sum(parts[own] if own < threads >> 5 else F32_ZERO)
    cuda.syncthreads()
    return value


@device
def block_max(value: Any, threads: Any) -> Any:
    """The greatest over a block of whole warps, in every thread."""
    parts = cuda.shared.array(32, F32)
    value = warp_max(value)
    if lane() == 0:
        parts[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    own = lane()
    value = warp_max(parts[own] if own < threads >> 5 else parts[0])
    cuda.syncthreads()
    return value


@device
def warp_max_int(value: Any) -> Any:
    """The greatest whole number in the warp, in every lane."""
    value = greater(value, shuffle_xor(value, 16))
    value = greater(value, shuffle_xor(value, 8))
    value = greater(value, shuffle_xor(value, 4))
    value = greater(value, shuffle_xor(value, 2))
    return greater(value, shuffle_xor(value, 1))


@device
def block_sum_once(value: Any, threads: Any) -> Any:
    """`block_sum` for a kernel that calls it once: a barrier less."""
    parts = cuda.shared.array(32, F32)
    value = warp_sum(value)
    if lane() == 0:
        parts[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    own = lane()
    return warp_sum(parts[own] if own < threads >> 5 else F32_ZERO)


@device
def block_max_int_once(value: Any, threads: Any) -> Any:
    """The greatest whole number over a block of whole warps, in every thread; once a kernel."""
    parts = cuda.shared.array(32, I32)
    value = warp_max_int(value)
    if lane() == 0:
        parts[cuda.threadIdx.x >> 5] = value
    cuda.syncthreads()
    own = lane()
    return warp_max_int(parts[own] if own < threads >> 5 else parts[0])

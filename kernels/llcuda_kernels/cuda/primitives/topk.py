"""The k best of a stream of numbers, found by a block in shared memory.

A number and its index become one key of 64 bits that orders as the pair does: greater numbers
first, and of equal ones the lower index. The block keeps a buffer of keys and the k-th best key so
far; what beats that is put into the buffer, and when the buffer is nearly full it is sorted and cut
back to k. On random numbers next to nothing beats the k-th best after a while, so a number costs
one comparison.

::

    keys: | the k best at the last sort | what has beaten the k-th since | free |
                                       ^ threshold                       ^ count
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import bits_float, float_bits
from llcuda_kernels.cuda.runtime.shim import cuda, device

#: Less than the key of any number.
NOTHING = np.int64(-(2**63))
_LAST = np.int64(0x7FFFFFFF)
_ALL = np.int32(0x7FFFFFFF)


@device
def key_of(value: Any, index: Any) -> Any:
    """The key; not for NaN. The index is from 0 to 2³¹ - 1."""
    bits = float_bits(value + np.float32(0.0))  # -0 becomes 0: they are equal
    order = bits if bits >= 0 else bits ^ _ALL
    return (np.int64(order) << np.int64(32)) | (_LAST - np.int64(index))


@device
def value_of(key: Any) -> Any:
    """The number of a key."""
    order = np.int32(key >> np.int64(32))
    return bits_float(order if order >= 0 else order ^ _ALL)


@device
def index_of(key: Any) -> Any:
    """The index of a key."""
    return _LAST - (key & _LAST)


@device
def sort_descending(keys: Any, base: Any, size: Any, threads: Any) -> None:
    """Bitonic sort of keys[base : base + size], by all threads; size is a power of two.

    Pairs at a distance are put in order, in runs that alternate in direction and double in length
    until one run holds all (Batcher 1968).
    """
    run = np.int32(2)
    while run <= size:
        distance = run >> 1
        while distance > 0:
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, size >> 1, threads):
                low = ((i & ~(distance - 1)) << 1) | (i & (distance - 1))
                a, b = keys[base + low], keys[base + low + distance]
                if (a < b) == ((low & run) == 0):
                    keys[base + low], keys[base + low + distance] = b, a
            distance >>= 1
        run <<= 1
    cuda.syncthreads()


@device
def clear(keys: Any, size: Any, threads: Any) -> None:
    """Fill a buffer with `NOTHING`; a barrier is needed after it."""
    for i in range(cuda.threadIdx.x, size, threads):
        keys[i] = NOTHING


@device
def in_use(count: Any, size: Any) -> Any:
    """The least power of two from 256 on that holds so many keys, `size` at most."""
    used = np.int32(256)
    while used < count and used < size:
        used <<= 1
    return used


@device
def cut(
    keys: Any, base: Any, size: Any, k: Any, counts: Any, limits: Any, q: Any, threads: Any
) -> None:
    """Sort the buffer of query q and keep its k best; its threshold is the k-th. All threads."""
    used = in_use(counts[q], size)
    sort_descending(keys, base, used, threads)
    for i in range(k + cuda.threadIdx.x, used, threads):
        keys[base + i] = NOTHING
    if cuda.threadIdx.x == 0:
        counts[q] = min(counts[q], k)
        limits[q] = keys[base + k - 1]
    cuda.syncthreads()

"""The intrinsics in Python, for the simulator."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .simulator import cuda, exchange
from .simulator import lane as lane

_I32 = np.int32


def _part(memory: Any, at: Any, width: int) -> Any:
    if at % width:
        raise IndexError(f"a load of {width} at {at}, which is not a multiple of it")
    if at + width > memory.size or at < 0:
        raise IndexError(f"{at} to {at + width} of {memory.size}")
    return memory[at : at + width]


def load2(memory: Any, at: Any) -> Any:
    """Two neighbours in one load."""
    return tuple(_part(memory, at, 2))


def load4(memory: Any, at: Any) -> Any:
    """Four neighbours in one load."""
    return tuple(_part(memory, at, 4))


def load_past(memory: Any, at: Any, past: Any) -> Any:
    """The number at `at` and `past` more."""
    return _part(memory, at + past, 1)[0]


def store_past(memory: Any, at: Any, past: Any, value: Any) -> None:
    """Where `load_past` loads from."""
    _part(memory, at + past, 1)[0] = value


def store4(memory: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Four neighbours in one store."""
    _part(memory, at, 4)[:] = (a, b, c, d)


def copy_async4(near: Any, to: Any, memory: Any, at: Any) -> None:
    """Start copying four numbers to a shared array: here it is done at once."""
    _part(near, to, 4)[:] = _part(memory, at, 4)


def copy_async_bytes(near: Any, to: Any, memory: Any, at: Any) -> None:
    """Start copying 16 bytes between places in bytes: here it is done at once."""
    _part(near.view(np.uint8), to, 16)[:] = _part(memory.view(np.uint8), at, 16)


def copy_commit() -> None:
    """All copies started since the last commit are one group."""


def copy_wait(groups: Any) -> None:
    """Wait until no more than this many groups (a literal) are under way."""


def count_up(memory: Any, at: Any) -> Any:
    """Add one to a whole number in global memory; what it was."""
    old = memory[at]
    memory[at] = old + 1
    return old


def pointer_at(table: Any, at: Any, like: Any) -> Any:
    """The array that stands in a table, which holds objects here."""
    found = table[at]
    if found.dtype != like.dtype:
        raise TypeError(f"{found.dtype} numbers, and must be {like.dtype}")
    return found


def dp4a(a: Any, b: Any, c: Any) -> Any:
    """``c`` and the four products of the int8 in a and b."""
    x = np.array([a], np.int32).view(np.int8).astype(np.int64)
    y = np.array([b], np.int32).view(np.int8).astype(np.int64)
    return _I32(int(c) + int((x * y).sum()))


def from_f16(bits: Any) -> Any:
    """The float32 of a float16's bits."""
    return np.float32(np.array([bits], np.uint16).view(np.float16)[0])


def exp2_fast(x: Any) -> Any:
    """``2^x``, within 2 units in the last place."""
    return np.float32(np.exp2(np.float32(x)))


def reciprocal(x: Any) -> Any:
    """``1 / x``, within 1 unit in the last place."""
    return np.float32(1.0) / np.float32(x)


def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """``a · b + c``, rounded once."""
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


def greater(a: Any, b: Any) -> Any:
    """The greater of two; of one NaN, the other."""
    return np.fmax(np.float32(a), np.float32(b))


def float_bits(x: Any) -> Any:
    """The bits of a float32, as int32."""
    return np.float32(x).view(np.int32)


def bits_float(x: Any) -> Any:
    """The float32 of these bits."""
    return _I32(x).view(np.float32)


def multiply(a: Any, b: Any) -> Any:
    """``a · b``, rounded."""
    return np.float32(a) * np.float32(b)


def multiply_wide(a: Any, b: Any) -> Any:
    """The high and the low word of a product of two words without a sign."""
    product = (int(a) & 0xFFFFFFFF) * (int(b) & 0xFFFFFFFF)
    words = np.array([product >> 32, product & 0xFFFFFFFF], np.uint32).view(np.int32)
    return words[0], words[1]


def pick_bytes(a: Any, b: Any, which: Any) -> Any:
    """Four of the eight bytes of a (0 to 3) and b (4 to 7): one for each nibble of which."""
    there = np.array([a, b], np.int32).view(np.uint8)
    picked = [there[(int(which) >> (4 * i)) & 7] for i in range(4)]
    return np.array(picked, np.uint8).view(np.int32)[0]


def nibbles_bf16(word: Any, magic: Any) -> Any:
    """Nibbles i and i + 4 of a word, i = 0 to 3, under the high bits of a pair of bfloat16."""
    given = int(word) & 0xFFFFFFFF
    return tuple(_I32(np.int64(given >> (4 * i)) & 0x000F000F | np.int64(magic)) for i in range(4))


@functools.lru_cache(1 << 16)
def _pair(word: int) -> tuple[float, float]:
    """The two bfloat16 of a word, the low half first."""
    halves = np.array([word & 0xFFFFFFFF], np.uint32).view(np.uint16).astype(np.uint32)
    low, high = (halves << np.uint32(16)).view(np.float32).tolist()
    return low, high


@functools.lru_cache(1 << 16)
def _add_bf16(a: int, b: int) -> Any:
    bits = (np.array(_pair(a), np.float32) + np.array(_pair(b), np.float32)).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype(np.uint16).view(np.int32)[0]


def add_bf16(a: Any, b: Any) -> Any:
    """The sums of two pairs of bfloat16, rounded to even."""
    return _add_bf16(int(a), int(b))


def mma_bf16(a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, *c: Any) -> Any:
    """A 16x8 tile and the product of 16x16 with 16x8, bfloat16 into float32.

    Lane 4 g + t holds rows g and g + 8 of A, column g of B and columns 2 t, 2 t + 1 of the tile.
    """
    given = exchange([_pair(int(word)) for word in (a0, a1, a2, a3, b0, b1)])
    row, t = lane() >> 2, lane() & 3
    out = []
    for i in range(4):
        column, below = 2 * t + (i & 1), i >> 1
        total = float(c[i])
        for other in range(4):
            a, b = given[4 * row + other], given[4 * column + other]
            for half in range(2):
                (p, q), (u, v) = a[2 * half + below], b[4 + half]
                total += p * u + q * v
        out.append(np.float32(total))
    return tuple(out)


def cluster_arrive() -> None:
    """Say to the blocks of this cluster that this thread has come here."""


def cluster_wait() -> None:
    """Wait until all threads of the cluster have arrived."""
    cuda.synccluster()


def cluster_put(array: Any, at: Any, value: Any, block: Any) -> None:
    """Write an int32 into the shared array of another block of the cluster."""
    own, other = cuda.thread.block, cuda.thread.block.cluster[int(block)]
    place = next(place for place, mine in own.shared.items() if mine is array)
    other.shared[place][at] = value


def shuffle_xor(value: Any, mask: Any) -> Any:
    """What the lane gave whose number differs in the bits of mask."""
    given = exchange(value)
    other = lane() ^ int(mask)
    return given[other] if other < len(given) else value


def shuffle(value: Any, source: Any) -> Any:
    """What the lane `source` gave."""
    return exchange(value)[int(source)]


def ballot(condition: Any) -> Any:
    """A bit for each lane where the condition holds, as int64."""
    given = exchange(bool(condition))
    return sum(1 << number for number, holds in enumerate(given) if holds)


def bits_set(x: Any) -> Any:
    """How many bits are set."""
    return int(x).bit_count()

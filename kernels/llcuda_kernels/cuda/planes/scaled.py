"""Blocks of a float16 scale and 16 or 32 bytes of codes, as of q4_0 and q8_0, by whole words.

Two blocks are a whole number of words: the first block's codes begin in the middle of one, the
second's at one. So a word of codes is picked from two words, or is one, and four blocks have a word
of their scales' low bytes, and one of their high bytes. The number of blocks is a multiple of four,
so that all planes begin at words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import pick_bytes
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import I32, I64, cuda, pointer

THREADS = 256
#: Words of a tile in shared memory.
_ROOM = 4096
_ENDS = np.int32(0x7160)  # lowest and third byte of two words, then second and fourth
_LOWER, _UPPER = np.int32(0x5410), np.int32(0x7632)  # lower halves of two words, upper halves
_ALL = np.int32(0x3210)  # the first word
_FIRST, _LAST = np.int32(0x5140), np.int32(0x7362)  # bytes of two words in turn
_SCALE = np.int32(20)  # i // d is i * ceil(2^20 / d) >> 20, for i below 4,096 and d of 9 or 17
_MIDDLE = np.int32(0x5432)  # the upper half of one word and the lower half of the next


def tile(width: int) -> int:
    """Blocks of a tile, a multiple of four."""
    return 4 * _ROOM // (width + 2) // 4 * 4


def _make_split(width: int) -> Kernel:
    codes = np.int32(width // 4)  # words of codes of a block, a power of two
    bits = np.int32((width // 4).bit_length() - 1)
    pair = np.int32((width + 2) // 2)  # words of two blocks
    each = np.int32(tile(width))
    second, third, fourth = (np.int32(j * (width + 2) // 4) for j in (1, 2, 3))

    @kernel(
        f"split_scaled_{width}", pointer(I32), pointer(I32), I64,
        bounds=THREADS, shared=4 * _ROOM,
    )  # fmt: skip
    def split(data: Any, out: Any, blocks: Any) -> None:
        """A tile a thread block: data and planes as words."""
        near = cuda.shared.array(_ROOM, I32)
        t, threads = np.int32(cuda.threadIdx.x), np.int32(THREADS)
        first = np.int64(cuda.blockIdx.x) * np.int64(each)
        count = np.int32(min(np.int64(each), blocks - first))
        begin, words = (first >> np.int64(1)) * np.int64(pair), (count >> np.int32(1)) * pair
        i = t
        while i + np.int32(3) * threads < words:  # four words a thread are under way at a time
            a, b = data[begin + i], data[begin + i + threads]
            c = data[begin + i + np.int32(2) * threads]
            d = data[begin + i + np.int32(3) * threads]
            near[i], near[i + threads] = a, b
            near[i + np.int32(2) * threads] = c
            near[i + np.int32(3) * threads] = d
            i += np.int32(4) * threads
        while i < words:
            near[i] = data[begin + i]
            i += threads
        cuda.syncthreads()
        low, high = first >> np.int64(2), (blocks + first) >> np.int64(2)
        i = t
        while i < count >> np.int32(2):
            at = np.int32(2) * i * pair
            ab = pick_bytes(near[at], near[at + second], _ENDS)
            cd = pick_bytes(near[at + third], near[at + fourth], _ENDS)
            out[low + i] = pick_bytes(ab, cd, _LOWER)
            out[high + i] = pick_bytes(ab, cd, _UPPER)
            i += threads
        # A thread's words have one place in their blocks, and their blocks are all odd or all even.
        block, word = t >> bits, t & (codes - np.int32(1))
        odd = block & np.int32(1)
        at = (block >> np.int32(1)) * pair + word + (codes + np.int32(1)) * odd
        which = _ALL if odd else _MIDDLE
        plane = (blocks >> np.int64(1)) + first * np.int64(codes)
        i = t
        while i < count * codes:
            out[plane + i] = pick_bytes(near[at], near[at + np.int32(1)], which)
            at += (threads >> bits >> np.int32(1)) * pair
            i += threads

    return split


def _make_join(width: int) -> Kernel:
    codes = np.int32(width // 4)
    pair = np.int32((width + 2) // 2)
    each = np.int32(tile(width))
    scales = np.int32(tile(width) * (width // 4))  # where they lie, behind the codes
    inverse = np.int32(-(-(1 << 20) // ((width + 2) // 2)))
    more, on = np.int32(THREADS // ((width + 2) // 2)), np.int32(THREADS % ((width + 2) // 2))

    @kernel(
        f"join_scaled_{width}", pointer(I32), pointer(I32), I64,
        bounds=THREADS, shared=4 * _ROOM,
    )  # fmt: skip
    def join(planes: Any, out: Any, blocks: Any) -> None:
        """The other way."""
        near = cuda.shared.array(_ROOM, I32)
        t, threads = np.int32(cuda.threadIdx.x), np.int32(THREADS)
        first = np.int64(cuda.blockIdx.x) * np.int64(each)
        count = np.int32(min(np.int64(each), blocks - first))
        low, high = first >> np.int64(2), (blocks + first) >> np.int64(2)
        i = t
        while i < count >> np.int32(2):
            a, b = planes[low + i], planes[high + i]
            near[scales + np.int32(2) * i] = pick_bytes(a, b, _FIRST)
            near[scales + np.int32(2) * i + np.int32(1)] = pick_bytes(a, b, _LAST)
            i += threads
        plane, words = (blocks >> np.int64(1)) + first * np.int64(codes), count * codes
        i = t
        while i + np.int32(3) * threads < words:
            a, b = planes[plane + i], planes[plane + i + threads]
            c = planes[plane + i + np.int32(2) * threads]
            d = planes[plane + i + np.int32(3) * threads]
            near[i], near[i + threads] = a, b
            near[i + np.int32(2) * threads] = c
            near[i + np.int32(3) * threads] = d
            i += np.int32(4) * threads
        while i < words:
            near[i] = planes[plane + i]
            i += threads
        cuda.syncthreads()
        begin, words = (first >> np.int64(1)) * np.int64(pair), (count >> np.int32(1)) * pair
        two = (t * inverse) >> _SCALE
        word = t - two * pair
        i = t
        while i < words:
            # From two words: codes before and codes from here on, or a scale in place of either.
            at = np.int32(2) * two * codes + word
            a = near[at - np.int32(1) if word else scales + two]
            b = near[scales + two if word == codes else at]
            which = _MIDDLE if word < codes else _ALL
            if word == 0:
                which = _LOWER
            if word == codes:
                which = _UPPER
            out[begin + i] = pick_bytes(a, b, which)
            two, word = two + more, word + on
            if word >= pair:
                two, word = two + np.int32(1), word - pair
            i += threads

    return join


#: By the width of the codes.
SPLIT = {width: _make_split(width) for width in (16, 32)}
JOIN = {width: _make_join(width) for width in (16, 32)}

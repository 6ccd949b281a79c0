"""int4 weights times a vector: a thread keeps what belongs to its columns in registers.

A group's share of a column is ``(Σ x q - z Σ x) s``: the sum of x over the group is found before.
Where that sum is not finite (x holds infinity or NaN), each product is made with ``q - z``, as
infinity less infinity would be NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import bits_float, load4, multiply_add, store4
from llcuda_kernels.cuda.runtime.kernel import Kernel, kernel
from llcuda_kernels.cuda.runtime.shim import F32, I32, cuda, device, pointer

THREADS = 256
_ZERO = np.float32(0.0)
_NIBBLE = np.int32(15)


#: The bits of 2²³: a number of 4 bits in the low part of its fraction adds to it exactly.
_MAGIC, _MAGIC_FLOAT = np.int32(0x4B000000), np.float32(2.0**23)
_M0, _M1, _M2 = np.int32(0xF), np.int32(0xF0), np.int32(0xF00)
_M3, _M4 = np.int32(0xF000), np.int32(0xF0000)
#: What a nibble is too large by where it lies: 16, 16², …
_BY = tuple(np.float32(16.0**-i) for i in range(5))
_BY1, _BY2, _BY3, _BY4 = _BY[1:]


@device
def _number(word: Any, mask: Any) -> Any:
    """The nibble under the mask, times 16 for each nibble below it; no conversion instruction."""
    return bits_float((word & mask) | _MAGIC) - _MAGIC_FLOAT


@device
def _less(word: Any, zero: Any, nibble: Any) -> Any:
    """A number less its zero."""
    return np.float32(((word >> np.int32(4 * nibble)) & _NIBBLE) - zero)


def awq(name: str, kind: Any, scale: Any) -> Kernel:
    """AWQ: a thread a word of eight columns, eight sums; rows shared by the warps of a block."""

    @device
    def add(sums: Any, word: Any, v: Any) -> None:
        """The word's eight numbers times v; sums by nibble, not by column."""
        high = word >> np.int32(20)
        sums[0] = multiply_add(v, _number(word, _M0), sums[0])
        sums[1] = multiply_add(v, _number(word, _M1), sums[1])
        sums[2] = multiply_add(v, _number(word, _M2), sums[2])
        sums[3] = multiply_add(v, _number(word, _M3), sums[3])
        sums[4] = multiply_add(v, _number(word, _M4), sums[4])
        sums[5] = multiply_add(v, _number(high, _M0), sums[5])
        sums[6] = multiply_add(v, _number(high, _M1), sums[6])
        sums[7] = multiply_add(v, _number(high, _M2), sums[7])

    @device
    def exact(sums: Any, word: Any, zeros: Any, v: Any) -> None:
        """The same of the numbers less their zeros; sums are 16 times larger by nibble."""
        by = np.float32(1.0)
        for c in range(8):
            zero = (zeros >> np.int32(4 * c)) & _NIBBLE
            sums[c] += v * _less(word, zero, c) * by
            by = np.float32(1.0) if c == 4 else by * np.float32(16.0)

    @device
    def end(sum_: Any, by: Any, zeros: Any, nibble: Any, weight: Any, s: Any) -> Any:
        z = np.float32((zeros >> np.int32(4 * nibble)) & _NIBBLE)
        return (sum_ * by - z * weight) * s

    @kernel(
        name, pointer(F32), pointer(F32), pointer(I32), pointer(I32), pointer(kind), pointer(F32),
        I32, I32, I32, bounds=(THREADS, 3), shared=8192,
    )  # fmt: skip
    def run(
        x: Any, sums_x: Any, q: Any, zeros: Any, scales: Any, out: Any,
        columns: Any, size: Any, share: Any,
    ) -> None:  # fmt: skip
        """Block (i, p): words 32 i .. 32 i + 31, groups of part p; out: (parts, columns)."""
        lane = np.int32(cuda.threadIdx.x) & np.int32(31)
        warp = np.int32(cuda.threadIdx.x) >> np.int32(5)
        words = columns >> np.int32(3)
        word = np.int32(cuda.blockIdx.x) * np.int32(32) + lane
        sums = cuda.shared.array(2048, F32)
        total = cuda.local.array(8, F32)
        for c in range(8):
            total[c] = _ZERO
        if word < words:
            first = np.int32(cuda.blockIdx.y) * share  # share: rows a block, whole groups
            apart = np.int64(words)
            for start in range(first + warp * size, first + share, 8 * size):
                group = np.int64(start // size)
                z = zeros[group * words + word]
                s = group * columns + 8 * word
                f0, f1, f2, f3 = scales[s], scales[s + 1], scales[s + 2], scales[s + 3]
                f4, f5, f6, f7 = scales[s + 4], scales[s + 5], scales[s + 6], scales[s + 7]
                weight = sums_x[group]
                part = cuda.local.array(8, F32)
                for c in range(8):
                    part[c] = _ZERO
                k = np.int32(start)
                final = k + size - np.int32(8)  # groups are multiples of eight rows
                at = np.int64(k) * words + word
                w0, w1 = q[at], q[at + apart]
                w2, w3 = q[at + 2 * apart], q[at + 3 * apart]
                w4, w5 = q[at + 4 * apart], q[at + 5 * apart]
                w6, w7 = q[at + 6 * apart], q[at + 7 * apart]
                while k <= final:
                    # the next eight rows are on their way while these are multiplied
                    at += 8 * apart if k < final else np.int64(0)
                    n0, n1 = q[at], q[at + apart]
                    n2, n3 = q[at + 2 * apart], q[at + 3 * apart]
                    n4, n5 = q[at + 4 * apart], q[at + 5 * apart]
                    n6, n7 = q[at + 6 * apart], q[at + 7 * apart]
                    a0, a1, a2, a3 = load4(x, np.int64(k))
                    b0, b1, b2, b3 = load4(x, np.int64(k + 4))
                    add(part, w0, a0)
                    add(part, w1, a1)
                    add(part, w2, a2)
                    add(part, w3, a3)
                    add(part, w4, b0)
                    add(part, w5, b1)
                    add(part, w6, b2)
                    add(part, w7, b3)
                    w0, w1, w2, w3 = n0, n1, n2, n3
                    w4, w5, w6, w7 = n4, n5, n6, n7
                    k += np.int32(8)
                if weight - weight != _ZERO:
                    weight = _ZERO
                    for c in range(8):
                        part[c] = _ZERO
                    for row in range(start, start + size):
                        exact(part, q[np.int64(row) * words + word], z, x[row])
                total[0] += end(part[0], np.float32(1.0), z, 0, weight, scale(f0))
                total[2] += end(part[1], _BY1, z, 1, weight, scale(f2))
                total[4] += end(part[2], _BY2, z, 2, weight, scale(f4))
                total[6] += end(part[3], _BY3, z, 3, weight, scale(f6))
                total[1] += end(part[4], _BY4, z, 4, weight, scale(f1))
                total[3] += end(part[5], np.float32(1.0), z, 5, weight, scale(f3))
                total[5] += end(part[6], _BY1, z, 6, weight, scale(f5))
                total[7] += end(part[7], _BY2, z, 7, weight, scale(f7))
        for c in range(8):
            sums[(warp * 8 + c) * 32 + lane] = total[c]
        cuda.syncthreads()
        # thread: column `warp` of word `lane`
        y = _ZERO
        for w in range(8):
            y += sums[(w * 8 + warp) * 32 + lane]
        if word < words:
            out[np.int64(cuda.blockIdx.y) * columns + 8 * word + warp] = y

    return run


def gptq(name: str, kind: Any, scale: Any) -> Kernel:
    """GPTQ: a thread four columns, a word of eight rows of each at a time."""

    @device
    def add(sums: Any, word: Any, a: Any, b: Any) -> Any:
        """A word's eight products, into a sum for each place that a nibble can lie in."""
        high = word >> np.int32(20)
        p0, p1, p2, p3, p4 = sums
        p0 = multiply_add(a[0], _number(word, _M0), p0)
        p1 = multiply_add(a[1], _number(word, _M1), p1)
        p2 = multiply_add(a[2], _number(word, _M2), p2)
        p3 = multiply_add(a[3], _number(word, _M3), p3)
        p4 = multiply_add(b[0], _number(word, _M4), p4)
        p0 = multiply_add(b[1], _number(high, _M0), p0)
        p1 = multiply_add(b[2], _number(high, _M1), p1)
        p2 = multiply_add(b[3], _number(high, _M2), p2)
        return p0, p1, p2, p3, p4

    @device
    def exact(total: Any, word: Any, zeros: Any, column: Any, a: Any, b: Any) -> Any:
        """A word's eight products, of its numbers less their zero."""
        z = ((zeros >> (np.int32(4) * (column & np.int32(7)))) & _NIBBLE) + np.int32(1)
        for i in range(4):
            total += a[i] * _less(word, z, i)
            total += b[i] * _less(word, z, i + 4)
        return total

    @device
    def end(sums: Any, zeros: Any, column: Any, weight: Any, s: Any) -> Any:
        """A group's share of a column: its sum, less the zero's."""
        p0, p1, p2, p3, p4 = sums
        total = p0 + p1 * _BY1 + p2 * _BY2 + p3 * _BY3 + p4 * _BY4
        z = ((zeros >> (np.int32(4) * (column & np.int32(7)))) & _NIBBLE) + np.int32(1)
        return (total - np.float32(z) * weight) * s

    @kernel(
        name, pointer(F32), pointer(F32), pointer(I32), pointer(I32), pointer(kind), pointer(F32),
        I32, I32, I32, bounds=(THREADS, 3), shared=4096,
    )  # fmt: skip
    def run(
        x: Any, sums_x: Any, q: Any, zeros: Any, scales: Any, out: Any,
        columns: Any, size: Any, share: Any,
    ) -> None:  # fmt: skip
        """Block (i, p): columns 128 i .. 128 i + 127, groups of part p; out: (parts, columns).

        A warp takes whole groups in turn, so it needs the others only for the last sum.
        """
        lane = np.int32(cuda.threadIdx.x) & np.int32(31)
        warp = np.int32(cuda.threadIdx.x) >> np.int32(5)
        n = np.int32(cuda.blockIdx.x) * np.int32(128) + np.int32(4) * lane
        sums = cuda.shared.array(1024, F32, 16)
        t0, t1, t2, t3 = _ZERO, _ZERO, _ZERO, _ZERO
        if n < columns:
            first = np.int32(cuda.blockIdx.y) * share
            for start in range(first + warp * size, first + share, 8 * size):
                group = np.int64(start // size)
                word = zeros[group * (columns >> 3) + (n >> 3)]
                at = group * columns + n
                f0, f1, f2, f3 = scales[at], scales[at + 1], scales[at + 2], scales[at + 3]
                weight = sums_x[group]
                none = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
                p, u, v, w = none, none, none, none
                k = np.int32(start)
                final = k + size - np.int32(8)
                at = np.int64(k >> np.int32(3)) * columns + n
                q0, q1, q2, q3 = load4(q, at)
                while k <= final:
                    # the next words are on their way while these are multiplied
                    at += np.int64(columns) if k < final else np.int64(0)
                    n0, n1, n2, n3 = load4(q, at)
                    a, b = load4(x, np.int64(k)), load4(x, np.int64(k + 4))
                    p, u = add(p, q0, a, b), add(u, q1, a, b)
                    v, w = add(v, q2, a, b), add(w, q3, a, b)
                    q0, q1, q2, q3 = n0, n1, n2, n3
                    k += np.int32(8)
                if weight - weight != _ZERO:
                    weight = _ZERO
                    e0, e1, e2, e3 = _ZERO, _ZERO, _ZERO, _ZERO
                    for row in range(start, start + size, 8):
                        at = np.int64(row >> 3) * columns + n
                        q0, q1, q2, q3 = load4(q, at)
                        a, b = load4(x, np.int64(row)), load4(x, np.int64(row + 4))
                        e0 = exact(e0, q0, word, n, a, b)
                        e1 = exact(e1, q1, word, n + np.int32(1), a, b)
                        e2 = exact(e2, q2, word, n + np.int32(2), a, b)
                        e3 = exact(e3, q3, word, n + np.int32(3), a, b)
                    p = e0, _ZERO, _ZERO, _ZERO, _ZERO
                    u = e1, _ZERO, _ZERO, _ZERO, _ZERO
                    v = e2, _ZERO, _ZERO, _ZERO, _ZERO
                    w = e3, _ZERO, _ZERO, _ZERO, _ZERO
                t0 += end(p, word, n, weight, scale(f0))
                t1 += end(u, word, n + np.int32(1), weight, scale(f1))
                t2 += end(v, word, n + np.int32(2), weight, scale(f2))
                t3 += end(w, word, n + np.int32(3), weight, scale(f3))
        store4(sums, warp * 128 + 4 * lane, t0, t1, t2, t3)
        cuda.syncthreads()
        t = np.int32(cuda.threadIdx.x)
        column = np.int32(cuda.blockIdx.x) * np.int32(128) + t
        if t < 128 and column < columns:
            y = _ZERO
            for i in range(8):
                y += sums[i * 128 + t]
            out[np.int64(cuda.blockIdx.y) * columns + column] = y

    return run

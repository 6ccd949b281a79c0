"""float32 and int8 products on the ordinary cores: one kernel to read, two that are fast.

``tiled``: a block computes 16x16 of C. It walks along k in steps of 16: all threads bring a tile of
A and one of B to shared memory, wait, and multiply what is there. Each number fetched is used 16
times.

``fast``: a block computes 128x128, a thread 8x8 in registers, so that a number fetched from global
memory is used 128 times and one from shared memory 8 times. Tiles are 16 deep; while one is
multiplied, the next is on its way in registers, and goes to a second buffer.

::

    thread (ty, tx) of 16x16 has rows 4 ty .. +3 and 64 + 4 ty .. +3,
    and columns 4 tx .. +3 and 64 + 4 tx .. +3: neighbours read neighbouring vectors

Any shape will do: what lies beyond the edges counts as zero, and loops go over ceil(k / tile).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .runtime.array import DeviceArray, at
from .runtime.intrinsics import dp4a, load4, multiply_add, store4
from .runtime.kernel import Kernel, divide_up, kernel, limits
from .runtime.shim import F32, I32, cuda, device, pointer

TILE, SIDE, DEPTH, THREADS = 16, 128, 16, 256
_ZERO = np.float32(0.0)
_DEEP = 2 * DEPTH * SIDE


@kernel(
    "matmul_tiled", pointer(F32), pointer(F32), pointer(F32), I32, I32, I32, bounds=TILE * TILE,
    shared=2048,
)  # fmt: skip
def tiled(a: Any, b: Any, c: Any, m: Any, n: Any, inner: Any) -> None:
    """C = A B, tile by tile: the one to read."""
    near_a = cuda.shared.array((TILE, TILE), F32)
    near_b = cuda.shared.array((TILE, TILE), F32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    row = cuda.blockIdx.y * TILE + ty
    column = cuda.blockIdx.x * TILE + tx
    total = _ZERO
    for tile in range((inner + TILE - 1) // TILE):
        ka, kb = tile * TILE + tx, tile * TILE + ty
        near_a[ty, tx] = a[row * np.int64(inner) + ka] if row < m and ka < inner else _ZERO
        near_b[ty, tx] = b[kb * np.int64(n) + column] if kb < inner and column < n else _ZERO
        cuda.syncthreads()
        for k in range(TILE):
            total += near_a[ty, k] * near_b[k, tx]
        cuda.syncthreads()
    if row < m and column < n:
        c[row * np.int64(n) + column] = total


@device
def _four(memory: Any, row: Any, rows: Any, at: Any, width: Any, whole: Any) -> Any:
    """Four neighbours of a row; zeros beyond the edges."""
    base = np.int64(row) * width + at
    if whole:
        return load4(memory, base)
    here = row < rows
    return (
        memory[base] if here and at < width else _ZERO,
        memory[base + 1] if here and at + 1 < width else _ZERO,
        memory[base + 2] if here and at + 2 < width else _ZERO,
        memory[base + 3] if here and at + 3 < width else _ZERO,
    )


@device
def _row(sums: Any, at: Any, a: Any, p: Any, q: Any) -> None:
    """Eight multiply-adds of one number of A, written out: indices must be known for registers."""
    sums[at] = multiply_add(a, p[0], sums[at])
    sums[at + 1] = multiply_add(a, p[1], sums[at + 1])
    sums[at + 2] = multiply_add(a, p[2], sums[at + 2])
    sums[at + 3] = multiply_add(a, p[3], sums[at + 3])
    sums[at + 4] = multiply_add(a, q[0], sums[at + 4])
    sums[at + 5] = multiply_add(a, q[1], sums[at + 5])
    sums[at + 6] = multiply_add(a, q[2], sums[at + 6])
    sums[at + 7] = multiply_add(a, q[3], sums[at + 7])


@device
def _keep(c: Any, at: Any, column: Any, n: Any, whole: Any, p: Any, q: Any, r: Any, s: Any) -> None:
    """Four neighbours of a row of C."""
    if whole:
        store4(c, at + column, p, q, r, s)
    else:
        if column < n:
            c[at + column] = p
        if column + 1 < n:
            c[at + column + 1] = q
        if column + 2 < n:
            c[at + column + 2] = r
        if column + 3 < n:
            c[at + column + 3] = s


@kernel(
    "matmul_fast",
    pointer(F32), pointer(F32), pointer(F32), I32, I32, I32, I32, bounds=(THREADS, 2), shared=32768,
)  # fmt: skip
def fast(a: Any, b: Any, c: Any, m: Any, n: Any, inner: Any, vectors: Any) -> None:
    """C = A B in registers: the one to use. `vectors`: rows are aligned to 16 bytes."""
    near_a = cuda.shared.array(_DEEP, F32, 16)
    near_b = cuda.shared.array(_DEEP, F32, 16)
    sums = cuda.local.array(64, F32)
    for i in range(64):
        sums[i] = _ZERO
    t = np.int32(cuda.threadIdx.x)
    tx, ty = np.int32(4) * (t & np.int32(15)), np.int32(4) * (t >> np.int32(4))
    row0 = np.int32(cuda.blockIdx.y) * np.int32(SIDE)
    column0 = np.int32(cuda.blockIdx.x) * np.int32(SIDE)
    # A: two threads a row, eight numbers each. B: sixteen rows, sixteen threads each.
    a_row, a_at = row0 + (t >> np.int32(1)), np.int32(8) * (t & np.int32(1))
    b_row, b_at = t >> np.int32(4), column0 + np.int32(8) * (t & np.int32(15))
    inside_a = vectors != 0 and row0 + SIDE <= m
    inside_b = vectors != 0 and column0 + SIDE <= n
    tiles = (inner + DEPTH - 1) // DEPTH
    whole = inner >= DEPTH
    a0, a1, a2, a3 = _four(a, a_row, m, a_at, inner, inside_a and whole)
    a4, a5, a6, a7 = _four(a, a_row, m, a_at + 4, inner, inside_a and whole)
    b0, b1, b2, b3 = _four(b, b_row, inner, b_at, n, inside_b and whole)
    b4, b5, b6, b7 = _four(b, b_row, inner, b_at + 4, n, inside_b and whole)
    to_a = a_at * np.int32(SIDE) + (t >> np.int32(1))
    to_b = b_row * np.int32(SIDE) + np.int32(8) * (t & np.int32(15))
    for tile in range(tiles):
        half = np.int32(tile & 1) * np.int32(DEPTH * SIDE)
        p = half + to_a
        near_a[p], near_a[p + 128] = a0, a1
        near_a[p + 256], near_a[p + 384] = a2, a3
        near_a[p + 512], near_a[p + 640] = a4, a5
        near_a[p + 768], near_a[p + 896] = a6, a7
        store4(near_b, half + to_b, b0, b1, b2, b3)
        store4(near_b, half + to_b + 4, b4, b5, b6, b7)
        cuda.syncthreads()
        k0 = np.int32(tile + 1) * np.int32(DEPTH)
        if k0 < inner:
            whole = k0 + DEPTH <= inner
            a0, a1, a2, a3 = _four(a, a_row, m, k0 + a_at, inner, inside_a and whole)
            a4, a5, a6, a7 = _four(a, a_row, m, k0 + a_at + 4, inner, inside_a and whole)
            b0, b1, b2, b3 = _four(b, k0 + b_row, inner, b_at, n, inside_b and whole)
            b4, b5, b6, b7 = _four(b, k0 + b_row, inner, b_at + 4, n, inside_b and whole)
        for k in range(DEPTH):
            at = half + np.int32(k) * np.int32(SIDE)
            u0, u1, u2, u3 = load4(near_a, at + ty)
            v0, v1, v2, v3 = load4(near_a, at + ty + 64)
            p4 = load4(near_b, at + tx)
            q4 = load4(near_b, at + tx + 64)
            _row(sums, 0, u0, p4, q4)
            _row(sums, 8, u1, p4, q4)
            _row(sums, 16, u2, p4, q4)
            _row(sums, 24, u3, p4, q4)
            _row(sums, 32, v0, p4, q4)
            _row(sums, 40, v1, p4, q4)
            _row(sums, 48, v2, p4, q4)
            _row(sums, 56, v3, p4, q4)
    for i in range(8):
        row = row0 + ty + np.int32(64 * (i >> 2) + (i & 3))
        if row < m:
            at = np.int64(row) * n
            left, right = column0 + tx, column0 + tx + np.int32(64)
            e = 8 * i
            _keep(c, at, left, n, inside_b, sums[e], sums[e + 1], sums[e + 2], sums[e + 3])
            _keep(c, at, right, n, inside_b, sums[e + 4], sums[e + 5], sums[e + 6], sums[e + 7])


@device
def _products(a: Any, b: Any, total: Any) -> Any:
    """Four products of int8 where there is no dp4a."""
    for shift in range(0, 32, 8):
        up = np.int32(24 - shift)
        left, right = np.int32(a << up), np.int32(b << up)
        total += np.int32((left >> np.int32(24)) * (right >> np.int32(24)))
    return total


def _int8(name: str, dot: Any, least: tuple[int, int]) -> Kernel:
    @kernel(
        name, pointer(I32), pointer(I32), pointer(I32), I32, I32, I32, bounds=THREADS, least=least,
        shared=8192,
    )  # fmt: skip
    def run(a: Any, b: Any, c: Any, m: Any, n: Any, words: Any) -> None:
        """C = A Bᵀ of rows of four int8 a word; a block 64x64, a thread 4x4."""
        near_a = cuda.shared.array(1024, I32, 16)
        near_b = cuda.shared.array(1024, I32, 16)
        sums = cuda.local.array(16, I32)
        for i in range(16):
            sums[i] = np.int32(0)
        t = np.int32(cuda.threadIdx.x)
        tx, ty = np.int32(4) * (t & np.int32(15)), np.int32(4) * (t >> np.int32(4))
        row0 = np.int32(cuda.blockIdx.y) * np.int32(64)
        column0 = np.int32(cuda.blockIdx.x) * np.int32(64)
        own, at = t >> np.int32(2), np.int32(4) * (t & np.int32(3))
        for w0 in range(0, words, 16):
            w = np.int32(w0) + at  # words a row are a multiple of four
            here_a = row0 + own < m and w < words
            here_b = column0 + own < n and w < words
            for i in range(4):
                near_a[(at + i) * 64 + own] = (
                    a[np.int64(row0 + own) * words + w + i] if here_a else np.int32(0)
                )
                near_b[(at + i) * 64 + own] = (
                    b[np.int64(column0 + own) * words + w + i] if here_b else np.int32(0)
                )
            cuda.syncthreads()
            for k in range(16):
                u, v = load4(near_a, k * 64 + ty), load4(near_b, k * 64 + tx)
                for i in range(4):
                    for j in range(4):
                        sums[4 * i + j] = dot(u[i], v[j], sums[4 * i + j])
            cuda.syncthreads()
        for i in range(4):
            for j in range(4):
                if row0 + ty + i < m and column0 + tx + j < n:
                    c[np.int64(row0 + ty + i) * n + column0 + tx + j] = sums[4 * i + j]

    return run


INT8 = _int8("matmul_int8_dp4a", dp4a, (6, 1))
INT8_PLAIN = _int8("matmul_int8_plain", _products, (5, 0))


def _bands(m: int, side: int) -> Iterator[tuple[int, int]]:
    """A tall matrix in parts of so many rows that a grid reaches them: first row and rows."""
    most = limits().grid[1] * side
    for first in range(0, m, most):
        yield first, min(most, m - first)


def float32(which: str, a: DeviceArray, b: DeviceArray, c: DeviceArray, fit: bool) -> None:
    """C = A B by one of the two. `fit`: rows are aligned to 16 bytes."""
    (m, inner), n = a.shape, b.shape[1]
    side = TILE if which == "tiled" else SIDE
    for first, rows in _bands(m, side):
        grid = (divide_up(n, side), divide_up(rows, side))
        given = at(a, first * inner), b.address, at(c, first * n), rows, n, inner
        if which == "tiled":
            tiled.launch(grid, (TILE, TILE), *given)
        else:
            fast.launch(grid, THREADS, *given, fit)


def int8(made: Kernel, a: DeviceArray, b: DeviceArray, c: DeviceArray) -> None:
    """C = A Bᵀ of rows of words, by `INT8` or `INT8_PLAIN`."""
    (m, words), n = a.shape, b.shape[0]
    for first, rows in _bands(m, 64):
        grid = (divide_up(n, 64), divide_up(rows, 64))
        given = at(a, first * words), b.address, at(c, first * n)
        made.launch(grid, THREADS, *given, rows, n, words)

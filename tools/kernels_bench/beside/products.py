"""Products of matrices: few rows against a layer's weights, and large squares."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import llcuda_kernels as k
from llcuda_kernels.cuda.runtime.array import DeviceArray, empty
from tools.kernels_bench.beside.work import Run, Work, call, copies_for, near, turn
from tools.kernels_bench.clock import normals, random_words
from tools.kernels_bench.peers import as_torch, cupy, torch

INNER, COLUMNS = 4096, 14_336
ROWS = (1, 8, 32, 64)
_CACHE = 60e6


def _layer(scale: float) -> tuple[int, int]:
    return max(128, int(INNER * scale) // 128 * 128), max(128, int(COLUMNS * scale) // 128 * 128)


def floats(scale: float) -> Iterator[Work]:
    """Float32: A (M, K) by B (K, N)."""
    inner, columns = _layer(scale)
    copies = copies_for(4.0 * inner * columns, _CACHE)
    weights = [normals(inner * columns, 20 + i).reshape(inner, columns) for i in range(copies)]
    theirs = [as_torch(w) for w in weights]
    for count in ROWS:
        x = normals(count * inner, 30 + count).reshape(count, inner)
        out = empty((count, columns), np.float32)
        tx, tout = as_torch(x), torch.empty(count, columns, device="cuda")
        others: dict[str, Run] = {"torch": turn(torch.mm, tx, theirs, out=tout)}
        if cupy is not None and count == 1:
            cx, cw = cupy.asarray(x), [cupy.asarray(w) for w in weights]
            others["cupy"] = turn(cupy.matmul, cx, cw)
        yield Work(
            f"float32 matmul, M = {count}",
            f"{inner:,} x {columns:,}",
            turn(k.matmul, x, weights, out=out),
            others,
            copies,
            4.0 * inner * columns,
            check=near,
        )


def halves(scale: float) -> Iterator[Work]:
    """Bfloat16: A (M, K) by Bᵀ (N, K)."""
    inner, columns = _layer(scale)
    copies = copies_for(2.0 * inner * columns, _CACHE)
    weights = [_bf16((columns, inner), 40 + i) for i in range(copies)]
    theirs = [_as_bf16(w) for w in weights]
    for count in ROWS:
        x = _bf16((count, inner), 50 + count)
        tx = _as_bf16(x)
        yield Work(
            f"bf16 matmul, M = {count}",
            f"{inner:,} x {columns:,}",
            turn(k.matmul_bf16, x, weights),
            {"torch": turn(torch.mm, tx, [w.T for w in theirs])},
            copies,
            2.0 * inner * columns,
            check=near,
        )


def codes(scale: float) -> Iterator[Work]:
    """Int8: A (M, K) by Bᵀ (N, K)."""
    inner, columns = _layer(scale)
    copies = copies_for(1.0 * inner * columns, _CACHE)
    weights = [
        random_words(inner * columns // 4, 60 + i).view(np.int8, (columns, inner))
        for i in range(copies)
    ]
    theirs = [as_torch(w) for w in weights]
    for count in ROWS:
        x = random_words(count * inner // 4, 70 + count).view(np.int8, (count, inner))
        # _int_mm takes no fewer than 17 rows
        tx = torch.zeros(max(32, count), inner, dtype=torch.int8, device="cuda")
        tx[:count] = as_torch(x)
        yield Work(
            f"int8 matmul, M = {count}",
            f"{inner:,} x {columns:,}",
            turn(k.matmul_int8, x, weights),
            {"torch _int_mm": partial(_int_mm, tx, theirs, count)},
            copies,
            1.0 * inner * columns,
            check=near,
        )


def squares(scale: float) -> Iterator[Work]:
    """8192³: by our kernels, and by what is called where nothing is said."""
    n = max(256, int(8192 * scale) // 256 * 256)
    a, b = normals(n * n, 8).reshape(n, n), normals(n * n, 9).reshape(n, n)
    half, other = _bf16((n, n), 1), _bf16((n, n), 2)
    whole = random_words(n * n // 4, 4).view(np.int8, (n, n))
    ta, tb, twhole = as_torch(a), as_torch(b), as_torch(whole)
    thalf, tother = _as_bf16(half), _as_bf16(other)
    for name, product, ours, given, others in (
        ("float32", k.matmul, "fast", (a, b), {"torch": call(torch.mm, ta, tb)}),
        ("bf16", k.matmul_bf16, "mma", (half, other), {"torch": call(torch.mm, thalf, tother.T)}),
        ("int8", k.matmul_int8, "mma", (whole, whole),
         {"torch _int_mm": call(torch._int_mm, twhole, twhole.T)}),
    ):  # fmt: skip
        for kernel in (ours, "auto"):
            yield Work(
                f"{name} matmul, {kernel}",
                f"{n:,}³",
                call(product, *given, kernel=kernel),
                others,
                check=near,
            )


def _int_mm(x: Any, weights: list[Any], count: int, i: int) -> Any:
    return torch._int_mm(x, weights[i].T)[:count]


def _bf16(shape: tuple[int, int], seed: int) -> DeviceArray:
    """Normal numbers as bfloat16 on the device: a block of them, made by the host, repeated."""
    values = torch.randn(
        *shape, device="cuda", generator=torch.Generator("cuda").manual_seed(seed)
    ).to(torch.bfloat16)
    out = empty(shape, np.uint16)
    as_torch(out).copy_(values.view(torch.uint16))
    torch.cuda.synchronize()
    return out


def _as_bf16(array: DeviceArray) -> Any:
    return as_torch(array).view(torch.bfloat16)

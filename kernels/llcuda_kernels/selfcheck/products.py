"""Products, int4 weights and synthetic load."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels import products, reference, search, synthetic_load
from llcuda_kernels.weights import blocks, int4

from .check import Check, as_if, greatest, into, miss_of, normal, topk_miss

CHECKS: dict[str, Check] = {}
_check = into(CHECKS)


_SHAPES = [
    *((1, 1, 1), (17, 33, 5), (128, 128, 64), (300, 200, 100), (257, 129, 1000)),
    # few rows: k in parts; whole vectors and not
    *((1, 132, 4096), (4, 250, 1001), (33, 1000, 2048), (64, 4097, 2064)),
]


def _product_miss(got: Any, a: Any, b: Any, share: float = 2e-6) -> float:
    """By the share of ``Σ |a| |b|`` that is allowed: rounding is in proportion to it."""
    want = reference.products.matmul(a, b)
    scale = reference.products.matmul(np.abs(a), np.abs(b))
    return greatest(np.abs(got - want), scale * share + 1e-6)


def _matmul(name: str, run_: Any) -> None:
    @_check(name)
    def check(backend: Any, rng: np.random.Generator) -> float:
        worst = 0.0
        for m, n, inner in _SHAPES:
            a, b = normal(rng, m, inner), normal(rng, inner, n)
            worst = max(worst, _product_miss(run_(a, b, backend=backend), a, b))
        return worst


_matmul(
    "matmul tiled", lambda a, b, backend: products.matmul(a, b, kernel="tiled", backend=backend)
)
_matmul("matmul fast", lambda a, b, backend: products.matmul(a, b, kernel="fast", backend=backend))
_matmul("gemm", products.gemm)


def _int8(kernel: str) -> None:
    @_check(f"matmul_int8 {kernel}")
    def check(backend: Any, rng: np.random.Generator) -> float:
        for m, n, inner in _SHAPES:
            a = rng.integers(-128, 128, (m, inner)).astype(np.int8)
            b = rng.integers(-128, 128, (n, inner)).astype(np.int8)
            got = products.matmul_int8(a, b, kernel=kernel, backend=backend)
            if not np.array_equal(got, reference.products.matmul_int8(a, b)):
                return float("inf")
        return 0.0


_int8("auto")
_int8("dp4a")
_int8("mma")


@_check("paths of older GPUs")
def _older(backend: Any, rng: np.random.Generator) -> float:
    """What runs without dp4a and without tensor cores; on the CPU there is nothing else."""
    a = rng.integers(-128, 128, (70, 90)).astype(np.int8)
    b = rng.integers(-127, 128, (3000, 90)).astype(np.int8)
    p, q = products.to_bf16(normal(rng, 40, 50)), products.to_bf16(normal(rng, 60, 50))
    with as_if(backend, (5, 0)):
        whole = products.matmul_int8(a, b, backend=backend)
        wide = products.matmul_bf16(p, q, backend=backend)
        values, rows = search.cosine_topk(a[:9], b, 20, backend=backend)
    miss = topk_miss(values, rows, reference.search.cosine_scores(a[:9], b), 20, 3e-6)
    if not np.array_equal(whole, reference.products.matmul_int8(a, b)):
        return float("inf")
    return max(miss, _product_miss(wide, products.from_bf16(p), products.from_bf16(q).T))


def _bf16(name: str, kernel: Any) -> None:
    @_check(name)
    def check(backend: Any, rng: np.random.Generator) -> float:
        worst = 0.0
        for m, n, inner in _SHAPES:
            a = products.to_bf16(normal(rng, m, inner))
            b = products.to_bf16(normal(rng, n, inner))
            got = products.matmul_bf16(a, b, kernel=kernel, backend=backend)
            wide = products.from_bf16(a), products.from_bf16(b).T
            # tensor cores cut sums off where others round
            worst = max(worst, _product_miss(got, *wide, share=1e-5))
        return worst


_bf16("matmul_bf16", "auto")
_bf16("matmul_bf16 mma", "mma")


@_check("int4")
def _int4(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for inner, columns, groups in [(8, 8, 1), (256, 136, 2), (4096, 1024, 32), (512, 4096, 4)]:
        x = normal(rng, inner)
        for layout in ("awq", "gptq"):
            shape = (inner, columns // 8) if layout == "awq" else (inner // 8, columns)
            q = rng.integers(-(2**31), 2**31, shape).astype(np.int32)
            z = rng.integers(-(2**31), 2**31, (groups, columns // 8)).astype(np.int32)
            s = rng.uniform(0.001, 0.02, (groups, columns)).astype(np.float16)
            w = reference.weights.int4.dequantize_int4(q, z, s, layout)
            got = int4.dequantize_int4(q, z, s, layout=layout, backend=backend)
            worst = max(worst, miss_of(got, w, 1e-6, 1e-12))
            y = int4.int4_times_vector(x, q, z, s, layout=layout, backend=backend)
            worst = max(worst, _product_miss(y, x, w))
    return worst


def _blocks(rng: np.random.Generator, kind: str, rows: int, count: int) -> np.ndarray[Any, Any]:
    """Rows of GGUF blocks: any bits, but scales that are small numbers."""
    size = blocks.BLOCKS[kind].bytes
    made = rng.integers(0, 256, (rows, count, size)).astype(np.uint8)
    for at in {"q4_k": (0, 2), "q6_k": (208,)}.get(kind, (0,)):
        scales = rng.normal(0, 0.01, (rows, count, 1)).astype(np.float16)
        made[..., at : at + 2] = scales.view(np.uint8)
    return made.reshape(rows, count * size)


def _gguf(kind: str) -> None:
    @_check(f"gguf {kind}")
    def check(backend: Any, rng: np.random.Generator) -> float:
        numbers = blocks.BLOCKS[kind].numbers
        worst = 0.0
        for rows, inner in [(1, 256), (33, 1024), (300, 4096), (9, 14336)]:
            raw = _blocks(rng, kind, rows, inner // numbers)
            w = reference.weights.blocks.dequantize(raw, kind)
            got = getattr(blocks, f"dequantize_{kind}")(raw, backend=backend)
            if not np.array_equal(got.view(np.uint32), w.view(np.uint32)):
                return float("inf")
            for columns in (1, 2, 3, 8, 33):
                x = normal(rng, columns, inner)
                y = blocks.blocks_times_vector(x, raw, kind, backend=backend)  # type: ignore[arg-type]
                worst = max(worst, _product_miss(y, x, w.T))
        return worst


for _kind in blocks.BLOCKS:
    _gguf(_kind)


@_check("spin")
def _spin(backend: Any, rng: np.random.Generator) -> float:
    seeds = rng.integers(1, 2**32, 5000, dtype=np.uint32)
    got = synthetic_load.spin(seeds, 100, backend=backend)
    return 0.0 if np.array_equal(got, reference.synthetic_load.spin(seeds, 100)) else float("inf")


@_check("post")
def _post(backend: Any, rng: np.random.Generator) -> float:
    x = normal(rng, 5000)
    return miss_of(
        synthetic_load.post(x, 500, backend=backend),
        reference.synthetic_load.post(x, 500),
        2e-5,
        1e-5,
    )

"""One vector by a layer's packed weights: 4 bits as AWQ and GPTQ have them, and GGUF's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import llcuda_kernels as k
from tools.kernels_bench.beside.work import Run, Work, copies_for, made, turn
from tools.kernels_bench.clock import normals, random_words
from tools.kernels_bench.peers import as_torch, torch

LAYERS = ((4096, 14_336), (14_336, 4096))
GROUP = 128
_CACHE = 60e6


def int4(scale: float) -> Iterator[Work]:
    """The two large matrices of a layer, by AWQ and GPTQ; the others have their own layouts."""
    for inner, columns in LAYERS if scale >= 1 else ((1024, 1024),):
        groups = inner // GROUP
        size = inner * columns / 2
        copies = copies_for(size, _CACHE)
        x = normals(inner, 10)
        words = [
            random_words(inner * columns // 8, 11 + i).view(np.int32, (inner * columns // 8,))
            for i in range(copies)
        ]
        zeros = random_words(groups * columns // 8, 99).view(np.int32, (groups, columns // 8))
        scales = k.to_device(
            np.random.default_rng(5).uniform(0.001, 0.02, (groups, columns)).astype(np.float16)
        )
        others = {
            "torch int4pack": made(_int4pack, x, inner, columns, copies),
            "torch fp16": made(_fp16, x, inner, columns),
        }
        for layout in ("awq", "gptq"):
            shape = (inner, columns // 8) if layout == "awq" else (inner // 8, columns)
            weights = [w.view(np.int32, shape) for w in words]
            yield Work(
                f"int4 x vector, {layout}",
                f"{inner:,} x {columns:,}",
                partial(_ours, (x, weights, zeros, scales), layout),
                others,
                copies,
                size + groups * columns * 2.5,
            )


#: Bytes and numbers of a block, by GGUF's type.
BLOCKS = {"q4_0": (18, 32), "q8_0": (34, 32), "q4_k": (144, 256), "q6_k": (210, 256)}


def blocks(scale: float) -> Iterator[Work]:
    """GGUF's blocks, as llama.cpp serves them, beside the same layer in half precision."""
    for inner, columns in LAYERS if scale >= 1 else ((1024, 1024),):
        x = normals(inner, 10)
        others = {"torch fp16": made(_fp16, x, inner, columns)}
        for name, (size, numbers) in BLOCKS.items():
            width = inner // numbers * size
            copies = copies_for(float(width) * columns, _CACHE)
            # Random bytes hold scales that are not finite, and no instruction cares.
            words = width * columns // 4
            packed = [
                random_words(words, 80 + i).view(np.uint8, (columns, width)) for i in range(copies)
            ]
            yield Work(
                f"GGUF {name} x vector",
                f"{inner:,} x {columns:,}",
                turn(_times, (x, name), packed),
                others,
                copies,
                float(width) * columns,
            )


def _times(given: Any, packed: Any) -> Any:
    x, name = given
    return k.blocks_times_vector(x, packed, name)


def _ours(given: Any, layout: Any, i: int) -> Any:
    x, weights, zeros, scales = given
    return k.int4_times_vector(x, weights[i], zeros, scales, layout=layout)


def _int4pack(x: Any, inner: int, columns: int, copies: int) -> Run:
    ops = torch.ops.aten
    half = as_torch(x).to(torch.bfloat16)[None]
    packed = [
        ops._convert_weight_to_int4pack(
            torch.randint(0, 256, (columns, inner // 2), dtype=torch.uint8, device="cuda"), 8
        )
        for _ in range(copies)
    ]
    scales = torch.rand(inner // GROUP, columns, 2, device="cuda").to(torch.bfloat16)
    return lambda i: ops._weight_int4pack_mm(half, packed[i], GROUP, scales)


def _fp16(x: Any, inner: int, columns: int) -> Run:
    half = as_torch(x).to(torch.float16)[None]
    copies = copies_for(2.0 * inner * columns, _CACHE)
    weights = [
        torch.randn(columns, inner, device="cuda", dtype=torch.float16) for _ in range(copies)
    ]
    return lambda i: torch.nn.functional.linear(half, weights[i % copies])

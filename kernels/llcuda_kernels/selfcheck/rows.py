"""Number by number, and row by row: activations, norms and int8 codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from llcuda_kernels import elementwise, embeddings, norms, planes, reference

from .check import Check, greatest, into, miss_of, normal, odd

CHECKS: dict[str, Check] = {}
_check = into(CHECKS)


def _unary(name: str, run_: Any, truth: Any) -> None:
    @_check(name)
    def check(backend: Any, rng: np.random.Generator) -> float:
        worst = 0.0
        for x in (*(normal(rng, n) * 3 for n in (1, 31, 4096, 70_001)), odd(rng, 33)):
            worst = max(worst, miss_of(run_(x, backend=backend), truth(x), 1e-5, 3e-6))
        return worst


_unary("relu", elementwise.relu, reference.elementwise.relu)
_unary("gelu tanh", elementwise.gelu, reference.elementwise.gelu)
_unary(
    "gelu erf",
    lambda x, backend: elementwise.gelu(x, "erf", backend=backend),
    lambda x: reference.elementwise.gelu(x, "erf"),
)
_unary("silu", elementwise.silu, reference.elementwise.silu)


@_check("vector_add")
def _vector_add(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for n in (1, 4095, 70_001):
        a, b = normal(rng, n), normal(rng, n)
        got = elementwise.vector_add(a, b, backend=backend)
        worst = max(worst, miss_of(got, a.astype(np.float64) + b, 1e-7, 1e-9))
    return worst


def _rows(rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    lengths = (1, 7, 64, 768, 1024, 1028, 4096, 12_000, 12_001, 40_000)
    return [*(normal(rng, 9, n) * 3 for n in lengths), odd(rng, 64), odd(rng, 1999)]


@_check("softmax")
def _softmax(backend: Any, rng: np.random.Generator) -> float:
    return max(
        miss_of(norms.softmax(x, backend=backend), reference.norms.softmax(x), 2e-5, 1e-9)
        for x in _rows(rng)
    )


@_check("rms_norm")
def _rms_norm(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for x in _rows(rng):
        w = normal(rng, x.shape[1])
        got = norms.rms_norm(x, backend=backend)
        worst = max(worst, miss_of(got, reference.norms.rms_norm(x), 1e-5, 1e-6))
        got = norms.rms_norm(x, w, eps=1e-3, backend=backend)
        worst = max(worst, miss_of(got, reference.norms.rms_norm(x, w, 1e-3), 2e-5, 1e-6))
    return worst


@_check("l2_normalize")
def _l2_normalize(backend: Any, rng: np.random.Generator) -> float:
    return max(
        miss_of(
            embeddings.l2_normalize(x, backend=backend), reference.norms.l2_normalize(x), 1e-5, 1e-7
        )
        for x in _rows(rng)
    )


def _codes_miss(x: Any, codes: Any, scales: Any, truth: Any) -> float:
    exact, _ = reference.quantize.exact_codes(x)
    slack = greatest(np.abs(codes - exact), 0.5 + 1e-4)
    return max(slack, miss_of(scales, truth(x)[1], 1e-5, 1e-44))


@_check("quantize_int8")
def _quantize(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for x in _rows(rng):
        codes, scales = embeddings.quantize_int8(x, backend=backend)
        worst = max(worst, _codes_miss(x, codes, scales, reference.quantize.quantize_int8))
        back = embeddings.dequantize_int8(codes, scales, backend=backend)
        want = reference.quantize.dequantize_int8(codes, scales)
        worst = max(worst, miss_of(back, want, 1e-6, 1e-44))
    return worst


@_check("normalize_quantize")
def _normalize_quantize(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for x in _rows(rng):
        codes, scales = embeddings.normalize_quantize(x, backend=backend)
        worst = max(worst, _codes_miss(x, codes, scales, reference.quantize.normalize_quantize))
    return worst


@_check("planes")
def _planes(backend: Any, rng: np.random.Generator) -> float:
    """Equal, or not; whole tiles and cut ones, planes that begin at any byte."""
    for fields in ((1, 1), (1, 1, 32), (1, 1, 16), (1, 1, 4, 16), (2, 3, 5), (1,) * 384, (1024,)):
        size = sum(fields)
        for blocks, rest in ((0, size - 1), (1, 0), (17, 1), (16_384 // size * 16, 0), (4099, 0)):
            data = rng.integers(0, 256, blocks * size + rest, dtype=np.uint8)
            found = planes.split_planes(data, fields, backend=backend)
            back = planes.join_planes(found, fields, backend=backend)
            same = np.array_equal(found, reference.planes.split_planes(data, fields))
            if not (same and np.array_equal(back, data)):
                return float("inf")
    return 0.0

"""Every operation on this machine, checked against its reference: for doctors and benchmarks.

A check draws fresh inputs (with outliers, odd sizes, NaN and infinity where they are allowed), runs
the operation on one backend and says by how much it missed, as a share of what is allowed: above 1
it failed. NaN in the wrong place is infinitely wrong. On a device, memory is filled with NaN first,
so that nothing passes that was not written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import (
    elementwise,
    embeddings,
    norms,
    products,
    reference,
    search,
    synthetic_load,
    tokens,
    weights,
)
from .errors import BackendError
from .runtime.backend import Backend
from .vectors import VectorStore

Check = Callable[[Any, np.random.Generator], float]
_CHECKS: dict[str, Check] = {}


@dataclass(frozen=True)
class Outcome:
    """Of one operation. `miss`: share of the error that is allowed. `reason`: why not passed."""

    name: str
    backend: str
    passed: bool
    miss: float
    seconds: float
    reason: str = ""


def names() -> list[str]:
    """The operations that there are checks for."""
    return list(_CHECKS)


def run(name: str, backend: Backend, seed: int | None = None) -> Outcome:
    """Run one check; errors of the machine become an outcome, not an exception."""
    start = time.perf_counter()
    miss, reason = float("inf"), ""
    try:
        if backend == "cuda":
            _poison()
        miss = float(_CHECKS[name](backend, np.random.default_rng(seed)))
        if not miss <= 1:
            reason = f"misses the reference by {miss:.3g} times what is allowed"
    except BackendError as error:
        reason = str(error)
    except Exception as error:  # whatever a driver or compiler raises
        first = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first}"
    return Outcome(name, backend, miss <= 1, miss, time.perf_counter() - start, reason)


def _poison() -> None:
    """Leave NaN in the memory that the next arrays will be made of."""
    from .runtime.device import gpu

    if not gpu().usable:
        return
    from .cuda.runtime import driver
    from .cuda.runtime.array import empty

    block = empty((1 << 26,), np.uint8)
    driver.fill(block.address, 0xFF, block.nbytes)


def miss_of(got: Any, want: Any, rtol: float, atol: float) -> float:
    """The greatest ``|got - want| / (atol + rtol |want|)``; infinite where NaN or inf differ."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        same = (got == want.astype(np.float32)) | (np.isnan(got) & np.isnan(want))
        miss = np.where(same, 0.0, np.abs(got - want) / (atol + rtol * np.abs(want)))
    miss = np.where(np.isnan(miss), np.inf, miss)
    return float(miss.max(initial=0.0))


def _check(name: str) -> Callable[[Check], Check]:
    def keep(function: Check) -> Check:
        _CHECKS[name] = function
        return function

    return keep


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    x = rng.standard_normal(shape).astype(np.float32)
    if x.size > 8:
        x.reshape(-1)[rng.integers(0, x.size, max(1, x.size // 500))] *= 30
    return x


def _odd(rng: np.random.Generator, length: int) -> np.ndarray[Any, Any]:
    x = _normal(rng, 8, length)
    big = np.finfo(np.float32).max
    x[0], x[1], x[2], x[3], x[4] = 0, np.nan, np.inf, big, -big
    x[5, -1], x[6, 0] = np.nan, -np.inf
    return x


def _unary(name: str, run_: Any, truth: Any) -> None:
    @_check(name)
    def check(backend: Any, rng: np.random.Generator) -> float:
        worst = 0.0
        for x in (*(_normal(rng, n) * 3 for n in (1, 31, 4096, 70_001)), _odd(rng, 33)):
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
        a, b = _normal(rng, n), _normal(rng, n)
        got = elementwise.vector_add(a, b, backend=backend)
        worst = max(worst, miss_of(got, a.astype(np.float64) + b, 1e-7, 1e-9))
    return worst


def _rows(rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    lengths = (1, 7, 64, 768, 1024, 1028, 4096, 12_000, 12_001, 40_000)
    return [*(_normal(rng, 9, n) * 3 for n in lengths), _odd(rng, 64), _odd(rng, 1999)]


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
        w = _normal(rng, x.shape[1])
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
    slack = np.abs(codes - exact).max(initial=0.0) / (0.5 + 1e-4)
    return max(float(slack), miss_of(scales, truth(x)[1], 1e-5, 1e-44))


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


@_check("token_statistics")
def _tokens(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    cases = [(3, 1, 1), (5, 1000, 0), (4, 32_003, 10), (9, 128_256, 20), (2, 50_000, 1024)]
    rows = [(_normal(rng, m, n) * 3, k) for m, n, k in cases]
    rows.append((np.sort(_normal(rng, 2, 40_000), axis=1), 50))
    rows.append((_odd(rng, 9000), 5))
    rows.append((np.full((2, 30_000), 1.5, np.float32), 20))
    for x, k in rows:
        chosen = rng.integers(0, x.shape[1], x.shape[0])
        got = tokens.token_statistics(x, chosen, k=k, backend=backend)
        want = reference.tokens.token_statistics(x, chosen, k)
        worst = max(
            worst,
            miss_of(got.log_sum_exp, want.log_sum_exp, 3e-6, 3e-6),
            miss_of(got.entropy, want.entropy, 3e-5, 3e-5),
            miss_of(got.perplexity, want.perplexity, 1e-4, 1e-5),
            miss_of(got.surprisal, want.surprisal, 1e-5, 1e-5),
            miss_of(got.top_values, want.top_values, 0.0, 1e-30),
            0.0 if np.array_equal(got.top_indices, want.top_indices) else float("inf"),
        )
    return worst


@_check("list_statistics")
def _lists(backend: Any, rng: np.random.Generator) -> float:
    x = np.log(rng.dirichlet(np.ones(60), 500)).astype(np.float32)[:, :20]
    x[3], x[4, 9:], x[5, 1], x[6, 2] = -np.inf, -np.inf, np.nan, np.inf
    chosen = _normal(rng, 500)
    got = tokens.list_statistics(x, chosen, backend=backend)
    entropy, perplexity, surprisal = reference.tokens.list_statistics(x, chosen)
    return max(
        miss_of(got.entropy, entropy, 1e-5, 1e-5),
        miss_of(got.perplexity, perplexity, 1e-4, 1e-5),
        miss_of(got.surprisal, surprisal, 1e-6, 1e-9),
    )


def topk_miss(values: Any, rows: Any, scores: Any, k: int, allowed: float) -> float:
    """How far a top-k is from the true one: in its values, and in the scores of its rows."""
    want, _ = reference.search.best(scores, k)
    miss = miss_of(values, want, 0.0, allowed)
    for q in range(scores.shape[0]):
        found = rows[q][rows[q] >= 0]
        if len(set(found.tolist())) != min(k, int((~np.isnan(scores[q])).sum())):
            return float("inf")
        miss = max(miss, miss_of(values[q, : found.size], scores[q, found], 0.0, allowed))
    return miss


@_check("cosine_topk int8")
def _topk_int8(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    cases = [(1, 1, 1, 1), (1000, 33, 3, 10), (50_000, 768, 1, 10), (20_000, 384, 33, 100)]
    for n, dim, q, k in [*cases, (30_000, 64, 2, 1024), (3000, 3, 9, 128)]:
        v = rng.integers(-127, 128, (n, dim)).astype(np.int8)
        queries = rng.integers(-127, 128, (q, dim)).astype(np.int8)
        values, rows = search.cosine_topk(queries, v, k, backend=backend)
        scores = reference.search.cosine_scores(queries, v)
        worst = max(worst, topk_miss(values, rows, scores, k, 3e-6))
    return worst


@_check("cosine_topk float32")
def _topk_float32(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for n, dim, q, k in [
        (1, 1, 1, 1),
        (1000, 33, 3, 10),
        (20_000, 384, 9, 100),
        (5000, 9, 2, 1024),
    ]:
        v, queries = _normal(rng, n, dim), _normal(rng, q, dim)
        values, rows = search.cosine_topk(queries, v, k, backend=backend)
        scores = reference.search.cosine_scores(queries, v)
        worst = max(worst, topk_miss(values, rows, scores, k, 5e-6))
    x = _odd(rng, 19)
    values, rows = search.cosine_topk(x, x, 8, backend=backend)
    return max(worst, topk_miss(values, rows, reference.search.cosine_scores(x, x), 8, 5e-6))


@_check("VectorStore")
def _store(backend: Any, rng: np.random.Generator) -> float:
    store = VectorStore(100, backend=backend)
    x = _normal(rng, 9000, 100)
    for start in range(0, 9000, 1700):
        store.append(x[start : start + 1700])
    store.discard(5)
    codes, scales = store.arrays()
    known = np.where(np.isnan(scales)[:, None], np.float32(np.nan), codes.astype(np.float32))
    queries = embeddings.normalize_quantize(x[:3], backend="cpu")[0]
    values, rows = store.search(x[:3], 20)
    scores = reference.search.cosine_scores(queries.astype(np.float32), known)
    return topk_miss(values, rows, scores, 20, 3e-6)


_SHAPES = [(1, 1, 1), (17, 33, 5), (128, 128, 64), (300, 200, 100), (257, 129, 1000)]


def _product_miss(got: Any, a: Any, b: Any, share: float = 2e-6) -> float:
    """By the share of ``Σ |a| |b|`` that is allowed: rounding is in proportion to it."""
    want = reference.products.matmul(a, b)
    scale = reference.products.matmul(np.abs(a), np.abs(b))
    miss = np.abs(got - want) / (scale * share + 1e-6)
    return float(np.where(np.isnan(miss), np.inf, miss).max(initial=0.0))


def _matmul(name: str, run_: Any) -> None:
    @_check(name)
    def check(backend: Any, rng: np.random.Generator) -> float:
        worst = 0.0
        for m, n, inner in _SHAPES:
            a, b = _normal(rng, m, inner), _normal(rng, inner, n)
            worst = max(worst, _product_miss(run_(a, b, backend=backend), a, b))
        return worst


_matmul(
    "matmul tiled", lambda a, b, backend: products.matmul(a, b, kernel="tiled", backend=backend)
)
_matmul("matmul fast", products.matmul)
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


_int8("dp4a")
_int8("mma")


@_check("paths of older GPUs")
def _older(backend: Any, rng: np.random.Generator) -> float:
    """What runs without dp4a and without tensor cores; on the CPU there is nothing else."""
    a = rng.integers(-128, 128, (70, 90)).astype(np.int8)
    b = rng.integers(-127, 128, (3000, 90)).astype(np.int8)
    p, q = products.to_bf16(_normal(rng, 40, 50)), products.to_bf16(_normal(rng, 60, 50))
    with _as_if(backend, (5, 0)):
        whole = products.matmul_int8(a, b, backend=backend)
        wide = products.matmul_bf16(p, q, backend=backend)
        values, rows = search.cosine_topk(a[:9], b, 20, backend=backend)
    miss = topk_miss(values, rows, reference.search.cosine_scores(a[:9], b), 20, 3e-6)
    if not np.array_equal(whole, reference.products.matmul_int8(a, b)):
        return float("inf")
    return max(miss, _product_miss(wide, products.from_bf16(p), products.from_bf16(q).T))


@contextmanager
def _as_if(backend: str, capability: tuple[int, int]) -> Iterator[None]:
    """Let this device pass for an older one."""
    if backend != "cuda":
        yield
        return
    from .cuda.runtime import driver

    found = driver.compute_capability
    driver.compute_capability = lambda: capability
    try:
        yield
    finally:
        driver.compute_capability = found


@_check("matmul_bf16")
def _bf16(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for m, n, inner in _SHAPES:
        a = products.to_bf16(_normal(rng, m, inner))
        b = products.to_bf16(_normal(rng, n, inner))
        got = products.matmul_bf16(a, b, backend=backend)
        wide = products.from_bf16(a), products.from_bf16(b).T
        # tensor cores cut sums off where others round
        worst = max(worst, _product_miss(got, *wide, share=1e-5))
    return worst


@_check("int4")
def _int4(backend: Any, rng: np.random.Generator) -> float:
    worst = 0.0
    for inner, columns, groups in [(8, 8, 1), (256, 136, 2), (4096, 1024, 32), (512, 4096, 4)]:
        x = _normal(rng, inner)
        for layout in ("awq", "gptq"):
            shape = (inner, columns // 8) if layout == "awq" else (inner // 8, columns)
            q = rng.integers(-(2**31), 2**31, shape).astype(np.int32)
            z = rng.integers(-(2**31), 2**31, (groups, columns // 8)).astype(np.int32)
            s = rng.uniform(0.001, 0.02, (groups, columns)).astype(np.float16)
            w = reference.weights.dequantize_int4(q, z, s, layout)
            got = weights.dequantize_int4(q, z, s, layout=layout, backend=backend)
            worst = max(worst, miss_of(got, w, 1e-6, 1e-12))
            y = weights.int4_times_vector(x, q, z, s, layout=layout, backend=backend)
            worst = max(worst, _product_miss(y, x, w))
    return worst


@_check("spin")
def _spin(backend: Any, rng: np.random.Generator) -> float:
    seeds = rng.integers(1, 2**32, 5000, dtype=np.uint32)
    got = synthetic_load.spin(seeds, 100, backend=backend)
    return 0.0 if np.array_equal(got, reference.synthetic_load.spin(seeds, 100)) else float("inf")


@_check("post")
def _post(backend: Any, rng: np.random.Generator) -> float:
    x = _normal(rng, 5000)
    return miss_of(
        synthetic_load.post(x, 500, backend=backend),
        reference.synthetic_load.post(x, 500),
        2e-5,
        1e-5,
    )

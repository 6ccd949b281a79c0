"""The CPU paths beside NumPy, simsimd and usearch, where they are installed."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import llcuda_kernels as k
from llcuda_kernels.cpu.jit import threads

RUNS = 9


def _times(runs: dict[str, Callable[..., Any]]) -> dict[str, float]:
    """Milliseconds, the median of each; they take turns, so that a busy machine hits all alike."""
    for run in runs.values():
        run()
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(RUNS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            took[name].append((time.perf_counter() - start) * 1e3)
    return {f"{name}_ms": statistics.median(each) for name, each in took.items()}


def _there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _numpy_statistics(x: Any, top: int) -> Any:
    """As one would write it."""
    m = x.max(axis=1, keepdims=True)
    e = np.exp(x - m)
    s = e.sum(axis=1)
    lse = m[:, 0] + np.log(s)
    entropy = lse - (e * x).sum(axis=1) / s
    found = np.argpartition(x, -top, axis=1)[:, -top:] if top else None
    return lse, entropy, found


def measure(scale: float) -> dict[str, dict[str, float]]:
    """Medians by what was measured."""
    rng = np.random.default_rng(0)
    figures: dict[str, dict[str, float]] = {"threads": {"count": float(threads())}}
    n, dim = int(500_000 * scale) or 1000, 768
    codes = rng.integers(-127, 128, (n, dim), dtype=np.int8)
    known = k.inverse_norms(codes)
    for queries in (1, 32):
        q = codes[:queries].copy()
        runs: dict[str, Callable[..., Any]] = {
            "llcuda": lambda q=q: k.cosine_topk(q, codes, 10, inverse_norms=known, backend="cpu")
        }
        if _there("simsimd"):
            import simsimd

            runs["simsimd_dot"] = lambda q=q: simsimd.cdist(
                q, codes, metric="dot", threads=threads()
            )
        if _there("usearch"):
            from usearch.index import search

            runs["usearch_exact"] = lambda q=q: search(
                codes, q, 10, "cos", exact=True, threads=threads()
            )
        figures[f"int8 top-k, {n:,} by {dim}, {queries} queries"] = _times(runs)
    rows = int(64 * scale) or 4
    x = rng.standard_normal((rows, 128_256), dtype=np.float32)
    for top in (0, 20):
        figures[f"token statistics, {rows} by 128,256, k = {top}"] = _times(
            {
                "llcuda": lambda top=top: k.token_statistics(x, k=top, backend="cpu"),
                "numpy": lambda top=top: _numpy_statistics(x, top),
            }
        )
    e = rng.standard_normal((int(100_000 * scale) or 1000, dim), dtype=np.float32)
    figures[f"normalise and quantise, {e.shape[0]:,} by {dim}"] = _times(
        {
            "llcuda": lambda: k.normalize_quantize(e, backend="cpu"),
            "numpy": lambda: _numpy_codes(e),
        }
    )
    return figures


def _numpy_codes(x: Any) -> Any:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    scale = np.abs(unit).max(axis=1, keepdims=True) / 127
    return np.rint(unit / scale).astype(np.int8), scale

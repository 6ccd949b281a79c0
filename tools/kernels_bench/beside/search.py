"""The exact nearest, in one array and in a store that has grown."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

import llcuda_kernels as k
from tools.kernels_bench.beside.work import Run, Work, call, made, on_host
from tools.kernels_bench.clock import normals, part_of, random_words
from tools.kernels_bench.peers import as_torch, cupy, torch

DIM, BEST = 768, 10


def _same_best(ours: Any, theirs: Any) -> bool:
    """Whether the best scores agree; rows of equal scores may differ."""
    a, b = on_host(ours[0]).astype(np.float64), on_host(theirs[0]).astype(np.float64)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-5))


def _queries(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).integers(-127, 128, (count, DIM)).astype(np.int8)


def codes(scale: float) -> Iterator[Work]:
    """Int8 codes, ten million of them."""
    n = int(10_000_000 * scale)
    rows = random_words(n * DIM // 4, 7).view(np.int8, (n, DIM))
    inverse = k.inverse_norms(rows)
    trows, tinverse = as_torch(rows), as_torch(inverse)
    for count in (1, 32):
        queries = k.to_device(_queries(count))
        # _int_mm takes no fewer than 17 rows
        wide = torch.zeros(max(32, count), DIM, dtype=torch.int8, device="cuda")
        wide[:count] = as_torch(queries)
        tinverse_q = as_torch(k.inverse_norms(queries))[:, None]

        def by_torch(i: int, wide: Any = wide, inv: Any = tinverse_q, count: int = count) -> Any:
            dots = torch._int_mm(wide, trows.T)[:count]
            return torch.topk(dots.float() * inv * tinverse, BEST)

        yield Work(
            f"int8 top-k, {count} queries",
            f"{n / 1e6:g} M x {DIM}",
            call(k.cosine_topk, queries, rows, BEST, inverse_norms=inverse),
            {"torch _int_mm + topk": by_torch},
            bytes=float(n) * DIM,
            check=_same_best,
        )


def floats(scale: float) -> Iterator[Work]:
    """Float32 vectors; the others keep unit rows, and ours the inverse norms."""
    n = int(2_000_000 * scale)
    rows = normals(n * DIM, 8).reshape(n, DIM)
    inverse = k.inverse_norms(rows)
    unit = torch.nn.functional.normalize(as_torch(rows), dim=-1)
    for count in (1, 32):
        queries = normals(count * DIM, 9 + count).reshape(count, DIM)
        tq = torch.nn.functional.normalize(as_torch(queries), dim=-1)
        others: dict[str, Run] = {
            "torch, unit rows": call(_by_torch, unit, tq),
        }
        if cupy is not None:
            others["cupy, unit rows"] = made(_by_cupy, unit, tq)
        if importlib.util.find_spec("cuvs") is not None:
            others["cuVS brute_force"] = made(_by_cuvs, unit, tq)
        yield Work(
            f"float32 cosine_topk, {count} queries",
            f"{n / 1e6:g} M x {DIM}",
            call(k.cosine_topk, queries, rows, BEST, inverse_norms=inverse),
            others,
            bytes=4.0 * n * DIM,
            check=_same_best,
        )


def _by_torch(unit: Any, queries: Any) -> Any:
    return torch.topk(queries @ unit.T, BEST)


def _by_cupy(unit: Any, queries: Any) -> Run:
    unit, queries = cupy.from_dlpack(unit), cupy.from_dlpack(queries)

    def run(i: int) -> Any:
        scores = queries @ unit.T
        best = cupy.argpartition(scores, -BEST, axis=1)[:, -BEST:]
        values = cupy.take_along_axis(scores, best, axis=1)
        order = cupy.argsort(-values, axis=1)
        return (
            cupy.take_along_axis(values, order, axis=1),
            cupy.take_along_axis(best, order, axis=1),
        )

    return run


def _by_cuvs(unit: Any, queries: Any) -> Run:
    from cuvs.neighbors import brute_force

    index = brute_force.build(unit, metric="inner_product")

    def run(i: int) -> Any:
        distances, rows = brute_force.search(index, queries, BEST)
        return torch.as_tensor(distances, device="cuda"), torch.as_tensor(rows, device="cuda")

    return run


def store(scale: float) -> Iterator[Work]:
    """A `VectorStore` that has grown, beside one array searched in one launch; whole calls."""
    n, part = int(4_000_000 * scale), 1 << 19
    rows = random_words(n * DIM // 4, 7).view(np.int8, (n, DIM))
    inverse = k.inverse_norms(rows)
    grown = k.VectorStore(DIM, backend="cuda")
    for start in range(0, n, part):
        count = min(part, n - start)
        block = k.to_host(part_of(rows, start * DIM, (count, DIM)))
        grown.append_codes(block, np.ones(count, np.float32))
    for count in (1, 32):
        queries = _queries(count)

        def in_one(i: int, queries: Any = queries) -> Any:
            found = k.cosine_topk(k.to_device(queries), rows, BEST, inverse_norms=inverse)
            return k.to_host(found[0]), k.to_host(found[1])

        yield Work(
            f"VectorStore.search, {count} queries",
            f"{n / 1e6:g} M x {DIM}",
            call(grown.search, queries, BEST),
            {"one array, one launch": in_one},
            bytes=float(n) * DIM,
            host=True,
            check=_same_best,
        )

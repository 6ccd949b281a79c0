"""Every operation with inputs of any size, what it gives by the reference, and how near that is.

`OPERATIONS` is the table. `made` draws inputs for a dimension and a number of rows or queries; each
operation takes them by name, in whatever kind, and what comes back is compared in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import llcuda_kernels as k
from llcuda_kernels import reference, selfcheck

DIMENSIONS = (1, 768, 1023, 1024, 1025, 1536, 4096, 5120, 8192)
ROWS = (0, 1, 2, 33)

Inputs = dict[str, Any]
#: What was allowed to be missed, as shares: 1 is the limit.
Miss = float


@dataclass(frozen=True)
class Operation:
    """One line of the table.

    Attributes:
        make: inputs as NumPy arrays, for a generator, a dimension and a number of rows.
        run: the operation on these inputs, in the kind they were given, and on a backend.
        truth: what the reference says of them.
        miss: by how much results, as NumPy arrays, miss it.
    """

    make: Callable[[np.random.Generator, int, int], Inputs]
    run: Callable[[Inputs, Any], Any]
    truth: Callable[[Inputs], Any]
    miss: Callable[[Any, Any], Miss]


def made(name: str, dim: int, rows: int) -> Inputs:
    """The inputs of an operation: always the same for the same question."""
    seed = [dim, rows, *name.encode()]
    return OPERATIONS[name].make(np.random.default_rng(seed), dim, rows)


def parts(results: Any) -> list[Any]:
    """The arrays of what an operation gave back."""
    if isinstance(results, k.TokenStatistics | k.ListStatistics):
        return list(vars(results).values())
    return list(results) if isinstance(results, tuple) else [results]


def _near(rtol: float, atol: float) -> Callable[[Any, Any], Miss]:
    def miss(got: Any, want: Any) -> Miss:
        pairs = zip(got, want, strict=True)
        return max(selfcheck.miss_of(g, w, rtol, atol) for g, w in pairs)

    return miss


def _in_proportion(share: float) -> Callable[[Any, Any], Miss]:
    """Of a product: the truth comes with ``Σ |a| |b|``, which rounding is in proportion to."""

    def miss(got: Any, want: Any) -> Miss:
        (result,), (truth, scale) = got, want
        if result.shape != truth.shape:
            return float("inf")
        error = np.abs(np.asarray(result, np.float64) - truth)
        return float((error / (scale * share + 1e-30)).max(initial=0.0))

    return miss


def _codes(got: Any, want: Any) -> Miss:
    (codes, scales), (exact, wanted) = got, want
    if codes.shape != exact.shape:
        return float("inf")
    off = float(np.abs(codes - exact).max(initial=0.0)) / (0.5 + 1e-4)
    return max(off, selfcheck.miss_of(scales, wanted, 1e-5, 1e-44))


def _topk(got: Any, want: Any) -> Miss:
    (values, rows), (scores, best) = got, want
    if values.shape != (scores.shape[0], best):
        return float("inf")
    return selfcheck.topk_miss(values, rows, scores, best, 5e-6)


def _x(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
    return {"x": rng.standard_normal((rows, dim)).astype(np.float32)}


def _unary(name: str, form: str | None = None) -> Operation:
    more = {} if form is None else {"form": form}
    return Operation(
        _x,
        lambda a, backend: getattr(k, name)(a["x"], **more, backend=backend),
        lambda a: [getattr(reference.elementwise, name)(a["x"], **more)],
        _near(1e-5, 3e-6),
    )


def _two(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
    return {"a": _x(rng, dim, rows)["x"], "b": _x(rng, dim, rows)["x"]}


def _weighted(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
    return {**_x(rng, dim, rows), "weight": rng.standard_normal(dim).astype(np.float32)}


def _coded(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
    codes = rng.integers(-127, 128, (rows, dim)).astype(np.int8)
    return {"codes": codes, "scales": rng.uniform(0.1, 1, rows).astype(np.float32)}


def _searched(kind: Any) -> Callable[[np.random.Generator, int, int], Inputs]:
    def make(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
        if kind == np.int8:
            v = rng.integers(-127, 128, (300, dim)).astype(np.int8)
            return {"queries": rng.integers(-127, 128, (rows, dim)).astype(np.int8), "vectors": v}
        v = rng.standard_normal((300, dim)).astype(np.float32)
        return {"queries": rng.standard_normal((rows, dim)).astype(np.float32), "vectors": v}

    return make


def _search(kind: Any, best: int) -> Operation:
    return Operation(
        _searched(kind),
        lambda a, backend: k.cosine_topk(a["queries"], a["vectors"], best, backend=backend),
        lambda a: (reference.search.cosine_scores(a["queries"], a["vectors"]), best),
        _topk,
    )


def _store(a: Inputs, backend: Any) -> Any:
    store = k.VectorStore(k.to_host(a["vectors"]).shape[1], backend=backend)
    store.append(a["vectors"])
    return store.search(a["queries"], 7)


def _store_truth(a: Inputs) -> Any:
    codes = [k.normalize_quantize(a[name], backend="cpu")[0] for name in ("queries", "vectors")]
    return reference.search.cosine_scores(*codes), 7


def _logits(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
    chosen = rng.integers(-1, dim + 1, rows)  # none, and beyond the last
    return {"values": 3 * _x(rng, dim, rows)["x"], "chosen": chosen}


def _statistics(best: int) -> Operation:
    def truth(a: Inputs) -> Any:
        return list(
            vars(reference.tokens.token_statistics(a["values"], a["chosen"], best)).values()
        )

    def miss(got: Any, want: Any) -> Miss:
        same = np.array_equal(got[5], want[5])
        return max(_near(1e-4, 3e-5)(got[:5], want[:5]), 0.0 if same else float("inf"))

    return Operation(
        _logits,
        lambda a, backend: k.token_statistics(a["values"], a["chosen"], k=best, backend=backend),
        truth,
        miss,
    )


def _lists(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
    p = rng.dirichlet(np.ones(dim + 1), rows)[:, :dim] if rows else np.empty((0, dim))
    with np.errstate(divide="ignore"):
        x = np.log(p).astype(np.float32)
    return {"logprobs": x, "chosen_logprob": -rng.exponential(1, rows).astype(np.float32)}


def _factors(kind: Any, down: bool) -> Callable[[np.random.Generator, int, int], Inputs]:
    """(rows, dim) and 40 columns of as many; `down`: stored as (dim, 40)."""

    def make(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
        shape = (dim, 40) if down else (40, dim)
        found: list[Any] = [rng.standard_normal(s).astype(np.float32) for s in ((rows, dim), shape)]
        if kind == np.int8:
            found = [rng.integers(-128, 128, x.shape).astype(np.int8) for x in found]
        if kind == np.uint16:
            found = [k.to_bf16(x) for x in found]
        return {"a": found[0], "b": found[1]}

    return make


def _product_truth(a: Any, b: Any) -> Any:
    return reference.products.matmul(a, b), reference.products.matmul(np.abs(a), np.abs(b))


def _product(run: Callable[[Inputs, Any], Any]) -> Operation:
    return Operation(
        _factors(np.float32, True),
        run,
        lambda a: _product_truth(a["a"], a["b"]),
        _in_proportion(4e-6),
    )


def _int8(kernel: str) -> Operation:
    return Operation(
        _factors(np.int8, False),
        lambda a, backend: k.matmul_int8(a["a"], a["b"], kernel=kernel, backend=backend),
        lambda a: [reference.products.matmul_int8(a["a"], a["b"])],
        lambda got, want: 0.0 if np.array_equal(got[0], want[0]) else float("inf"),
    )


def _weights(layout: str, vector: bool) -> Operation:
    def make(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
        inner, columns = -(-dim // 8) * 8, 8 * rows
        groups = 2 if inner % 16 == 0 else 1
        words = (inner, rows) if layout == "awq" else (inner // 8, columns)
        found = {
            "qweight": rng.integers(-(2**31), 2**31, words).astype(np.int32),
            "qzeros": rng.integers(-(2**31), 2**31, (groups, rows)).astype(np.int32),
            "scales": rng.uniform(0.001, 0.02, (groups, columns)).astype(np.float16),
        }
        return {"x": rng.standard_normal(inner).astype(np.float32), **found} if vector else found

    def weights(a: Inputs) -> Any:
        return reference.weights.int4.dequantize_int4(
            a["qweight"], a["qzeros"], a["scales"], layout
        )

    if vector:
        return Operation(
            make,
            lambda a, backend: k.int4_times_vector(**a, layout=layout, backend=backend),  # type: ignore[arg-type]
            lambda a: _product_truth(a["x"], weights(a)),
            _in_proportion(4e-6),
        )
    return Operation(
        make,
        lambda a, backend: k.dequantize_int4(**a, layout=layout, backend=backend),  # type: ignore[arg-type]
        lambda a: [weights(a)],
        _near(1e-6, 1e-12),
    )


def _blocks(kind: str, vector: bool) -> Operation:
    """Rows of GGUF blocks: any bits, but scales that are small numbers."""
    numbers, size = {"q4_0": (32, 18), "q8_0": (32, 34), "q4_k": (256, 144), "q6_k": (256, 210)}[
        kind
    ]
    scales = {"q4_k": (0, 2), "q6_k": (208,)}.get(kind, (0,))

    def make(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
        count = -(-dim // numbers)
        blocks = rng.integers(0, 256, (rows, count, size)).astype(np.uint8)
        for at in scales:
            d = rng.uniform(0.001, 0.02, (rows, count)).astype("<f2")
            blocks[:, :, at : at + 2] = d[..., None].view(np.uint8)
        found: Inputs = {"blocks": blocks.reshape(rows, count * size)}
        if vector:
            found["x"] = rng.standard_normal((3, count * numbers)).astype(np.float32)
        return found

    def whole(a: Inputs) -> Any:
        return reference.weights.blocks.dequantize(a["blocks"], kind)

    if vector:
        return Operation(
            make,
            lambda a, backend: k.blocks_times_vector(a["x"], a["blocks"], kind, backend=backend),  # type: ignore[arg-type]
            lambda a: _product_truth(a["x"], whole(a).T),
            _in_proportion(4e-6),
        )
    return Operation(
        make,
        lambda a, backend: getattr(k, f"dequantize_{kind}")(a["blocks"], backend=backend),
        lambda a: [whole(a)],
        lambda got, want: 0.0 if np.array_equal(got[0], want[0]) else float("inf"),
    )


def _sampled(a: Inputs) -> Any:
    found = reference.tokens.token_statistics(a["values"], None, 40)
    settings = {"temperature": 0.8, "top_p": 0.95, "min_p": 0.05, "seed": 3}
    best = found.top_values.astype(np.float32)
    places = reference.sampling.sample(best, **settings)  # type: ignore[arg-type]
    return [np.take_along_axis(found.top_indices, places[:, None], 1)[:, 0]]


def _bytes(fields: str, join: bool) -> Operation:
    """`dim` blocks a row, in one piece; the last is cut short."""
    size = sum(k.PLANE_FIELDS[fields])
    name = "join_planes" if join else "split_planes"

    def make(rng: np.random.Generator, dim: int, rows: int) -> Inputs:
        n = max(0, dim * rows * size - 1)
        return {"data": rng.integers(0, 256, n, dtype=np.uint8)}

    return Operation(
        make,
        lambda a, backend: getattr(k, name)(a["data"], fields, backend=backend),
        lambda a: [getattr(reference.planes, name)(a["data"], k.PLANE_FIELDS[fields])],
        lambda got, want: 0.0 if np.array_equal(got[0], want[0]) else float("inf"),
    )


OPERATIONS: dict[str, Operation] = {
    "vector_add": Operation(
        _two,
        lambda a, backend: k.vector_add(a["a"], a["b"], backend=backend),
        lambda a: [a["a"].astype(np.float64) + a["b"]],
        _near(1e-7, 1e-9),
    ),
    "relu": _unary("relu"),
    "gelu tanh": _unary("gelu", "tanh"),
    "gelu erf": _unary("gelu", "erf"),
    "silu": _unary("silu"),
    "softmax": Operation(
        _x,
        lambda a, backend: k.softmax(a["x"], backend=backend),
        lambda a: [reference.norms.softmax(a["x"])],
        _near(2e-5, 1e-9),
    ),
    "rms_norm": Operation(
        _weighted,
        lambda a, backend: k.rms_norm(a["x"], a["weight"], backend=backend),
        lambda a: [reference.norms.rms_norm(a["x"], a["weight"])],
        _near(2e-5, 1e-6),
    ),
    "l2_normalize": Operation(
        _x,
        lambda a, backend: k.l2_normalize(a["x"], backend=backend),
        lambda a: [reference.norms.l2_normalize(a["x"])],
        _near(1e-5, 1e-7),
    ),
    "quantize_int8": Operation(
        _x,
        lambda a, backend: k.quantize_int8(a["x"], backend=backend),
        lambda a: reference.quantize.exact_codes(a["x"]),
        _codes,
    ),
    "normalize_quantize": Operation(
        _x,
        lambda a, backend: k.normalize_quantize(a["x"], backend=backend),
        lambda a: (
            reference.quantize.exact_codes(a["x"])[0],
            reference.quantize.normalize_quantize(a["x"])[1],
        ),
        _codes,
    ),
    "dequantize_int8": Operation(
        _coded,
        lambda a, backend: k.dequantize_int8(a["codes"], a["scales"], backend=backend),
        lambda a: [reference.quantize.dequantize_int8(a["codes"], a["scales"])],
        _near(1e-6, 1e-44),
    ),
    "cosine_topk int8": _search(np.int8, 10),
    "cosine_topk int8, many": _search(np.int8, 200),
    "cosine_topk float32": _search(np.float32, 10),
    "inverse_norms": Operation(
        _coded,
        lambda a, backend: k.inverse_norms(a["codes"], backend=backend),
        lambda a: [1 / np.maximum(np.linalg.norm(a["codes"].astype(np.float64), axis=1), 1e-300)],
        lambda got, want: _near(1e-6, 1e-9)(got, [np.where(want[0] > 1e9, 0.0, want[0])]),
    ),
    "VectorStore": Operation(_searched(np.float32), _store, _store_truth, _topk),
    "token_statistics": _statistics(0),
    "token_statistics, k 20": _statistics(20),
    "token_statistics, k 200": _statistics(200),
    "list_statistics": Operation(
        _lists,
        lambda a, backend: k.list_statistics(a["logprobs"], a["chosen_logprob"], backend=backend),
        lambda a: reference.tokens.list_statistics(a["logprobs"], a["chosen_logprob"]),
        _near(1e-4, 1e-4),
    ),
    "matmul": _product(lambda a, backend: k.matmul(a["a"], a["b"], backend=backend)),
    "matmul tiled": _product(
        lambda a, backend: k.matmul(a["a"], a["b"], kernel="tiled", backend=backend)
    ),
    "gemm": _product(lambda a, backend: k.gemm(a["a"], a["b"], backend=backend)),
    "matmul_int8": _int8("auto"),
    "matmul_int8 dp4a": _int8("dp4a"),
    "matmul_bf16": Operation(
        _factors(np.uint16, False),
        lambda a, backend: k.matmul_bf16(a["a"], a["b"], backend=backend),
        lambda a: _product_truth(k.from_bf16(a["a"]), k.from_bf16(a["b"]).T),
        _in_proportion(1e-5),
    ),
    "dequantize_int4 awq": _weights("awq", False),
    "dequantize_int4 gptq": _weights("gptq", False),
    "int4_times_vector awq": _weights("awq", True),
    "int4_times_vector gptq": _weights("gptq", True),
    **{f"dequantize_{kind}": _blocks(kind, False) for kind in ("q4_0", "q8_0", "q4_k", "q6_k")},
    **{f"{kind}_times_vector": _blocks(kind, True) for kind in ("q4_0", "q8_0", "q4_k", "q6_k")},
    "sample": Operation(
        lambda rng, dim, rows: {"values": 3 * _x(rng, dim, rows)["x"]},
        lambda a, backend: k.sample(a["values"], seed=3, backend=backend).tokens,
        _sampled,
        lambda got, want: 0.0 if np.array_equal(got[0], want[0]) else float("inf"),
    ),
    "split_planes f16": _bytes("f16", False),
    "split_planes q8_0": _bytes("q8_0", False),
    "join_planes f16": _bytes("f16", True),
    "join_planes q8_0": _bytes("q8_0", True),
    "spin": Operation(
        lambda rng, dim, rows: {"seeds": rng.integers(1, 2**32, (rows, dim), dtype=np.uint32)},
        lambda a, backend: k.spin(a["seeds"], 7, backend=backend),
        lambda a: [reference.synthetic_load.spin(a["seeds"], 7)],
        lambda got, want: 0.0 if np.array_equal(got[0], want[0]) else float("inf"),
    ),
    "post": Operation(
        _x,
        lambda a, backend: k.post(a["x"], 7, backend=backend),
        lambda a: [reference.synthetic_load.post(a["x"], 7)],
        _near(2e-5, 1e-5),
    ),
}

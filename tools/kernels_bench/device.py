"""The kernels timed on a device, one function a family; each says what it moved or computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import llcuda_kernels as k
from llcuda_kernels.cuda import norms, quantize
from llcuda_kernels.cuda.runtime import driver
from llcuda_kernels.cuda.runtime.array import empty, to_device
from tools.kernels_bench import peers
from tools.kernels_bench.clock import copy, normals, part_of, random_words

Run = Callable[..., Any]


@dataclass
class Case:
    """One thing to time. `bytes` or `operations` a run; limit: what it is compared with."""

    name: str
    run: Run
    size: str
    limit: str
    bytes: float = 0.0
    operations: float = 0.0
    aim: float | None = None  # percent of the limit
    peers: dict[str, Run] = field(default_factory=dict)
    keeps: Any = None


def limits(scale: float) -> Iterator[Case]:
    """What this device can do: the copy and the products of its own library."""
    size = int(2e9 * scale) // 4096 * 4096
    a, b = empty((size,), np.uint8), empty((size,), np.uint8)
    driver.fill(a.address, 0x5A, size)
    yield Case(
        "copy", lambda: copy(b.address, a.address, size), f"{size / 1e9:.1f} GB", "", 2.0 * size
    )
    n = 8192 if scale >= 1 else 2048
    if peers.torch is not None:
        t = peers.torch
        for name, kind in (("cuBLAS float32", t.float32), ("cuBLAS bf16", t.bfloat16)):
            x, y = (t.randn(n, n, device="cuda").to(kind) for _ in range(2))
            out = t.empty(n, n, device="cuda", dtype=kind)
            yield Case(
                name,
                lambda x=x, y=y, out=out: peers.torch.mm(x, y.T, out=out),
                f"{n}³",
                "",
                operations=2.0 * n**3,
            )


def elementwise(scale: float) -> Iterator[Case]:
    """Additions and activations."""
    n = int(2**28 * scale)
    x, y, out = normals(n, 1), normals(n, 2), empty((n,), np.float32)
    size = f"{n / 2**20:.0f} Mi float32"
    tx, ty, to = (peers.as_torch(a) if peers.torch else None for a in (x, y, out))
    yield Case(
        "vector_add", lambda: k.vector_add(x, y, out=out), size, "copy", 12.0 * n, aim=90,
        peers=peers.with_torch(lambda t: lambda: t.add(tx, ty, out=to)),
    )  # fmt: skip
    f: Any = peers.torch.nn.functional if peers.torch else None
    for name, run, aim, peer in (
        ("relu", lambda: k.relu(x, out=out), 90, lambda: peers.torch.clamp_min(tx, 0.0, out=to)),
        ("gelu tanh", lambda: k.gelu(x, out=out), 85, lambda: f.gelu(tx, approximate="tanh")),
        ("gelu erf", lambda: k.gelu(x, "erf", out=out), 85, lambda: f.gelu(tx)),
        ("silu", lambda: k.silu(x, out=out), 85, lambda: f.silu(tx)),
    ):
        made = {} if f is None else {"PyTorch": peer}
        yield Case(name, run, size, "copy", 8.0 * n, aim=aim, peers=made)


def by_rows(scale: float) -> Iterator[Case]:
    """softmax, norms and int8 codes."""
    f: Any = peers.torch.nn.functional if peers.torch else None
    for length in (768, 4096):
        rows = int(2**28 * scale) // length
        x, out = normals(rows * length, 3).reshape(rows, length), empty((rows, length), np.float32)
        codes, scales = empty((rows, length), np.int8), empty((rows,), np.float32)
        w = normals(length, 4)
        size = f"{rows:,} x {length}"
        n = float(rows * length)
        tx = peers.as_torch(x) if peers.torch else None
        tw = peers.as_torch(w) if peers.torch else None
        made = {} if f is None else {"PyTorch": lambda tx=tx: peers.torch.softmax(tx, dim=-1)}
        yield Case(
            "softmax", lambda x=x, out=out: k.softmax(x, out=out), size, "copy", 8 * n, aim=80,
            peers=made,
        )  # fmt: skip
        made = {} if f is None else {"PyTorch": partial(f.rms_norm, tx, (length,), tw)}
        yield Case(
            "rms_norm", lambda x=x, w=w, out=out: k.rms_norm(x, w, out=out), size, "copy", 8 * n,
            peers=made,
        )  # fmt: skip
        made = {} if f is None else {"PyTorch": lambda tx=tx: f.normalize(tx, dim=-1)}
        yield Case(
            "l2_normalize", lambda x=x, out=out: norms.l2_normalize(x, out), size, "copy", 8 * n,
            aim=80, peers=made,
        )  # fmt: skip
        yield Case(
            "normalize_quantize",
            lambda x=x, pair=(codes, scales): quantize.quantize_int8(x, True, pair),
            size, "copy", 5 * n + 4 * rows, aim=80,
        )  # fmt: skip
        yield Case(
            "quantize_int8",
            lambda x=x, pair=(codes, scales): quantize.quantize_int8(x, False, pair),
            size, "copy", 5 * n + 4 * rows,
        )  # fmt: skip
        if length == 768:
            yield Case(
                "dequantize_int8",
                lambda pair=(codes, scales): k.dequantize_int8(*pair),
                size, "copy", 5 * n + 4 * rows,
            )  # fmt: skip


def token_statistics(scale: float) -> Iterator[Case]:
    """A vocabulary of 128k."""
    n = 128_256
    for rows in (int(2048 * scale) or 8, 16):
        x = normals(rows * n, 5).reshape(rows, n)
        chosen = to_device(np.random.default_rng(1).integers(0, n, rows))
        tx = peers.as_torch(x) if peers.torch else None
        made = {}
        if tx is not None:

            def peer(tx: Any = tx) -> Any:
                lp = peers.torch.log_softmax(tx, dim=-1)
                return -(lp.exp() * lp).sum(-1)

            made = {"PyTorch": peer}
        for top in (0, 20):
            yield Case(
                f"token_statistics, k = {top}",
                lambda x=x, chosen=chosen, top=top: k.token_statistics(x, chosen, k=top),
                f"{rows} x {n:,}", "copy", 4.0 * rows * n,
                aim=80 if rows > 16 else None, peers=made if not top else {},
            )  # fmt: skip


def topk(scale: float) -> Iterator[Case]:
    """Exact search among ten million."""
    n, dim = int(10_000_000 * scale), 768
    words = random_words(n * dim // 4, 7)
    rows = words.view(np.int8, (n, dim))
    inverse = norms.inverse_norms_int8(rows)
    queries = to_device(np.random.default_rng(2).integers(-127, 128, (32, dim)).astype(np.int8))
    for count, top in ((1, 10), (8, 10), (32, 10), (1, 1024)):
        q = part_of(queries, 0, (count, dim))
        yield Case(
            f"cosine_topk int8, {count} queries, k = {top}",
            lambda q=q, top=top: k.cosine_topk(q, rows, top, inverse_norms=inverse),
            f"{n / 1e6:g} M x {dim}", "copy", float(n) * dim, keeps=words,
        )  # fmt: skip


def _int_mm(torch: Any, x: Any) -> Any:
    return torch._int_mm(x, x.T)


def products(scale: float) -> Iterator[Case]:
    """Matrix products."""
    n = 8192 if scale >= 1 else 1024
    a, b = normals(n * n, 8).reshape(n, n), normals(n * n, 9).reshape(n, n)
    out = empty((n, n), np.float32)
    flops = 2.0 * n**3
    yield Case(
        "matmul float32, fast", lambda: k.matmul(a, b, kernel="fast", out=out), f"{n}³",
        "cuBLAS float32", operations=flops, aim=60,
    )  # fmt: skip
    yield Case(
        "matmul float32, tiled", lambda: k.matmul(a, b, kernel="tiled", out=out), f"{n}³",
        "cuBLAS float32", operations=flops,
    )  # fmt: skip
    half = to_device(k.to_bf16(np.random.default_rng(3).standard_normal((n, n), np.float32)))
    yield Case(
        "matmul bf16, mma", lambda: k.matmul_bf16(half, half, kernel="mma"), f"{n}³", "cuBLAS bf16",
        operations=flops, aim=40,
    )  # fmt: skip
    codes = random_words(n * n // 4, 4).view(np.int8, (n, n))
    made = peers.with_torch(lambda t: partial(_int_mm, t, peers.as_torch(codes)))
    yield Case(
        "matmul int8, mma", lambda: k.matmul_int8(codes, codes, kernel="mma"), f"{n}³",
        "cuBLAS bf16",
        operations=flops, peers=made,
    )  # fmt: skip
    yield Case(
        "matmul int8, dp4a", lambda: k.matmul_int8(codes, codes, kernel="dp4a"), f"{n}³",
        "cuBLAS bf16", operations=flops,
    )  # fmt: skip


def int4(scale: float) -> Iterator[Case]:
    """A layer of a large model, weights of 4 bits."""
    inner, columns = int(16384 * scale) // 128 * 128 or 128, 53248
    groups = inner // 128
    x = normals(inner, 10)
    q = random_words(inner * columns // 8, 11).view(np.int32, (inner * columns // 8,))
    z = random_words(groups * columns // 8, 12).view(np.int32, (groups, columns // 8))
    s = to_device(
        np.random.default_rng(5).uniform(0.001, 0.02, (groups, columns)).astype(np.float16)
    )
    moved = inner * columns / 2 + groups * columns * 2.5 + 4 * (inner + columns)
    for layout in ("awq", "gptq"):
        shape = (inner, columns // 8) if layout == "awq" else (inner // 8, columns)
        w = q.view(np.int32, shape)
        yield Case(
            f"int4_times_vector {layout}",
            lambda w=w, layout=layout: k.int4_times_vector(x, w, z, s, layout=layout),
            f"{inner} x {columns}", "copy", moved, aim=60, keeps=q,
        )  # fmt: skip
        yield Case(
            f"dequantize_int4 {layout}",
            lambda w=w, layout=layout: k.dequantize_int4(w, z, s, layout=layout),
            f"{inner} x {columns}", "copy", moved + 4.0 * inner * columns, keeps=q,
        )  # fmt: skip


def planes(scale: float) -> Iterator[Case]:
    """Bytes of a KV cache to planes and back: pairs, and blocks that are no power of two."""
    n = int(2**30 * scale) // 64 * 64
    words = random_words(n // 4, 13)
    data = words.view(np.uint8, (n,))
    for kind in ("f16", "q8_0", "q4_0"):
        for name, run in (("split_planes", k.split_planes), ("join_planes", k.join_planes)):
            yield Case(
                f"{name} {kind}", lambda run=run, kind=kind: run(data, kind), f"{n / 1e9:.2f} GB",
                "copy", 2.0 * n, aim=85, keeps=words,
            )  # fmt: skip


FAMILIES: list[Callable[[float], Iterator[Case]]] = [
    limits,
    elementwise,
    by_rows,
    token_statistics,
    topk,
    products,
    int4,
    planes,
]

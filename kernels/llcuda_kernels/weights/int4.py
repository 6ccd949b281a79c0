"""int4 weights in groups, as AWQ and GPTQ store them. Errors as in `elementwise`."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from llcuda_kernels.arrays import Array, host, on_device
from llcuda_kernels.runtime import crossover
from llcuda_kernels.runtime.backend import Backend, use_cuda
from llcuda_kernels.runtime.boundary import boundary

Layout: TypeAlias = Literal["awq", "gptq"]


@boundary("qweight", "qzeros", "scales", "g_idx")
def dequantize_int4(
    qweight: Array,
    qzeros: Array,
    scales: Array,
    *,
    layout: Layout = "awq",
    g_idx: Array | None = None,
    backend: Backend = "auto",
) -> Array:
    """``W[k, n] = (q[k, n] - z[g, n]) · s[g, n]`` with ``g = k // group size``; (K, N) float32.

    scales: (groups, N) float16 or float32. The rest is int32, eight numbers of 4 bits a word:

    "awq" (Lin et al. 2023, arXiv:2306.00978): qweight (K, N/8), qzeros (groups, N/8); the columns
    of a word lie from its low bits on in the order 0 2 4 6 1 3 5 7.
    "gptq" (Frantar et al. 2022, arXiv:2210.17323, as AutoGPTQ's first format): qweight (K/8, N),
    eight rows a word in order; qzeros (groups, N/8), eight columns in order, stored less one.

    g_idx: (K,) int32, "gptq" only: the group g of each row, in any order (act order). One that
    is no group is a ValueError; in the GPU's memory, where nobody looks first, its row is NaN.
    """
    inner, columns = _shape(qweight, qzeros, scales, layout, g_idx)
    arrays = (qweight, qzeros, scales, g_idx)
    if use_cuda(backend, "dequantize_int4", arrays, inner * columns * 4):
        from llcuda_kernels.cuda.weights import int4 as cuda

        return cuda.dequantize(qweight, qzeros, scales, layout == "awq", inner, g_idx)
    from llcuda_kernels.cpu.weights import int4 as cpu

    out = np.empty((inner, columns), np.float32)
    of = _groups(g_idx, inner, scales.shape[0])
    cpu.dequantize(*_host(qweight, qzeros, scales), of, layout == "awq", out)
    return out


@boundary("x", "qweight", "qzeros", "scales", "g_idx")
def int4_times_vector(
    x: Array,
    qweight: Array,
    qzeros: Array,
    scales: Array,
    *,
    layout: Layout = "awq",
    g_idx: Array | None = None,
    backend: Backend = "auto",
) -> Array:
    """``y[n] = Σ_k x[k] W[k, n]`` with the W of `dequantize_int4`, which is never stored.

    x: (K,) float32; returns (N,) float32.
    """
    inner, columns = _shape(qweight, qzeros, scales, layout, g_idx)
    if tuple(x.shape) != (inner,):
        raise ValueError(f"x is {tuple(x.shape)}, and must be ({inner},)")
    work = inner * columns // 2
    if use_cuda(backend, "int4_times_vector", (x, qweight, qzeros, scales, g_idx), work):
        from llcuda_kernels.cuda.weights import int4 as cuda

        return cuda.times_vector(x, qweight, qzeros, scales, layout == "awq", g_idx)
    from llcuda_kernels.cpu.jit import threads
    from llcuda_kernels.cpu.weights import int4 as cpu

    v = host(x, np.float32, "x", 1)
    groups = scales.shape[0]
    partial = np.zeros((max(1, min(groups, threads() * 4)), columns), np.float32)
    packed = _host(qweight, qzeros, scales)
    if g_idx is None:
        cpu.times_vector(v, *packed, layout == "awq", partial)
    else:
        cpu.times_vector_in_any_order(v, *packed, _groups(g_idx, inner, groups), partial)
    with np.errstate(over="ignore", invalid="ignore"):
        return partial.sum(axis=0)


def _host(qweight: Array, qzeros: Array, scales: Array) -> tuple[Any, Any, Any]:
    return (
        host(qweight, np.int32, "qweight", 2),
        host(qzeros, np.int32, "qzeros", 2),
        host(scales, np.float32, "scales", 2),
    )


def _groups(g_idx: Array | None, inner: int, groups: int) -> Any:
    """The group of each row."""
    if g_idx is None:
        return (np.arange(inner) // max(1, inner // max(1, groups))).astype(np.int32)
    of = host(g_idx, np.int32, "g_idx", 1)
    if of.size and (int(of.min()) < 0 or int(of.max()) >= groups):
        raise ValueError(f"g_idx holds {of.min()} to {of.max()}, and there are {groups} groups")
    return of


def _shape(
    qweight: Array, qzeros: Array, scales: Array, layout: str, g_idx: Array | None
) -> tuple[int, int]:
    """K and N, where all shapes agree."""
    if layout not in ("awq", "gptq"):
        raise ValueError(f"layout must be 'awq' or 'gptq', not {layout!r}")
    if any(len(a.shape) != 2 for a in (qweight, qzeros, scales)):
        raise ValueError("qweight, qzeros and scales must have 2 dimensions each")
    groups, columns = (int(n) for n in scales.shape)
    inner = int(qweight.shape[0]) * (1 if layout == "awq" else 8)
    wide = int(qweight.shape[1]) * (8 if layout == "awq" else 1)
    if columns % 8 or wide != columns or tuple(qzeros.shape) != (groups, columns // 8):
        raise ValueError(f"qweight, qzeros and scales do not belong together in layout {layout}")
    if g_idx is not None:
        if layout != "gptq":
            raise ValueError("g_idx goes with layout 'gptq': AWQ has its rows in order")
        if tuple(g_idx.shape) != (inner,):
            raise ValueError(f"g_idx is {tuple(g_idx.shape)}, and must be ({inner},)")
        if inner and not groups:
            raise ValueError(f"{inner} rows, and no group")
        if not on_device(g_idx):
            _groups(g_idx, inner, groups)
        return inner, columns
    if (groups == 0) != (inner == 0) or (groups and inner % groups):
        raise ValueError(f"{inner} rows do not divide into {groups} groups")
    if groups and (inner // groups) % 8:
        raise ValueError(f"groups of {inner // groups} rows: a multiple of 8 is needed")
    return inner, columns


@crossover.probe("int4_times_vector")
def _probe(backend: str, size: int) -> None:
    inner = max(1, size // 2048 // 128) * 128
    q = np.full((inner, 512), 0x12345678, np.int32)
    z = np.zeros((inner // 128, 512), np.int32)
    s = np.ones((inner // 128, 4096), np.float32)
    int4_times_vector(np.ones(inner, np.float32), q, z, s, backend=backend)  # type: ignore[arg-type]


@crossover.probe("dequantize_int4")
def _probe_dequantize(backend: str, size: int) -> None:
    inner = max(1, size // 16384 // 128) * 128
    q = np.full((inner, 512), 0x12345678, np.int32)
    z = np.zeros((inner // 128, 512), np.int32)
    s = np.ones((inner // 128, 4096), np.float32)
    dequantize_int4(q, z, s, backend=backend)  # type: ignore[arg-type]

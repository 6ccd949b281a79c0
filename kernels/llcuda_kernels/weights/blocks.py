"""The blocks in which GGUF files hold weights, as llama.cpp serves them.

Errors as in `elementwise`. A tensor of N rows of K numbers is (N, bytes a row) uint8, as the `gguf`
package reads it. How the bits lie is told in `reference.weights.blocks`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from llcuda_kernels.arrays import Array, host
from llcuda_kernels.runtime import crossover
from llcuda_kernels.runtime.backend import Backend, use_cuda
from llcuda_kernels.runtime.boundary import boundary

BlockFormat: TypeAlias = Literal["q4_0", "q8_0", "q4_k", "q6_k"]


class BlockSize(NamedTuple):
    """How many numbers a block holds, in how many bytes."""

    numbers: int
    bytes: int


#: The sizes of ggml-common.h.
BLOCKS: dict[str, BlockSize] = {
    "q4_0": BlockSize(32, 18),
    "q8_0": BlockSize(32, 34),
    "q4_k": BlockSize(256, 144),
    "q6_k": BlockSize(256, 210),
}


@boundary("blocks")
def dequantize_q4_0(blocks: Array, *, backend: Backend = "auto") -> Array:
    """``(q - 8) d``. blocks: (…, bytes a row) uint8; returns (…, numbers a row) float32."""
    return _dequantize(blocks, "q4_0", backend)


@boundary("blocks")
def dequantize_q8_0(blocks: Array, *, backend: Backend = "auto") -> Array:
    """``q d``. blocks: (…, bytes a row) uint8; returns (…, numbers a row) float32."""
    return _dequantize(blocks, "q8_0", backend)


@boundary("blocks")
def dequantize_q4_k(blocks: Array, *, backend: Backend = "auto") -> Array:
    """``(d scale) q - (dmin minimum)``; (…, bytes a row) uint8 to (…, numbers a row) float32."""
    return _dequantize(blocks, "q4_k", backend)


@boundary("blocks")
def dequantize_q6_k(blocks: Array, *, backend: Backend = "auto") -> Array:
    """``(d scale) (q - 32)``; (…, bytes a row) uint8 to (…, numbers a row) float32."""
    return _dequantize(blocks, "q6_k", backend)


@boundary("x", "blocks")
def blocks_times_vector(
    x: Array, blocks: Array, block_format: BlockFormat, *, backend: Backend = "auto"
) -> Array:
    """``y[c, n] = Σ_k x[c, k] W[n, k]``, with a W of blocks that is never stored unpacked.

    x: (K,) or (columns, K) float32; blocks: (N, bytes a row) uint8. Returns (N,) or (columns, N)
    float32. Up to eight columns share one reading of the weights.
    """
    size = _size(block_format)
    rows, inner = _shape(blocks, size, 2)
    if len(x.shape) not in (1, 2) or int(x.shape[-1]) != inner:
        raise ValueError(f"x is {tuple(x.shape)}, and must be ({inner},) or (columns, {inner})")
    work = rows * inner // size.numbers * size.bytes
    if use_cuda(backend, "blocks_times_vector", (x, blocks), work):
        from llcuda_kernels.cuda.weights import blocks as cuda

        return cuda.times_vector(x, blocks, block_format, size)
    from llcuda_kernels.cpu.weights import blocks as cpu

    v = host(x, np.float32, "x")
    columns = v.reshape(-1, inner) if inner else v.reshape(v.shape[0] if v.ndim == 2 else 1, 0)
    w = host(blocks, np.uint8, "blocks", 2)
    out = np.zeros((columns.shape[0], rows), np.float32)
    if out.size and inner:
        with np.errstate(over="ignore", invalid="ignore"):
            cpu.times_vector(
                cpu.CODES[block_format], columns, w.reshape(rows, -1, size.bytes), cpu.HALF,
                size.numbers, out,
            )  # fmt: skip
    return out if v.ndim == 2 else out[0]


def _dequantize(blocks: Array, block_format: str, backend: Backend) -> Array:
    size = BLOCKS[block_format]
    rows, inner = _shape(blocks, size, None)
    shape = (*(int(n) for n in blocks.shape[:-1]), inner)
    if use_cuda(backend, "dequantize_blocks", (blocks,), rows * inner * 4):
        from llcuda_kernels.cuda.weights import blocks as cuda

        return cuda.dequantize(blocks, block_format, size, shape)
    from llcuda_kernels.cpu.weights import blocks as cpu

    out = np.empty(shape, np.float32)
    if out.size:
        w = host(blocks, np.uint8, "blocks").reshape(-1, size.bytes)
        cpu.dequantize(cpu.CODES[block_format], w, cpu.HALF, out.reshape(-1, size.numbers))
    return out


def _size(block_format: str) -> BlockSize:
    if block_format not in BLOCKS:
        known = ", ".join(get_args(BlockFormat))
        raise ValueError(f"block_format must be one of {known}, not {block_format!r}")
    return BLOCKS[block_format]


def _shape(blocks: Array, size: BlockSize, ndim: int | None) -> tuple[int, int]:
    """Rows, and numbers in a row."""
    shape = tuple(int(n) for n in blocks.shape)
    if not shape or (ndim is not None and len(shape) != ndim):
        raise ValueError(
            f"blocks has {len(shape)} dimensions, and must have {ndim or 'one or more'}"
        )
    if shape[-1] % size.bytes:
        raise ValueError(f"a row of {shape[-1]} bytes is not whole blocks of {size.bytes}")
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    return rows, shape[-1] // size.bytes * size.numbers


@crossover.probe("dequantize_blocks")
def _probe_dequantize(backend: str, size: int) -> None:
    rows = max(1, size // 16384)
    dequantize_q4_k(np.zeros((rows, 16 * 144), np.uint8), backend=backend)  # type: ignore[arg-type]


@crossover.probe("blocks_times_vector")
def _probe_times(backend: str, size: int) -> None:
    blocks = np.zeros((max(1, size // 2304), 2304), np.uint8)
    x = np.ones(4096, np.float32)
    blocks_times_vector(x, blocks, "q4_k", backend=backend)  # type: ignore[arg-type]

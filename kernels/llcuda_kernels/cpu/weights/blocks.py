"""The blocks of GGUF files: see `reference.weights.blocks` for how their bits lie.

`half` is the float32 of each of the 65,536 float16: the CPU path has no float16 of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from llcuda_kernels.cpu.jit import exact, parallel, serial

#: The float32 of each float16, by its bits.
HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)

Q4_0, Q8_0, Q4_K, Q6_K = range(4)
CODES = {"q4_0": Q4_0, "q8_0": Q8_0, "q4_k": Q4_K, "q6_k": Q6_K}


@exact
def _float16(block: Any, at: Any, half: Any) -> Any:
    return half[np.int64(block[at]) | (np.int64(block[at + 1]) << 8)]


@exact
def _q4_0(block: Any, half: Any, out: Any) -> None:
    d = _float16(block, 0, half)
    for i in range(16):
        byte = np.int32(block[2 + i])
        out[i] = np.float32((byte & 15) - 8) * d
        out[i + 16] = np.float32((byte >> 4) - 8) * d


@exact
def _q8_0(block: Any, half: Any, out: Any) -> None:
    d = _float16(block, 0, half)
    for i in range(32):
        out[i] = np.float32(np.int8(block[2 + i])) * d


@exact
def _q4_k(block: Any, half: Any, out: Any) -> None:
    d, dmin = _float16(block, 0, half), _float16(block, 2, half)
    for run in range(8):
        if run < 4:
            scale, least = block[4 + run] & 63, block[8 + run] & 63
        else:
            scale = (block[8 + run] & 15) | ((block[run] >> 6) << 4)
            least = (block[8 + run] >> 4) | ((block[4 + run] >> 6) << 4)
        by, less = d * np.float32(scale), dmin * np.float32(least)
        at, shift = 16 + 32 * (run >> 1), 4 * (run & 1)
        for i in range(32):
            q = (np.int32(block[at + i]) >> shift) & 15
            out[32 * run + i] = np.float32(q) * by - less


@exact
def _q6_k(block: Any, half: Any, out: Any) -> None:
    d = _float16(block, 208, half)
    for run in range(8):  # of 32; four in each half of the block
        low, high = 64 * (run >> 2) + 32 * (run & 1), 128 + 32 * (run >> 2)
        shift, top = 4 * ((run >> 1) & 1), 2 * (run & 3)
        for part in range(2):
            by = d * np.float32(np.int8(block[192 + 2 * run + part]))
            for i in range(16 * part, 16 * part + 16):
                q = (np.int32(block[low + i]) >> shift) & 15
                q |= ((np.int32(block[high + i]) >> top) & 3) << 4
                out[32 * run + i] = np.float32(q - 32) * by


@exact
def _one(code: Any, block: Any, half: Any, out: Any) -> None:
    if code == Q4_0:
        _q4_0(block, half, out)
    elif code == Q8_0:
        _q8_0(block, half, out)
    elif code == Q4_K:
        _q4_k(block, half, out)
    else:
        _q6_k(block, half, out)


@parallel
def dequantize(code: Any, blocks: Any, half: Any, out: Any) -> None:
    """blocks: (B, bytes a block) uint8; fill out, (B, numbers a block) float32."""
    for b in prange(blocks.shape[0]):
        _one(code, blocks[b], half, out[b])


@serial
def _dot(x: Any, w: Any) -> Any:
    y = np.float32(0.0)
    for i in range(w.size):
        y += x[i] * w[i]
    return y


@parallel
def times_vector(code: Any, x: Any, blocks: Any, half: Any, numbers: Any, out: Any) -> None:
    """x: (C, K); blocks: (N, blocks a row, bytes a block); fill out, (C, N)."""
    columns, rows, each = x.shape[0], blocks.shape[0], blocks.shape[1]
    for n in prange(rows):
        w = np.empty(numbers, np.float32)
        for c in range(columns):
            out[c, n] = 0.0
        for b in range(each):
            _one(code, blocks[n, b], half, w)
            for c in range(columns):
                out[c, n] += _dot(x[c, b * numbers : (b + 1) * numbers], w)

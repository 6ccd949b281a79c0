"""The blocks of GGUF files, as ggml defines them (ggml-common.h, ggml-quants.c), in NumPy.

Values are float32, and each operation rounds as it does in ggml, so that they can be compared bit
by bit. A row of a tensor is a sequence of blocks:

    q4_0   32 numbers, 18 bytes   d float16, 16 bytes: number i low, number i + 16 high nibble
                                  (q - 8) d
    q8_0   32 numbers, 34 bytes   d float16, 32 int8;   q d
    q4_k   256 numbers, 144 bytes d and dmin float16, 12 bytes of scales and minima of 6 bits,
                                  128 bytes: two runs of 32 numbers in the nibbles of 32 bytes
                                  (d scale) q - (dmin minimum)
    q6_k   256 numbers, 210 bytes 128 bytes of low nibbles, 64 of two high bits, 16 scales of int8,
                                  d float16;   (d scale) (q - 32)
"""

from __future__ import annotations

from typing import Any

import numpy as np

Float32s = np.ndarray[Any, np.dtype[np.float32]]


def _halves(blocks: Any, at: int) -> Float32s:
    """The float16 at a byte of each block, (…, 1)."""
    pair = np.ascontiguousarray(blocks[..., at : at + 2])
    return np.asarray(pair.view(np.float16).astype(np.float32))


def _q4_0(blocks: Any) -> Float32s:
    qs = blocks[..., 2:]
    q = np.concatenate([qs & 15, qs >> 4], axis=-1).astype(np.float32) - np.float32(8)
    return np.asarray(q * _halves(blocks, 0))


def _q8_0(blocks: Any) -> Float32s:
    q = np.ascontiguousarray(blocks[..., 2:]).view(np.int8).astype(np.float32)
    return np.asarray(q * _halves(blocks, 0))


def _q4_k(blocks: Any) -> Float32s:
    d, dmin, six = _halves(blocks, 0), _halves(blocks, 2), blocks[..., 4:16]
    a, b, c = six[..., 0:4], six[..., 4:8], six[..., 8:12]
    scales = np.concatenate([a & 63, (c & 15) | (a >> 6 << 4)], axis=-1)
    minima = np.concatenate([b & 63, (c >> 4) | (b >> 6 << 4)], axis=-1)
    qs = blocks[..., 16:].reshape(*blocks.shape[:-1], 4, 32)
    q = np.stack([qs & 15, qs >> 4], axis=-2).reshape(*blocks.shape[:-1], 8, 32)
    by = (d * scales.astype(np.float32))[..., None]
    less = (dmin * minima.astype(np.float32))[..., None]
    return np.asarray(q.astype(np.float32) * by - less).reshape(*blocks.shape[:-1], 256)


def _q6_k(blocks: Any) -> Float32s:
    low = blocks[..., :128].reshape(*blocks.shape[:-1], 2, 64)
    high = blocks[..., 128:192].reshape(*blocks.shape[:-1], 2, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=-1)  # a half: four runs of 32
    tops = np.concatenate([(high >> shift) & 3 for shift in (0, 2, 4, 6)], axis=-1)
    q = (nibbles | (tops << 4)).astype(np.float32) - np.float32(32)
    scales = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)
    by = (_halves(blocks, 208) * scales)[..., None]
    whole = q.reshape(*blocks.shape[:-1], 16, 16) * by
    return np.asarray(whole).reshape(*blocks.shape[:-1], 256)


_FORMATS = {"q4_0": (18, _q4_0), "q8_0": (34, _q8_0), "q4_k": (144, _q4_k), "q6_k": (210, _q6_k)}


def dequantize(blocks: Any, kind: str) -> Float32s:
    """The numbers of blocks of uint8, (…, bytes a row): (…, numbers a row) float32."""
    given = np.ascontiguousarray(blocks, np.uint8)
    size, function = _FORMATS[kind]
    count = given.shape[-1] // size
    with np.errstate(invalid="ignore", over="ignore"):
        found = function(given.reshape(*given.shape[:-1], count, size))
    return np.asarray(found.reshape(*given.shape[:-1], count * found.shape[-1]))


def times_vector(x: Any, blocks: Any, kind: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``y[…, n] = Σ_k x[…, k] W[n, k]``, in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        w = dequantize(blocks, kind).astype(np.float64)
        return np.asarray(np.asarray(x, np.float64) @ w.T)

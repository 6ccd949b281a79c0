"""int4 weights packed as AWQ and GPTQ pack them, word by word, apart from the code under test."""

from __future__ import annotations

import numpy as np

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PLAIN = tuple(range(8))


def pack(numbers: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Eight neighbours of the last axis a word: nibble i holds number order[i]."""
    words = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
    for word in range(words.shape[1]):
        for nibble in range(8):
            column = numbers[:, word * 8 + order[nibble]].astype(np.uint32)
            words[:, word] |= column << np.uint32(4 * nibble)
    return words.view(np.int32)


def make(
    inner: int, columns: int, groups: int, layout: str, seed: int, of: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """qweight, qzeros, scales and the matrix that they mean."""
    rng = np.random.default_rng(seed)
    q = rng.integers(0, 16, (inner, columns))
    z = rng.integers(0, 15, (groups, columns))
    scales = rng.uniform(0.001, 0.02, (groups, columns)).astype(np.float16)
    if of is None:
        of = np.repeat(np.arange(groups), inner // groups if groups else 0)
    if layout == "awq":
        packed, zeros = pack(q, AWQ_ORDER), pack(z, AWQ_ORDER)
        meant = (q - z[of]) * scales[of].astype(np.float64)
    else:
        packed, zeros = np.ascontiguousarray(pack(q.T, PLAIN).T), pack(z, PLAIN)
        meant = (q - (z[of] + 1)) * scales[of].astype(np.float64)
    return packed, zeros, scales, meant


def blocks(kind: str, rows: int, count: int, seed: int = 7) -> np.ndarray:
    """Rows of `count` blocks of a GGUF format: any bits, but scales that are small numbers."""
    size, halves = {
        "q4_0": (18, [0]),
        "q8_0": (34, [0]),
        "q4_k": (144, [0, 2]),
        "q6_k": (210, [208]),
    }[kind]
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (rows, count, size)).astype(np.uint8)
    for at in halves:
        scales = rng.normal(0, 0.01, (rows, count, 1)).astype(np.float16)
        made[..., at : at + 2] = scales.view(np.uint8)
    return made.reshape(rows, count * size)

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
    inner: int, columns: int, groups: int, layout: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """qweight, qzeros, scales and the matrix that they mean."""
    rng = np.random.default_rng(seed)
    q = rng.integers(0, 16, (inner, columns))
    z = rng.integers(0, 15, (groups, columns))
    scales = rng.uniform(0.001, 0.02, (groups, columns)).astype(np.float16)
    of = np.repeat(np.arange(groups), inner // groups if groups else 0)
    if layout == "awq":
        packed, zeros = pack(q, AWQ_ORDER), pack(z, AWQ_ORDER)
        meant = (q - z[of]) * scales[of].astype(np.float64)
    else:
        packed, zeros = np.ascontiguousarray(pack(q.T, PLAIN).T), pack(z, PLAIN)
        meant = (q - (z[of] + 1)) * scales[of].astype(np.float64)
    return packed, zeros, scales, meant

"""Embeddings: texts to the upstream in batches, and what it gives to one vector a text."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from llcuda_net.admission import Admission
from llcuda_net.upstream.completion import nonsense
from llcuda_net.upstream.interface import Upstream

#: Texts embedded in one call of the upstream, for each of which a slot is held.
_BATCH = 64


async def embed(texts: Sequence[str], upstream: Upstream, admission: Admission) -> list[bytes]:
    """A vector a text, float32, little-endian.

    Raises:
        RequestError: the queue is full, or the upstream fails or gives no vectors.
    """
    vectors: list[bytes] = []
    for start in range(0, len(texts), _BATCH):
        async with admission.enter():
            found = await upstream.embed(list(texts[start : start + _BATCH]))
        try:
            vectors += [_pack(_mean(rows)) for rows in found]
        except (struct.error, TypeError, ValueError, OverflowError):
            raise nonsense("/embedding gave no vectors") from None
    return vectors


def _mean(rows: list[list[float]]) -> list[float]:
    """The mean of a text's rows, which an upstream that does not pool gives one a token."""
    if len(rows) == 1:
        return rows[0]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _pack(vector: list[float]) -> bytes:
    if not vector:
        raise ValueError("a vector without components")
    return struct.pack(f"<{len(vector)}f", *vector)

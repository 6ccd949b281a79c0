"""Long replies cut into frames that the client takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llcuda_net.semantic import Found
from llcuda_protocol import Hits, Vectors

#: Bytes of a frame that are not its vectors or hits.
_AROUND = 64
#: Characters of a model's name that a hit has: any frame holds one hit at least.
_NAME = 256


def vector_frames(number: int, vectors: list[bytes], max_frame: int) -> Iterator[Vectors]:
    """Vectors of one length on a stream."""
    each = max(1, (max_frame - _AROUND) // (len(vectors[0]) + 5))
    for first in range(0, len(vectors), each):
        yield Vectors(number, first, vectors[first : first + each])


def hit_frames(number: int, found: Found, max_frame: int) -> Iterator[Hits]:
    """What a search found, on a stream."""
    part: list[dict[str, Any]] = []
    first, used = 0, _AROUND
    for summary, text, score in found.hits:
        hit: dict[str, Any] = {
            "id": summary.id,
            "score": max(-1.0, min(1.0, score)),
            "created": summary.created / 1e9,
            "state": summary.state,
            "model": summary.model[:_NAME],
            "tokens": summary.tokens,
            "preview": summary.preview,
            "text": text,
        }
        # More than it takes: keys and numbers are at most 120 bytes.
        size = 128 + sum(len(value.encode()) for value in hit.values() if isinstance(value, str))
        if part and used + size > max_frame:
            yield Hits(number, part, first)
            first += len(part)
            part, used = [], _AROUND
        part.append(hit)
        used += size
    if part:
        yield Hits(number, part, first)

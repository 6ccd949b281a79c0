"""Long replies cut into frames that the client takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llcuda_net.analysis.vector_index import Found
from llcuda_protocol import Hits, Listing, Vectors

#: Bytes of a frame that are not its vectors, hits or entries.
_AROUND = 64
#: Characters of a name that a hit has: any frame holds one hit at least.
_NAME = 256


def vector_frames(number: int, vectors: list[bytes], max_frame: int) -> Iterator[Vectors]:
    """Vectors of one length on a stream."""
    each = max(1, (max_frame - _AROUND) // (len(vectors[0]) + 5))
    for first in range(0, len(vectors), each):
        yield Vectors(number, first, vectors[first : first + each])


def hit_frames(number: int, found: Found, max_frame: int) -> Iterator[Hits]:
    """What a search found, on a stream."""
    hits = [
        {
            "id": summary.id,
            "score": max(-1.0, min(1.0, score)),
            "created": summary.created / 1e9,
            "state": summary.state,
            **({"owner": summary.owner[:_NAME]} if found.with_owners else {}),
            "model": summary.model[:_NAME],
            "tokens": summary.tokens,
            "preview": summary.preview,
            "text": text,
        }
        for summary, text, score in found.hits
    ]
    for first, part in _parts(hits, max_frame):
        yield Hits(number, part, first)


def listing_frames(number: int, entries: list[dict[str, Any]], max_frame: int) -> Iterator[Listing]:
    """Generations in a list, on a stream."""
    for first, part in _parts(entries, max_frame):
        yield Listing(number, part, first)


def _parts(
    entries: list[dict[str, Any]], max_frame: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """As many at once as a frame holds, and the number of the first of them."""
    part: list[dict[str, Any]] = []
    first, used = 0, _AROUND
    for entry in entries:
        # More than it takes: keys and numbers are at most 120 bytes.
        size = 128 + sum(len(value.encode()) for value in entry.values() if isinstance(value, str))
        if part and used + size > max_frame:
            yield first, part
            first += len(part)
            part, used = [], _AROUND
        part.append(entry)
        used += size
    if part:
        yield first, part

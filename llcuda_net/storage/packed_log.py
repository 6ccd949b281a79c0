"""A token log that nobody reads yet, in the bytes that the journal's records have.

A piece takes some 12 bytes, where TokenLog needs 170. It is decoded when it is first read: of a
thousand generations that a start recovers, most wait for a slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from llcuda_net.storage.records import Appended, Logprobs, TokenLog, decode, encode

#: Most pieces in one chunk: a damaged one costs no more than these.
CHUNK = 4096
#: The beginning of an Appended, up to its slot: an array of eight, and the kind.
_HEAD = b"\x98\x02"
_SLOT_0 = encode(Appended(0, 0, [], []))[: len(_HEAD) + 1]


class Chunk(NamedTuple):
    """Some pieces of a log, one after the other.

    Attributes:
        first: number of the first piece.
        behind: number of the one after the last.
        switches: see Appended.
        least: number of the piece behind the shortest part of it of which `switches` was told.
        data: the end of an Appended: all that follows its slot.
    """

    first: int
    behind: int
    switches: int
    least: int
    data: bytes

    @classmethod
    def of(cls, record: Appended, least: int) -> Chunk:
        """The chunk of a record."""
        record.slot = 0
        behind = record.first + len(record.pieces)
        # A copy: the encoder's bytes keep up to half as much again behind them.
        data = bytes(memoryview(encode(record))[len(_SLOT_0) :])
        return cls(record.first, behind, record.switches, least, data)

    def record(self) -> Appended:
        """It decoded; of slot 0.

        Raises:
            StorageError: the bytes are damaged.
        """
        found = decode(_SLOT_0 + self.data)
        assert isinstance(found, Appended)
        return found

    def after(self, count: int) -> Chunk:
        """What it has from piece `count` on."""
        record = self.record()
        cut = slice(count - self.first, None)
        logprobs = None if record.logprobs is None else record.logprobs[cut]
        counts = None if record.counts is None else unless_ones(record.counts[cut])
        pieces, ids = record.pieces[cut], record.ids[cut]
        rest = Appended(0, count, pieces, ids, logprobs, counts, record.switches)
        return Chunk.of(rest, self.behind)

    def body(self, slot: int) -> bytes:
        """It as a record of the journal."""
        return _HEAD + encode(slot) + self.data


class PackedLog:
    """The log of one generation, from its first piece on.

    Attributes:
        chunks: each begins where the one before ends.
    """

    __slots__ = ("chunks",)

    def __init__(self, chunks: list[Chunk] | None = None) -> None:
        self.chunks: list[Chunk] = [] if chunks is None else chunks

    def __repr__(self) -> str:
        return f"<PackedLog {self.count:,} pieces in {self.size:,} bytes>"

    @property
    def count(self) -> int:
        """The number of pieces."""
        return self.chunks[-1].behind if self.chunks else 0

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return sum(len(chunk.data) + 250 for chunk in self.chunks)

    def pieces(self) -> Iterator[str]:
        """Its pieces, decoded as far as somebody looks."""
        for chunk in self.chunks:
            yield from chunk.record().pieces

    def unpack(self) -> TokenLog:
        """It decoded.

        Raises:
            StorageError: the bytes are damaged.
        """
        records = [chunk.record() for chunk in self.chunks]
        out = TokenLog(
            list(chain.from_iterable([record.pieces for record in records])),
            list(chain.from_iterable([record.ids for record in records])),
        )
        if any(record.logprobs is not None for record in records):
            # Copies: the decoder's are views, and would keep the chunk.
            found: Logprobs = [raw.copy() for r in records for raw in r.logprobs or ()]
            out.logprobs = found
        if any(record.counts is not None for record in records):
            out.counts = [count for record in records for count in _counts(record)]
        return out


def unless_ones(counts: list[int] | None) -> list[int] | None:
    """Token counts as they are written: None where each is one."""
    return None if counts is None or counts.count(1) == len(counts) else counts


def _counts(record: Appended) -> Iterator[int]:
    if record.counts is None:
        return iter([1] * len(record.pieces))
    return iter(record.counts)

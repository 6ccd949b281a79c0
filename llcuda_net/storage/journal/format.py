"""Journal segments as bytes: a header, then records, each framed so that a torn one is noticed.

A record is a little-endian u32 length, a u32 CRC-32 (zlib's), and a body that begins with its kind.
The CRC starts from the header's own CRC plus the record's index in its segment: a record that is
whole but in the wrong place, left there by an earlier writer, does not pass. A length of 0 never
occurs, so a run of zeros (a block that the disk allocated and never wrote) ends the log. Where the
first record does not pass, the segment ends: nothing after it is looked at.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from llcuda_net.errors import StorageError

MAGIC = b"llcudaJ1"
#: Longest body, in bytes: a request with a very long prompt. A larger length is damage.
MAX_BODY = 256 << 20

_HEADER = struct.Struct("<8sQQI")
HEADER_SIZE = _HEADER.size
FRAME = struct.Struct("<II")
FRAME_SIZE = FRAME.size
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Header:
    """What a segment begins with.

    Attributes:
        segment: its number, growing by one a segment.
        slot: the lowest slot that no generation had when it was begun.
    """

    segment: int
    slot: int

    def encode(self) -> bytes:
        """Its bytes."""
        packed = _HEADER.pack(MAGIC, self.segment, self.slot, 0)[:-4]
        return packed + struct.pack("<I", zlib.crc32(packed))

    @property
    def seed(self) -> int:
        """What the CRC of the segment's first record starts from."""
        return zlib.crc32(self.encode()[:-4])

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header that a segment begins with.

        Raises:
            StorageError: it is torn, damaged, or of a version that we do not know.
        """
        if len(data) < HEADER_SIZE:
            raise StorageError("the segment is shorter than its header", StorageError.DAMAGED)
        magic, segment, slot, crc = _HEADER.unpack_from(data)
        if zlib.crc32(data[: HEADER_SIZE - 4]) != crc:
            raise StorageError("the segment's header is damaged", StorageError.DAMAGED)
        if magic != MAGIC:
            raise StorageError(
                f"the journal has format {magic!r}, this llcuda knows {MAGIC!r}: "
                "use the llcuda that wrote it",
                StorageError.REFUSED,
            )
        return cls(segment, slot)


def frame(body: bytes | memoryview, seed: int) -> bytes:
    """The eight bytes that go before a record's body; `seed` is the header's plus its index."""
    return FRAME.pack(len(body), zlib.crc32(body, seed & _MASK))


def bodies(data: bytes, seed: int) -> Iterator[tuple[int, memoryview]]:
    """The end and the body of each record of a segment, up to damage."""
    view = memoryview(data)
    at = HEADER_SIZE
    while at + FRAME_SIZE <= len(data):
        length, crc = FRAME.unpack_from(data, at)
        end = at + FRAME_SIZE + length
        if not 0 < length <= MAX_BODY or end > len(data):
            return
        body = view[at + FRAME_SIZE : end]
        if zlib.crc32(body, seed & _MASK) != crc:
            return
        yield end, body
        seed += 1
        at = end

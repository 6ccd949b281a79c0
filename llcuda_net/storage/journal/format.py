"""The bytes of a journal segment: a header, then records in frames that reveal a torn record.

A frame is a little-endian u32 length, a u32 CRC-32 (zlib's), and a body that begins with its kind.
The CRC starts from the header's CRC plus the record's index in the segment, so that an intact
record in the wrong place, left there by an earlier writer, fails the check. A length of 0 never
occurs, so a run of zeros (a block that the disk allocated and never wrote) ends the log. The
segment ends at the first record that fails the check; the bytes after it are ignored.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from llcuda_net.errors import StorageError

MAGIC = b"llcudaJ1"
#: Longest body in bytes: a request with a very long prompt. A larger length means damage.
MAX_BODY = 256 << 20

_HEADER = struct.Struct("<8sQQI")
HEADER_SIZE = _HEADER.size
FRAME = struct.Struct("<II")
FRAME_SIZE = FRAME.size
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Header:
    """The header of a segment.

    Attributes:
        segment: its number; each segment's is one higher than the last.
        slot: the lowest slot that no generation had used when the segment began.
    """

    segment: int
    slot: int

    def encode(self) -> bytes:
        """The header's bytes."""
        packed = _HEADER.pack(MAGIC, self.segment, self.slot, 0)[:-4]
        return packed + struct.pack("<I", zlib.crc32(packed))

    @property
    def seed(self) -> int:
        """The start value of the first record's CRC."""
        return zlib.crc32(self.encode()[:-4])

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header at the beginning of a segment.

        Raises:
            StorageError: it is torn, damaged, or of an unknown version.
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
    """The eight bytes before a record's body; `seed` is the header's plus the record's index."""
    return FRAME.pack(len(body), zlib.crc32(body, seed & _MASK))


def bodies(data: bytes, seed: int) -> Iterator[tuple[int, memoryview]]:
    """The end offset and the body of each record of a segment, up to the first damage."""
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

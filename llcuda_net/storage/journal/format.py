"""The bytes of a journal segment: a header, then records in frames that reveal a torn record.

A frame is a little-endian u32 length, a u32 CRC-32 (zlib's), and a body that begins with its kind.
The CRC starts from the header's CRC plus the record's index in the segment, so that an intact
record in the wrong place, left there by an earlier writer, fails the check. A length of 0 never
occurs, so a run of zeros (a block that the disk allocated and never wrote) holds no record. `runs`
and `scan` find the records after bytes that are bad, too; whether those are used is for recovery to
say.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.util.version import package_version

#: The header has this form in every format, and its last byte tells them apart.
MAGIC = b"llcudaJ1"
#: Longest body in bytes: a request with a very long prompt. A larger length means damage.
MAX_BODY = 256 << 20

_HEADER = struct.Struct("<8sQQI")
HEADER_SIZE = _HEADER.size
FRAME = struct.Struct("<II")
FRAME_SIZE = FRAME.size
_MASK = 0xFFFFFFFF
#: Most records that are read at a time.
RUN = 1024
#: What looks like the beginning of a frame: a length below MAX_BODY, a CRC, a body that is a short
#: array whose first item is the kind of a record. It may overlap another one.
_FRAME_LIKE = re.compile(rb"(?=...[\x00-\x10]....[\x92-\x9f][\x01-\x1f])", re.DOTALL)
#: Fewest bytes of a record with its frame.
_LEAST = FRAME_SIZE + 2
#: Longest body whose index is computed from its CRC; for a longer one the likely ones are tried.
_SHORT, _LIKELY = 4096, 256


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
            NewerFormat: it is of a later format.
            StorageError: it is torn or damaged.
        """
        if len(data) < HEADER_SIZE:
            raise StorageError("the segment is shorter than its header", StorageError.DAMAGED)
        magic, segment, slot, crc = _HEADER.unpack_from(data)
        if zlib.crc32(data[: HEADER_SIZE - 4]) != crc:
            raise StorageError("the segment's header is damaged", StorageError.DAMAGED)
        if magic != MAGIC:
            raise NewerFormat(
                "the journal", format_of(magic), format_of(MAGIC), ours=package_version()
            )
        return cls(segment, slot)


def is_of_later_format(head: bytes) -> bool:
    """Whether a file begins with the intact header of a format that this program does not know."""
    try:
        Header.decode(head)
    except NewerFormat:
        return True
    except StorageError:
        return False
    return False


def format_of(magic: bytes) -> str:
    """The number of a format."""
    return magic[len(MAGIC) - 1 : len(MAGIC)].decode("latin-1")


def frame(body: bytes | memoryview, seed: int) -> bytes:
    """The eight bytes before a record's body; `seed` is the header's plus the record's index."""
    return FRAME.pack(len(body), zlib.crc32(body, seed & _MASK))


def runs(data: bytes, seed: int) -> Iterator[tuple[int, int, list[bytes] | None]]:
    """Begin, end and bodies of each run of records of a segment; None for bytes that hold none.

    After bad bytes the next record is found by its frame: length, CRC, and an index that fits in
    between. A run has at most RUN records.
    """
    at, size = HEADER_SIZE, len(data)
    while at < size:
        bodies = _run(data, at, seed)
        if bodies:
            end = at + FRAME_SIZE * len(bodies) + sum(map(len, bodies))
            yield at, end, bodies
            at = end
            seed += len(bodies)
            continue
        found = _next_record(memoryview(data), at, seed)
        yield at, found[0] if found else size, None
        if found is None:
            return
        at, seed = found


def scan(data: bytes, seed: int) -> Iterator[tuple[int, int, bytes | None]]:
    """As `runs`, record by record."""
    for at, end, bodies in runs(data, seed):
        if bodies is None:
            yield at, end, None
            continue
        for body in bodies:
            end = at + FRAME_SIZE + len(body)
            yield at, end, body
            at = end


def _run(data: bytes, at: int, seed: int) -> list[bytes]:
    """The bodies of the records from `at` on, up to the first that is none, or RUN.

    A start reads millions of records: this loop is most of what it costs.
    """
    unpack, crc32 = FRAME.unpack_from, zlib.crc32
    bodies: list[bytes] = []
    add = bodies.append
    try:
        for index in range(seed, seed + RUN):
            length, crc = unpack(data, at)
            begin = at + FRAME_SIZE
            at = begin + length
            body = data[begin:at]
            if crc32(body, index) != crc or not body:
                return bodies
            add(body)
    except struct.error:  # the end
        pass
    if at > len(data):  # cut, and its CRC fits by chance
        bodies.pop()
    return bodies


def seed_of(data: bytes) -> int | None:
    """The start value of the first record's CRC, of a segment whose header is damaged.

    It follows from the first record, if the second one confirms it.
    """
    view = memoryview(data)
    if len(data) < HEADER_SIZE + FRAME_SIZE:
        return None
    length, crc = FRAME.unpack_from(view, HEADER_SIZE)
    end = HEADER_SIZE + FRAME_SIZE + length
    if not 0 < length <= _SHORT or end > len(data):
        return None
    seed = _seed(view[HEADER_SIZE + FRAME_SIZE : end], crc)
    return seed if _record_end(view, end, seed + 1) is not None else None


def _record_end(view: memoryview, at: int, seed: int) -> int | None:
    if at + FRAME_SIZE > len(view):
        return None
    length, crc = FRAME.unpack_from(view, at)
    end = at + FRAME_SIZE + length
    if not 0 < length <= MAX_BODY or end > len(view):
        return None
    if zlib.crc32(view[at + FRAME_SIZE : end], seed & _MASK) != crc:
        return None
    return int(end)


def _next_record(view: memoryview, bad: int, seed: int) -> tuple[int, int] | None:
    """Where the next record begins after bad bytes, and the start value of its CRC."""
    for match in _FRAME_LIKE.finditer(view, bad + 1):
        at = match.start()
        length, crc = FRAME.unpack_from(view, at)
        end = at + FRAME_SIZE + length
        if not length or end > len(view):
            continue
        body = view[at + FRAME_SIZE : end]
        most = (at - bad) // _LEAST + 1  # records that may have been in between
        if length <= _SHORT:
            skipped = (_seed(body, crc) - seed) & _MASK
            if skipped <= most:
                return at, seed + skipped
        else:
            for skipped in range(min(most, _LIKELY) + 1):
                if zlib.crc32(body, (seed + skipped) & _MASK) == crc:
                    return at, seed + skipped
    return None


def _crc_table() -> list[int]:
    out = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        out.append(value)
    return out


_TABLE = _crc_table()
_BY_TOP = {value >> 24: index for index, value in enumerate(_TABLE)}


def _seed(body: memoryview, crc: int) -> int:
    """The start value with which a body has this CRC: the CRC, computed backwards."""
    state = crc ^ _MASK
    for byte in reversed(body):
        index = _BY_TOP[state >> 24]
        state = ((state ^ _TABLE[index]) << 8 | (index ^ byte)) & _MASK
    return state ^ _MASK

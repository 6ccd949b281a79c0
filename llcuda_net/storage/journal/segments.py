"""The segments of a journal: start one, rewrite open generations into some, find live records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.marks import mark
from llcuda_net.storage.journal.recovery import Progress, segment_path
from llcuda_net.storage.records import (
    DECODE_ERRORS,
    Spliced,
    Stored,
    Switched,
    damaged,
    encode,
)

#: Bytes that are written at a time when generations are rewritten.
_WRITE = 1 << 20


@dataclass(slots=True)
class Segment:
    """A segment that is being written.

    Attributes:
        seed: the start value of the next record's CRC.
        size: bytes of the file that hold whole records.
        now: whether the file system takes writes that must not wait, as far as is known.
    """

    number: int
    descriptor: int
    seed: int
    size: int
    now: bool = True


class Place(Protocol):
    """What is needed of a JournalEntry."""

    slot: int
    bytes: int
    oldest: int


class _Head(msgspec.Struct, array_like=True, gc=False):
    """What all records begin with."""

    kind: int
    slot: int = 0


_heads: msgspec.msgpack.Decoder[_Head] = msgspec.msgpack.Decoder(_Head)


def start_segment(folder: Path, files: Files, header: framing.Header) -> Segment:
    """Start a segment that has no records, on the disk when this returns.

    Raises:
        OSError: the file system failed; no file is left then.
    """
    segment = _create(folder, files, header)
    try:
        files.fdatasync(segment.descriptor)
        files.fsync_dir(folder)
    except OSError:
        _remove(folder, files, segment)
        raise
    return segment


def _create(folder: Path, files: Files, header: framing.Header) -> Segment:
    descriptor = files.create(segment_path(folder, header.segment))
    segment = Segment(header.segment, descriptor, header.seed, 0)
    try:
        _write(files, segment, header.encode())
    except OSError:
        _remove(folder, files, segment)
        raise
    return segment


def _write(files: Files, segment: Segment, data: bytes | bytearray) -> None:
    done = 0
    while done < len(data):
        rest = data[done:] if done else data
        done += files.pwrite(segment.descriptor, rest, segment.size + done)
    segment.size += done


def _remove(folder: Path, files: Files, segment: Segment) -> None:
    files.close(segment.descriptor)
    with contextlib.suppress(OSError):
        files.unlink(segment_path(folder, segment.number))


def restate(
    folder: Path,
    files: Files,
    header: framing.Header,
    pairs: Sequence[tuple[OpenGeneration, Place]],
    stored: Stored,
    segment_bytes: int,
    progress: Progress = lambda _: None,
) -> list[Segment]:
    """Write these generations, each in its new slot, and what is stored, into new segments.

    All is on the disk when this returns, each segment before the next one begins.

    Args:
        header: of the first segment.
        segment_bytes: after which the next one is begun.

    Raises:
        OSError: the file system failed; no file is left then.
    """
    rewriting = _Rewriting(folder, files, header, encode(stored), segment_bytes)
    try:
        rewriting.begin()
        for number, (generation, place) in enumerate(pairs):
            place.oldest = rewriting.segments[-1].number
            for body in restated(generation, place.slot):
                place.bytes += rewriting.add(body)
            progress(number / len(pairs))
        rewriting.end()
    except OSError:
        for segment in rewriting.segments:
            _remove(folder, files, segment)
        raise
    return rewriting.segments


class _Rewriting:
    """Segments that are written one after the other."""

    def __init__(
        self, folder: Path, files: Files, header: framing.Header, stored: bytes, most: int
    ) -> None:
        self.segments: list[Segment] = []
        self._folder = folder
        self._files = files
        self._header = header
        self._stored = stored
        self._most = most
        self._buffer = bytearray()

    def begin(self) -> None:
        """Begin the next segment."""
        number = self._header.segment + len(self.segments)
        header = framing.Header(number, self._header.slot)
        ends = {segment.number: segment.size for segment in self.segments}
        self.segments.append(_create(self._folder, self._files, header))
        self._frame(self._stored)
        if ends:
            self._frame(encode(mark(ends)))

    def add(self, body: bytes) -> int:
        """Write a record; the bytes that it takes."""
        if self.segments[-1].size + len(self._buffer) >= self._most:
            self.end()
            self.begin()
        self._frame(body)
        if len(self._buffer) >= _WRITE:
            self._flush()
        return framing.FRAME_SIZE + len(body)

    def end(self) -> None:
        """Have the segment on the disk."""
        self._flush()
        self._files.fdatasync(self.segments[-1].descriptor)
        self._files.fsync_dir(self._folder)

    def _frame(self, body: bytes) -> None:
        segment = self.segments[-1]
        self._buffer += framing.frame(body, segment.seed)
        self._buffer += body
        segment.seed += 1

    def _flush(self) -> None:
        _write(self._files, self.segments[-1], self._buffer)
        self._buffer = bytearray()


def restated(generation: OpenGeneration, slot: int) -> Iterator[bytes]:
    """The bodies of a generation's records, for a slot."""
    opened = generation.opened
    opened.slot = slot
    yield encode(opened)
    for chunk in generation.packed.chunks:
        yield chunk.body(slot)
    for splice in generation.splices:
        yield encode(Spliced(slot, *splice))
    for switch in generation.switches:
        yield encode(Switched(slot, *switch))
    for record in (generation.dispatched, generation.concluded, generation.ended):
        if record is not None:
            record.slot = slot
            yield encode(record)


def live_bodies(path: Path, files: Files, slots: set[int]) -> list[tuple[int, bytes]]:
    """Slot and body of each record of a segment that belongs to one of these slots.

    Raises:
        OSError: the file cannot be read.
        StorageError: it is damaged.
    """
    data = files.read(path)
    header = framing.Header.decode(data)
    found = []
    for start, _, bodies in framing.runs(data, header.seed):
        if bodies is None:
            raise StorageError(
                f"{path.name} is damaged at byte {start:,}: restart llcuda-server, which saves "
                "what can be read of it",
                StorageError.DAMAGED,
            )
        try:
            for body in bodies:
                slot = _heads.decode(body).slot
                if slot in slots:
                    found.append((slot, body))
        except DECODE_ERRORS as error:
            raise damaged(f"a record of {path.name}", error) from error
    return found

"""The segments of a journal: start one, rewrite open generations into one, find live records."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.recovery import OpenGeneration, Recovered, segment_path
from llcuda_net.storage.records import Appended, Record, Spliced, Stored, Switched, decode, encode

#: Log entries per record when a generation is rewritten.
_CHUNK = 4096


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


def start_segment(folder: Path, files: Files, header: framing.Header, body: bytes) -> Segment:
    """Start a segment with a header and framed records, all on the disk when this returns.

    Raises:
        OSError: the file system failed; no file is left then.
    """
    path = segment_path(folder, header.segment)
    data = header.encode() + body
    descriptor = files.create(path)
    try:
        done = 0
        while done < len(data):
            done += files.pwrite(descriptor, data[done:] if done else data, done)
        files.fdatasync(descriptor)
        files.fsync_dir(folder)
    except OSError:
        files.close(descriptor)
        with contextlib.suppress(OSError):
            files.unlink(path)
        raise
    return Segment(header.segment, descriptor, header.seed, len(data))


def restate(
    folder: Path,
    files: Files,
    found: Recovered,
    next_slot: int,
    pairs: Sequence[tuple[OpenGeneration, Place]],
    stored: Stored,
) -> Segment:
    """Start a segment that holds these generations, each in its new slot, and what is stored.

    Raises:
        OSError: as `start_segment`.
    """
    header = framing.Header(found.next_segment, max(next_slot, found.next_slot))
    seed = header.seed
    body = encode(stored)
    out = bytearray(framing.frame(body, seed) + body)
    count = 1
    for generation, log in pairs:
        before = len(out)
        for record in _restated(generation, log.slot):
            body = encode(record)
            out += framing.frame(body, seed + count)
            out += body
            count += 1
        log.bytes = len(out) - before
    segment = start_segment(folder, files, header, bytes(out))
    segment.seed = seed + count
    return segment


def _restated(generation: OpenGeneration, slot: int) -> list[Record]:
    opened, log = generation.opened, generation.log
    opened.slot = slot
    records: list[Record] = [opened]
    for first in range(0, len(log.pieces), _CHUNK):
        cut = slice(first, first + _CHUNK)
        logprobs = None if log.logprobs is None else log.logprobs[cut]
        counts = None if log.counts is None else unless_ones(log.counts[cut])
        pieces = log.pieces[cut]
        switches = sum(one.position < first + len(pieces) for one in generation.switches)
        records.append(Appended(slot, first, pieces, log.ids[cut], logprobs, counts, switches))
    records += [Spliced(slot, *splice) for splice in generation.splices]
    records += [Switched(slot, *switch) for switch in generation.switches]
    for record in (generation.dispatched, generation.concluded, generation.ended):
        if record is not None:
            record.slot = slot
            records.append(record)
    return records


def live_bodies(path: Path, files: Files, slots: set[int]) -> list[tuple[int, bytes]]:
    """Slot and body of each record of a segment that belongs to one of these slots.

    Raises:
        OSError: the file cannot be read.
        StorageError: it is damaged.
    """
    data = files.read(path)
    header = framing.Header.decode(data)
    found = []
    for start, _, body in framing.scan(data, header.seed):
        if body is None:
            raise StorageError(
                f"{path.name} is damaged at byte {start:,}: restart llcuda-server, which saves "
                "what can be read of it",
                StorageError.DAMAGED,
            )
        slot = decode(body).slot
        if slot in slots:
            found.append((slot, bytes(body)))
    return found


def unless_ones(counts: list[int] | None) -> list[int] | None:
    """Token counts as they are written: None where each is one."""
    return None if counts is None or counts.count(1) == len(counts) else counts

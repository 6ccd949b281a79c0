"""Appending to the journal: the entries of open generations, and the buffer that they share.

A record is encoded and framed once, into the buffer. `Appender.write` hands the whole buffer to the
system with one call, before anything of it is shown to anybody: the way of a token needs one
`JournalEntry.append` per generation and one `Appender.write` per batch.

A write that fails for lack of room leaves no torn record behind: the file is cut back to its last
whole record, and the buffer is written when there is room. After any other failure the journal has
failed for good.
"""

from __future__ import annotations

import errno
import zlib
from dataclasses import dataclass
from typing import Any

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.segments import Segment
from llcuda_net.storage.records import (
    ENCODE_ERRORS,
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Level,
    Logprobs,
    Opened,
    Splice,
    Spliced,
    encode,
    encoder,
    unstorable,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_encode = encoder.encode
_pack_frame = framing.FRAME.pack
_crc32 = zlib.crc32
_MASK = 0xFFFFFFFF


@dataclass
class JournalStats:
    """Counts since the start, and the journal's size now."""

    records: int = 0
    bytes: int = 0
    writes: int = 0
    syncs: int = 0
    segments: int = 0
    live_bytes: int = 0


class JournalEntry:
    """One open generation in the journal.

    Attributes:
        opened: how it began.
        splices: its continuations so far.
        slot: its short number in the journal.
        count: pieces appended so far.
        dispatches: how often an upstream was asked so far.
        durable: of these pieces, how many a power cut cannot take away.
        synced: whether its level asks for the disk.
        oldest: number of the segment with its oldest record.
        bytes: of its records.
    """

    __slots__ = (
        "_journal",
        "bytes",
        "count",
        "dispatches",
        "durable",
        "level",
        "oldest",
        "opened",
        "slot",
        "splices",
        "synced",
    )

    def __init__(self, journal: Appender, opened: Opened, slot: int, oldest: int) -> None:
        self._journal = journal
        self.opened = opened
        self.splices: list[Splice] = []
        self.slot = slot
        self.level = Level(opened.level)
        self.synced = self.level.synced
        self.oldest = oldest
        self.bytes = 0
        self.count = 0
        self.dispatches = 0
        self.durable = 0

    def __repr__(self) -> str:
        return (
            f"<JournalEntry {self.opened.generation} slot={self.slot} {self.level}"
            f" pieces={self.count} durable={self.durable}>"
        )

    def append(
        self,
        pieces: list[str],
        ids: list[int | None],
        logprobs: Logprobs | None = None,
        counts: list[int] | None = None,
    ) -> None:
        """Buffer the next pieces, until `write`; see TokenLog.

        Raises:
            StorageError: the journal has failed, or its disk is full.
        """
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        if counts is not None and counts.count(1) == len(counts):
            counts = None  # as it is written where each is one
        try:
            body = _encode(Appended(self.slot, self.count, pieces, ids, logprobs, counts))
        except ENCODE_ERRORS as error:
            raise unstorable(error) from error
        journal.add(self, body)
        self.count += len(pieces)
        if self.synced:
            journal.appended[self] = self.count

    def splice(self, position: int, upstream: str, epoch: int = 0) -> None:
        """Buffer that pieces from `position`, the next one, come from another run.

        Args:
            epoch: names that run.

        Raises:
            StorageError: as `append`.
        """
        self._add(Spliced(self.slot, self.count, upstream, epoch))
        self.splices.append(Splice(position, upstream, epoch))

    def dispatched(
        self, upstream: str, model: dict[str, Any], prompt: str | list[int] | None = None
    ) -> None:
        """Buffer that an upstream is asked; the last time counts.

        Args:
            model: the fingerprint of its model.
            prompt: see records.Dispatched.

        Raises:
            StorageError: as `append`.
        """
        record = Dispatched(upstream=upstream, model=model, prompt=prompt)
        record.slot, record.number = self.slot, self.dispatches
        self._add(record)
        self.dispatches += 1

    def conclude(self, reason: str, stop: str | None, usage: dict[str, int]) -> None:
        """Buffer that the upstream sent the end, in one batch with the last pieces.

        Raises:
            StorageError: as `append`.
        """
        record = Concluded(reason=reason, stop=stop, usage=usage)
        record.slot, record.count = self.slot, self.count
        self._add(record)
        if self.synced:
            self._journal.appended[self] = self.count

    def end(self, ended: Ended) -> None:
        """Buffer how the generation ended; on a full disk too, since its end makes room.

        Raises:
            StorageError: the journal has failed.
        """
        journal = self._journal
        if journal.failed is not None:
            raise journal.failed
        ended.slot, ended.count = self.slot, self.count
        journal.add(self, encode(ended))
        if self.synced:
            journal.appended[self] = self.count

    def _add(self, record: Any) -> None:
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        journal.add(self, encode(record))


class Appender:
    """The buffer of records, and the segment that it is written to.

    Attributes:
        refusal: why nothing can be appended now; None: it can.
        failed: why nothing can be appended until a restart; None: not so.
        stats: counts for status and benchmarks.
        appended: entries with pieces that are not written yet, and how many they then have.
    """

    def __init__(self, files: Files, segment_bytes: int) -> None:
        self.refusal: StorageError | None = None
        self.failed: StorageError | None = None
        self.stats = JournalStats()
        self.appended: dict[JournalEntry, int] = {}
        self._unsynced: dict[JournalEntry, int] = {}  # written, and not synced
        self._files = files
        self._segment_bytes = segment_bytes
        self._buffer = bytearray()
        self._position = 0  # of everything appended, in bytes since the start
        self._written = 0
        self._segment: Segment
        self._work = trio.Event()

    def add(self, entry: JournalEntry, body: bytes) -> None:
        """Buffer a record of an entry."""
        segment = self._segment
        size = framing.FRAME_SIZE + len(body)
        buffer = self._buffer
        buffer += _pack_frame(len(body), _crc32(body, segment.seed & _MASK))
        buffer += body
        segment.seed += 1
        self._position += size
        entry.bytes += size
        stats = self.stats
        stats.records += 1
        stats.live_bytes += size

    def _add_loose(self, body: bytes | memoryview) -> None:
        """Buffer a record that counts for no entry."""
        self._buffer += framing.frame(body, self._segment.seed)
        self._buffer += body
        self._segment.seed += 1
        self._position += framing.FRAME_SIZE + len(body)
        self.stats.records += 1

    def write(self) -> None:
        """Hand everything buffered to the system, before anything of it is shown to anybody.

        Raises:
            StorageError: nothing of it may be shown. With the code storage_full it stays buffered,
                and is written as soon as there is room.
        """
        if self.failed is not None:
            raise self.failed
        buffer = self._buffer
        if not buffer:
            return
        segment = self._segment
        size = len(buffer)
        try:
            done = self._files.pwrite(segment.descriptor, buffer, segment.size)
            while done < size:  # a short write says nothing; the next one says why
                # A copy: a view, kept by an exception, would keep the buffer from growing.
                rest = bytes(buffer[done:])
                done += self._files.pwrite(segment.descriptor, rest, segment.size + done)
        except OSError as error:
            raise self._not_written(error) from error
        segment.size += size
        buffer.clear()
        self._written = self._position
        self.stats.writes += 1
        self.stats.bytes += size
        if self.appended:
            self._unsynced.update(self.appended)
            self.appended.clear()
            self._work.set()
        elif segment.size >= self._segment_bytes:
            self._work.set()
        self.refusal = None

    def _not_written(self, error: OSError) -> StorageError:
        refusal = as_storage_error(error)
        try:
            # Nothing torn may stay in the middle, and cutting needs no room.
            self._files.truncate(self._segment.descriptor, self._segment.size)
        except OSError as worse:
            refusal = as_storage_error(worse, failed=True)
        self._refuse(refusal)
        return refusal

    def _refuse(self, refusal: StorageError) -> None:
        self.refusal = refusal
        if refusal.code == StorageError.FAILED:
            self.failed = refusal
        self._work.set()


def has_no_room(error: OSError) -> bool:
    """Whether it failed since the disk, or the user's part of it, is full."""
    return error.errno in _NO_ROOM


def as_storage_error(error: OSError, *, failed: bool = False) -> StorageError:
    """The error for a failed operation on the journal's files."""
    if not failed and has_no_room(error):
        return StorageError(
            "there is no room for the journal: free some disk space, or choose another --data-dir",
            StorageError.FULL,
        )
    return StorageError(
        f"the journal cannot be written ({error.strerror or error}): "
        "check the disk, then restart llcuda-server",
        StorageError.FAILED,
    )

"""The journal's buffer of records, and how it comes into the file.

`Appender.write` hands the whole buffer to the system with one call, before anything of it is shown
to anybody.

The trio thread never waits for a disk. It writes itself only where the file system promises to
refuse rather than to wait (RWF_NOWAIT). All else goes to a thread, one hand-over per batch, for
which it waits no longer than a write into the page cache may take; see write_thread. What comes
while the thread is busy queues behind it, and is one write then.

A write that fails for lack of room leaves no torn record behind: the file is cut back to its last
whole record, and the rest is written when there is room. After any other failure the journal has
failed for good.
"""

from __future__ import annotations

import abc
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import NEVER_NOW, Files
from llcuda_net.storage.journal.segments import Segment
from llcuda_net.storage.journal.threads.sync_thread import SyncThread
from llcuda_net.storage.journal.threads.write_thread import Chunk, Outcome, WriteThread
from llcuda_net.storage.replica.interface import Replica

log = structlog.get_logger(__name__)

_pack_frame = framing.FRAME.pack
_crc32 = zlib.crc32
_MASK = 0xFFFFFFFF

#: Told that something is written (None), or that it is not, and why.
Written = Callable[[StorageError | None], None]


@dataclass
class JournalStats:
    """Counts since the start, and the journal's size now."""

    records: int = 0
    bytes: int = 0
    writes: int = 0
    syncs: int = 0
    segments: int = 0
    live_bytes: int = 0


class Entry(Protocol):
    """What is needed of a JournalEntry; see there."""

    slot: int
    bytes: int
    mirrored: bool
    awaited: bool


class Appender(abc.ABC):
    """The buffer of records, and the segment that it is written to. What syncs it derives from it.

    Attributes:
        refusal: why nothing can be appended now; None: it can.
        failed: why nothing can be appended until a restart; None: not so.
        stats: counts for status and benchmarks.
        appended: entries with pieces in the buffer, and how many they then have.
        replica: gets the records of entries that are mirrored; None: there is none.
    """

    def __init__(self, files: Files, segment_bytes: int) -> None:
        self.replica: Replica | None = None
        self.refusal: StorageError | None = None
        self.failed: StorageError | None = None
        self.stats = JournalStats()
        self.appended: dict[Any, int] = {}
        self._files = files
        self._segment_bytes = segment_bytes
        self._buffer = bytearray()
        self._position = 0  # of everything appended, in bytes since the start
        self._wanted = 0  # up to which it is to be written
        self._written = 0
        self._segment: Segment
        #: Closed to writing, with bytes that no sync covered: each with the position of its end.
        self._retiring: deque[tuple[int, Segment]] = deque()
        self._work = trio.Event()  # there is something for Journal.run to do
        #: Handed over, oldest first. The thread has the first one while it is busy.
        self._chunks: deque[Chunk] = deque()
        self._busy = False
        self._writing = WriteThread(files)
        self._syncing: SyncThread
        #: Written, not known to be synced: position, entries, and how many pieces they then have.
        self._unsynced: deque[tuple[int, dict[Any, int]]] = deque()
        self._awaited: deque[tuple[int, Written]] = deque()

    def add(self, entry: Entry, body: bytes) -> None:
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
        if entry.mirrored and self.replica is not None:
            self.replica.add(entry.slot, body, entry.awaited)

    @abc.abstractmethod
    def follow(self, entry: Any) -> None:
        """Tell when more of an entry is on the disk."""

    def _add_loose(self, body: bytes | memoryview) -> None:
        """Buffer a record that counts for no entry."""
        self._buffer += framing.frame(body, self._segment.seed)
        self._buffer += body
        self._segment.seed += 1
        self._position += framing.FRAME_SIZE + len(body)
        self.stats.records += 1

    def write(self, then: Written | None = None, *, again: bool = False) -> bool:
        """Have everything buffered written; nothing of it may be shown to anybody before.

        Waits for the disk no longer than write_thread.PATIENCE.

        Args:
            then: called, if this returns False, when all of it is written (with None), or when it
                is not (with the error).
            again: try, although there was no room before.

        Returns:
            Whether all of it is written.

        Raises:
            StorageError: nothing of it may be shown. With the code storage_full it stays buffered,
                and is written as soon as there is room.
        """
        if self.replica is not None:
            self.replica.send()
        if self._syncing.news:
            self._catch_up()
        if self._busy:
            self.collect()
        if self.failed is not None:
            raise self.failed
        self._wanted = self._position
        if self._written == self._position:
            return True
        if self.refusal is not None and not again:
            raise self.refusal
        if not self._busy:
            chunks = self._chunks
            if not chunks:
                chunk = Chunk(self._segment, self._buffer, self._position, self.appended)
                self._buffer, self.appended = bytearray(), {}
                chunks.append(chunk)
                if chunk.segment.now and self._write_now(chunk):
                    return True
            self._busy = True
            outcome = self._writing.hand_over(chunks[0])
            while outcome is not None:
                outcome = self._done(*outcome)
            if self._written == self._position:
                return True
            if self.refusal is not None and not self._busy:
                raise self.refusal
        if then is not None:
            self._awaited.append((self._position, then))
        return False

    async def written(self, *, again: bool = False) -> None:
        """`write`, and return when everything appended so far is written.

        Raises:
            StorageError: as `write`.
        """
        if not await self._until_written(again=again):
            await trio.lowlevel.checkpoint()

    async def _until_written(self, *, again: bool = False) -> bool:
        """`written`, which may return at once: whether it did not."""
        settled = trio.Event()
        failure: list[StorageError | None] = []

        def then(error: StorageError | None) -> None:
            failure.append(error)
            settled.set()

        if self.write(then, again=again):
            return False
        await settled.wait()
        if failure[0] is not None:
            raise failure[0]
        return True

    def collect(self) -> None:
        """Take note of what the thread is done with; on the trio thread."""
        outcome = self._writing.take()
        while outcome is not None:
            outcome = self._done(*outcome)

    def _write_now(self, chunk: Chunk) -> bool:
        """Write the only chunk: whether the system took all of it at once."""
        segment = chunk.segment
        try:
            chunk.done = self._files.write_now(segment.descriptor, chunk.data, segment.size)
        except OSError as error:
            if error.errno in NEVER_NOW:
                segment.now = False
        if chunk.done < len(chunk.data):
            return False
        self._done(chunk, None)
        return True

    def _chunk(self) -> None:
        """Queue the buffer as a chunk."""
        self._chunks.append(Chunk(self._segment, self._buffer, self._position, self.appended))
        self._buffer, self.appended = bytearray(), {}

    def _done(self, chunk: Chunk, refusal: StorageError | None) -> Outcome | None:
        """The oldest chunk is written, or could not be: what became of the next one, if any."""
        self._busy = False
        if refusal is not None:
            self._refuse(refusal)
            return None
        if self.failed is not None:
            return None
        self._chunks.popleft()
        size = len(chunk.data)
        chunk.segment.size += size
        self._written = chunk.end
        self.stats.writes += 1
        self.stats.bytes += size
        if self.refusal is not None:
            self.refusal = None
            log.warning("journal_accepts_again")
        if chunk.appended or self._retiring:
            self._unsynced.append((chunk.end, chunk.appended))
            syncing = self._syncing
            syncing.wanted = chunk.end
            if syncing.idle:
                syncing.idle = False
                syncing.rouse()
        if self._segment.size >= self._segment_bytes:
            self._work.set()
        outcome = None
        if not self._chunks and self._written < self._wanted:
            self._chunk()
        if self._chunks:
            self._busy = True
            outcome = self._writing.hand_over(self._chunks[0])
        awaited = self._awaited
        while awaited and awaited[0][0] <= self._written:
            awaited.popleft()[1](None)
        return outcome

    @abc.abstractmethod
    def _catch_up(self) -> None:
        """Take note of what the syncing thread has done."""

    def _refuse(self, refusal: StorageError) -> None:
        if self.refusal is None or self.refusal.message != refusal.message:
            log.error("journal_refuses", code=refusal.code, reason=refusal.message)
        self.refusal = refusal
        if refusal.code == StorageError.FAILED:
            self.failed = refusal
        self._work.set()
        awaited, self._awaited = self._awaited, deque()
        for _, then in awaited:
            then(refusal)

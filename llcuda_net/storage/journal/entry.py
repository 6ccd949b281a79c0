"""Appending to the journal: the entries of open generations, and the buffer that they share.

A record is encoded and framed once, into the buffer. `Appender.write` hands the whole buffer to the
system with one call, before anything of it is shown to anybody: the way of a token needs one
`JournalEntry.append` per generation and one `Appender.write` per batch.

The trio thread never waits for a disk. It writes itself only where the file system promises to
refuse rather than to wait (RWF_NOWAIT). All else goes to a thread, one hand-over per batch; what
comes meanwhile queues behind it, and is one write then.

A write that fails for lack of room leaves no torn record behind: the file is cut back to its last
whole record, and the rest is written when there is room. After any other failure the journal has
failed for good.
"""

from __future__ import annotations

import queue
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import NEVER_NOW, Files
from llcuda_net.storage.journal.segments import Segment
from llcuda_net.storage.journal.write_thread import Chunk
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
    Switch,
    Switched,
    encode,
    encoder,
    unstorable,
)

log = structlog.get_logger(__name__)

_encode = encoder.encode
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


class JournalEntry:
    """One open generation in the journal.

    Attributes:
        opened: how it began.
        splices: its continuations so far.
        switches: where its log changes between channels, so far.
        slot: its short number in the journal.
        count: pieces appended so far.
        dispatches: how often an upstream was asked so far.
        ends: how often its end was recorded so far.
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
        "ends",
        "level",
        "oldest",
        "opened",
        "slot",
        "splices",
        "switches",
        "synced",
    )

    def __init__(self, journal: Appender, opened: Opened, slot: int, oldest: int) -> None:
        self._journal = journal
        self.opened = opened
        self.splices: list[Splice] = []
        self.switches: list[Switch] = []
        self.slot = slot
        self.level = Level(opened.level)
        self.synced = self.level.synced
        self.oldest = oldest
        self.bytes = 0
        self.count = 0
        self.dispatches = 0
        self.ends = 0
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
            switches = len(self.switches)
            body = _encode(Appended(self.slot, self.count, pieces, ids, logprobs, counts, switches))
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

    def switch(self, switch: Switch) -> None:
        """Buffer that the log is of another channel from a piece on that was not appended yet.

        Raises:
            StorageError: as `append`.
        """
        self._add(Switched(self.slot, *switch))
        self.switches.append(switch)

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
        journal.add(self, self.encoded(ended))
        if self.synced:
            journal.appended[self] = self.count

    def encoded(self, ended: Ended) -> bytes:
        """The bytes of a further end."""
        ended.slot, ended.count, ended.number = self.slot, self.count, self.ends
        self.ends += 1
        return encode(ended)

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
        appended: entries with pieces in the buffer, and how many they then have.
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
        self._wanted = 0  # up to which it is to be written
        self._written = 0
        self._segment: Segment
        self._work = trio.Event()
        #: Handed over, oldest first. The thread has the first one while it is busy.
        self._chunks: deque[Chunk] = deque()
        self._busy = False
        self._for_thread: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        #: What the thread is done with, and why that could not be written.
        self._finished: deque[tuple[Chunk, StorageError | None]] = deque()
        self._awaited: deque[tuple[int, Written]] = deque()

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

    def write(self, then: Written | None = None, *, again: bool = False) -> bool:
        """Have everything buffered written; nothing of it may be shown to anybody before.

        Never waits for the disk.

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
        if self._finished:
            self.collect()
        if self.failed is not None:
            raise self.failed
        self._wanted = self._position
        if self._written == self._position:
            return True
        if self.refusal is not None and not again:
            raise self.refusal
        if not self._busy:
            if not self._chunks and self._segment.now and self._write_now():
                return True
            if not self._chunks:
                self._chunk()
            self._busy = True
            self._for_thread.put(self._chunks[0])
        if then is not None:
            self._awaited.append((self._position, then))
        return False

    async def written(self, *, again: bool = False) -> None:
        """`write`, and return when everything appended so far is written.

        Raises:
            StorageError: as `write`.
        """
        settled = trio.Event()
        failure: list[StorageError | None] = []

        def then(error: StorageError | None) -> None:
            failure.append(error)
            settled.set()

        if self.write(then, again=again):
            await trio.lowlevel.checkpoint()
            return
        await settled.wait()
        if failure[0] is not None:
            raise failure[0]

    def collect(self) -> None:
        """Take note of what the thread is done with; on the trio thread."""
        while self._finished:
            self._done(*self._finished.popleft())

    def _write_now(self) -> bool:
        """Make a chunk of the buffer: whether the system took all of it at once."""
        chunk = self._chunk()
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

    def _chunk(self) -> Chunk:
        """Make a chunk of the buffer."""
        chunk = Chunk(self._segment, self._buffer, self._position, self.appended)
        self._buffer, self.appended = bytearray(), {}
        self._chunks.append(chunk)
        return chunk

    def _done(self, chunk: Chunk, refusal: StorageError | None) -> None:
        """The oldest chunk is written, or could not be; runs on the trio thread."""
        self._busy = False
        if refusal is not None:
            self._refuse(refusal)
            return
        if self.failed is not None:
            return
        self._chunks.popleft()
        size = len(chunk.data)
        chunk.segment.size += size
        self._written = chunk.end
        self.stats.writes += 1
        self.stats.bytes += size
        if chunk.appended:
            self._unsynced.update(chunk.appended)
            self._work.set()
        elif self._segment.size >= self._segment_bytes:
            self._work.set()
        if self.refusal is not None:
            self.refusal = None
            log.warning("journal_accepts_again")
        if not self._chunks and self._written < self._wanted:
            self._chunk()
        if self._chunks:
            self._busy = True
            self._for_thread.put(self._chunks[0])
        awaited = self._awaited
        while awaited and awaited[0][0] <= self._written:
            awaited.popleft()[1](None)

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

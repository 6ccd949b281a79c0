"""The append-only journal, in which tokens become durable.

Rules, which the tests hold it to:

- What `write` has returned from survives our process; what a sync has covered survives a power cut.
- A sync that failed is never tried again, since the kernel may have dropped the data that it could
  not write and would report success: the journal has failed, for good.
- A full disk leaves no torn record behind: the file is cut back to the last whole one, what was
  buffered stays buffered, and is written when there is room.
- Segments are deleted oldest first, so that no record outlives one that it needs to be understood.

Appending and writing happen on the trio thread: a pwrite into the page cache takes microseconds.
Syncs run in a thread, one at a time, and all who wait share the next one.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files, RealFiles
from llcuda_net.storage.journal.entry import Log
from llcuda_net.storage.journal.recovery import OpenGeneration, Recovered, read, segment_path
from llcuda_net.storage.journal.segments import Segment, live_bodies, restate, start_segment
from llcuda_net.storage.records import Forgotten, Opened, encode

#: Seconds from the start of one sync to the next: with a quick disk, durable is under 20 ms behind.
INTERVAL = 0.015
#: Bytes after which a new segment is begun.
SEGMENT_BYTES = 64 << 20
#: Seconds between attempts to write to a disk that was full.
PROBE = 0.5
#: Closed segments that are kept before the oldest one's open generations are copied forward.
KEEP = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Figures:
    """What the journal did, for status and benchmarks: counts since the start, and its size now."""

    records: int = 0
    bytes: int = 0
    writes: int = 0
    syncs: int = 0
    segments: int = 0
    live_bytes: int = 0


class Journal:
    """The journal in one folder, which nobody else may write.

    Args:
        folder: exists, and holds nothing else.
        files: the disk.
        interval: seconds between syncs.
        segment_bytes: after which a new file is begun.

    Attributes:
        refusal: why nothing can be appended now; None: it can.
        failed: why nothing ever can until a restart; None: not so.
        on_state: called with `refusal` whenever that changes.
        on_sync: called with the seconds that each sync took; not from a thread.
    """

    def __init__(
        self,
        folder: Path,
        files: Files | None = None,
        *,
        interval: float = INTERVAL,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.refusal: StorageError | None = None
        self.failed: StorageError | None = None
        self.on_state: Callable[[StorageError | None], None] = lambda refusal: None
        self.on_sync: Callable[[float], None] = lambda seconds: None
        self.figures = Figures()
        #: Logs with entries that are not written yet, and those that are written but not synced.
        self.appended: dict[Log, int] = {}
        self._unsynced: dict[Log, int] = {}
        self._folder = folder
        self._files: Files = RealFiles() if files is None else files
        self._interval = interval
        self._segment_bytes = segment_bytes
        self._buffer = bytearray()
        self._position = 0  # of everything appended, in bytes since the start
        self._written = 0
        self._durable = 0
        self._segment: Segment
        self._retiring: list[Segment] = []  # closed to writing, with bytes that no sync covered
        self._closed: list[int] = []  # numbers of older segments, oldest first
        self._oldest: dict[int, set[Log]] = {}  # segment -> logs whose oldest record it holds
        self._next_slot = 1
        self._work = trio.Event()
        self._hurry = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()
        self._limiter = trio.CapacityLimiter(1)

    # -- opening ------------------------------------------------------------------------------

    def open(self) -> tuple[list[tuple[OpenGeneration, Log]], list[str]]:
        """Read what is there, and begin a segment that holds it anew. Blocks: for a thread.

        Everything is written again rather than kept, because what can be read need not be on the
        disk: after a failed sync the page cache still shows what was lost.

        Returns:
            The open generations, each with its log to be continued; and damage, one line each.

        Raises:
            StorageError: the journal cannot be read, or not be written.
        """
        found = read(self._folder, self._files)
        pairs = [(g, self._log_of(g, found)) for g in found.generations]
        try:
            self._segment = restate(self._folder, self._files, found, self._next_slot, pairs)
            self._unlink(list(found.segments.values()))
        except OSError as error:
            raise _as_storage_error(error) from error
        self._oldest[self._segment.number] = {log for _, log in pairs}
        self.figures.live_bytes = sum(log.bytes for _, log in pairs)
        self.figures.segments = 1
        return pairs, found.problems

    def _log_of(self, generation: OpenGeneration, found: Recovered) -> Log:
        slot = max(self._next_slot, found.next_slot)
        self._next_slot = slot + 1
        log = Log(self, slot, generation.opened.level, found.next_segment)
        log.count = log.durable = len(generation.log.pieces)
        if generation.dispatched is not None:
            log.dispatches = generation.dispatched.number + 1
        return log

    # -- appending ----------------------------------------------------------------------------

    def start(self, opened: Opened) -> Log:
        """Buffer that a generation was accepted; gives it a slot.

        Raises:
            StorageError: the journal has failed, its disk is full, or the request is too large.
        """
        if self.refusal is not None:
            raise self.refusal
        log = Log(self, self._next_slot, opened.level, self._segment.number)
        opened.slot = log.slot
        body = encode(opened)
        if len(body) > framing.MAX_BODY:
            raise StorageError(
                f"the request has {len(body)} bytes, at most {framing.MAX_BODY} can be stored",
                StorageError.INVALID,
            )
        self._next_slot += 1
        self.add(log, body)
        self._oldest.setdefault(self._segment.number, set()).add(log)
        if log.level.synced:
            self.appended[log] = 0
        return log

    def add(self, log: Log, body: bytes) -> None:
        """Buffer a record of a log."""
        size = self._frame(body)
        log.bytes += size
        self.figures.live_bytes += size

    def _frame(self, body: bytes | memoryview) -> int:
        size = framing.FRAME_SIZE + len(body)
        self._buffer += framing.frame(body, self._segment.seed)
        self._buffer += body
        self._segment.seed += 1
        self._position += size
        self.figures.records += 1
        return size

    def forget(self, log: Log) -> None:
        """See Log.forget."""
        holders = self._oldest.get(log.oldest)
        if holders is None or log not in holders:
            return
        holders.discard(log)
        self.figures.live_bytes -= log.bytes
        self.appended.pop(log, None)
        if self.failed is None:
            # Not synced: should it be lost, the store says that it has the result.
            self._frame(encode(Forgotten(log.slot)))
        if not holders and log.oldest != self._segment.number:
            self._work.set()

    # -- writing ------------------------------------------------------------------------------

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
        self.figures.writes += 1
        self.figures.bytes += size
        if self.appended:
            self._unsynced.update(self.appended)
            self.appended.clear()
            self._work.set()
        elif segment.size >= self._segment_bytes:
            self._work.set()
        if self.refusal is not None:
            self.refusal = None
            self.on_state(None)

    def _not_written(self, error: OSError) -> StorageError:
        refusal = _as_storage_error(error)
        try:
            # Nothing torn may stay in the middle, and cutting needs no room.
            self._files.truncate(self._segment.descriptor, self._segment.size)
        except OSError as worse:
            refusal = _as_storage_error(worse, failed=True)
        self._refuse(refusal)
        return refusal

    def _refuse(self, refusal: StorageError) -> None:
        known = self.refusal
        self.refusal = refusal
        if refusal.code == StorageError.FAILED:
            self.failed = refusal
            self._waiting.unpark_all()
        self._work.set()
        if known is None or known.code != refusal.code:
            self.on_state(refusal)

    # -- syncing ------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Return when everything appended so far would survive a power cut; `run` must be running.

        Raises:
            StorageError: it would not.
        """
        target = self._position
        self.write()
        while self._durable < target:
            if self.failed is not None:
                raise self.failed
            self._hurry.set()
            self._work.set()
            await self._waiting.park()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sync, rotate and delete until cancelled, and then sync and close."""
        task_status.started()
        started = -self._interval
        try:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                if self.failed is not None:
                    await trio.sleep_forever()
                if self.refusal is not None:
                    await trio.sleep(PROBE)
                    self._work.set()
                # What is waited for goes at once; the rest gathers until the interval is over.
                pause = started + self._interval - trio.current_time()
                if pause > 0:
                    with trio.move_on_after(pause):
                        await self._hurry.wait()
                self._hurry = trio.Event()
                started = trio.current_time()
                with trio.CancelScope(shield=True):
                    if await self._sync_written():
                        await self._tidy()
        finally:
            with trio.CancelScope(shield=True):
                await self._sync_written()
                # The descriptors' numbers will be other files': nothing may be written any more.
                closed = StorageError("the journal is closed")
                self.failed = self.failed or closed
                self.refusal = self.refusal or closed
                self._waiting.unpark_all()
                for segment in [*self._retiring, self._segment]:
                    self._files.close(segment.descriptor)

    async def _sync_written(self) -> bool:
        """Whether everything written so far has become durable."""
        try:
            self.write()
        except StorageError:
            if self.failed is not None:
                return False
        target = self._written
        if target == self._durable:
            self._waiting.unpark_all()
            return True
        batch, self._unsynced = self._unsynced, {}
        retiring, self._retiring = self._retiring, []
        segments = [*retiring, self._segment]
        self.figures.syncs += 1
        try:
            seconds = await trio.to_thread.run_sync(
                self._sync_segments, segments, limiter=self._limiter
            )
        except OSError as error:
            self._retiring = retiring + self._retiring
            self._refuse(_as_storage_error(error, failed=True))
            return False
        self.on_sync(seconds)
        for segment in retiring:
            self._files.close(segment.descriptor)
        self._durable = target
        for log, count in batch.items():
            if count > log.durable:
                log.durable = count
                if log.on_durable is not None:
                    log.on_durable(count)
        self._waiting.unpark_all()
        return True

    def _sync_segments(self, segments: list[Segment]) -> float:
        started = time.perf_counter()
        for segment in segments:  # oldest first: a later one alone would be of no use
            self._files.fdatasync(segment.descriptor)
        return time.perf_counter() - started

    # -- segments -----------------------------------------------------------------------------

    async def _tidy(self) -> None:
        try:
            if self._segment.size >= self._segment_bytes:
                await self._rotate()
                dead_weight = 2 * (self.figures.live_bytes // self._segment_bytes)
                if len(self._closed) > KEEP + dead_weight:
                    await self._copy_forward(self._closed[0])
            await self._delete()
        except OSError as error:
            # There is a journal still, only in a larger file: try again after the next sync.
            if error.errno not in _NO_ROOM:
                self._refuse(_as_storage_error(error, failed=True))
        except StorageError as error:  # an older segment cannot be read any more
            self._refuse(StorageError(error.message, StorageError.FAILED))

    async def _rotate(self) -> None:
        number = self._segment.number + 1
        header = framing.Header(number, self._next_slot)
        fresh = await trio.to_thread.run_sync(
            start_segment, self._folder, self._files, header, b"", limiter=self._limiter
        )
        try:
            self.write()  # the buffer is framed for the old segment
        except StorageError:
            self._files.close(fresh.descriptor)
            self._files.unlink(segment_path(self._folder, number))
            return
        self._retiring.append(self._segment)
        self._closed.append(self._segment.number)
        self._segment = fresh
        self.figures.segments += 1

    async def _copy_forward(self, number: int) -> None:
        """Write the records of the oldest segment's open generations anew."""
        holders = self._oldest.get(number, set())
        if holders:
            found = await trio.to_thread.run_sync(
                live_bodies,
                segment_path(self._folder, number),
                self._files,
                {log.slot for log in holders},
                limiter=self._limiter,
            )
            holders = self._oldest[number]
            slots = {log.slot for log in holders}
            for slot, body in found:
                if slot in slots:  # not forgotten meanwhile
                    self._frame(body)
            if not await self._sync_written():
                return
            for log in self._oldest.pop(number):
                log.oldest = number + 1  # or later; the next round finds out
                self._oldest.setdefault(number + 1, set()).add(log)

    async def _delete(self) -> None:
        gone = []
        while self._closed and not self._oldest.get(self._closed[0]):
            number = self._closed.pop(0)
            self._oldest.pop(number, None)
            gone.append(segment_path(self._folder, number))
        if gone:
            self.figures.segments -= len(gone)
            await trio.to_thread.run_sync(self._unlink, gone, limiter=self._limiter)

    def _unlink(self, paths: list[Path]) -> None:
        for path in paths:
            self._files.unlink(path)
            # One by one: after a power cut no later one may be gone where an earlier one is not.
            self._files.fsync_dir(self._folder)


def _as_storage_error(error: OSError, *, failed: bool = False) -> StorageError:
    if not failed and error.errno in _NO_ROOM:
        return StorageError(
            "there is no room for the journal: free some disk space, or choose another --data-dir",
            StorageError.FULL,
        )
    return StorageError(
        f"the journal cannot be written ({error.strerror or error}): "
        "check the disk, then restart llcuda-server",
        StorageError.FAILED,
    )

"""The append-only journal, in which tokens become durable.

Rules, which the tests hold it to:

- What `write` has returned from survives our process; what a sync has covered survives a power cut.
- A sync that failed is never tried again, since the kernel may have dropped the data that it could
  not write and would report success: the journal has failed, for good.
- A full disk leaves no torn record behind: the file is cut back to the last whole one, what was
  buffered stays buffered, and is written when there is room.
- Segments are deleted oldest first, so that no record outlives one that it needs to be understood.
- What a sync covered is marked, so that damage there is told from a torn tail. A damaged segment is
  set aside and never deleted.

Appending happens on the trio thread, which never waits for the disk: see entry. One thread writes;
syncs run in another, one at a time, and all who wait share the next one.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.disk import Files, RealFiles, as_storage_error, has_no_room
from llcuda_net.storage.journal.entry import Appender, JournalEntry
from llcuda_net.storage.journal.marks import Marks, mark
from llcuda_net.storage.journal.presence import Presence
from llcuda_net.storage.journal.recovery import (
    DAMAGED,
    FindLost,
    Progress,
    Recovered,
    read,
    segment_path,
)
from llcuda_net.storage.journal.reserve import Reserve
from llcuda_net.storage.journal.segments import Segment, live_bodies, restate, start_segment
from llcuda_net.storage.journal.write_thread import serve
from llcuda_net.storage.records import Ended, Forgotten, Opened, Stored, encode

#: Seconds from the start of one sync to the next: with a quick disk, durable is under 20 ms behind.
INTERVAL = 0.015
#: Bytes after which a new segment is begun.
SEGMENT_BYTES = 32 << 20
#: Seconds between attempts to write to a disk that was full.
PROBE = 0.5
#: Results of which the journal remembers that they were stored, the last ones.
REMEMBERED = 1024
#: Closed segments that are kept before the oldest one's open generations are copied forward.
KEEP = 3
#: Of how many segments they are copied for each new one: more than one, so that a journal shrinks
#: to what its bound allows.
_COPIES = 2
#: The part of a start that reads; the rest writes.
_READING = 0.9


class Journal(Appender):
    """The journal in one folder, which nobody else may write.

    Args:
        folder: exists, and holds nothing else.
        files: the disk.
        interval: seconds between syncs.
        segment_bytes: after which a new file is begun.
        on_sync: called with the seconds that each sync took; not from a thread.
        presence: checked with each sync; the journal has its segments watched.
    """

    def __init__(
        self,
        folder: Path,
        files: Files | None = None,
        *,
        interval: float = INTERVAL,
        segment_bytes: int = SEGMENT_BYTES,
        on_sync: Callable[[float], None] | None = None,
        presence: Presence | None = None,
    ) -> None:
        super().__init__(RealFiles() if files is None else files, segment_bytes)
        self._presence = presence or Presence(self._files)
        self._on_sync = on_sync
        self._folder = folder
        self._interval = interval
        self._durable = 0  # position up to which everything is on the disk
        self._retiring: list[Segment] = []  # closed to writing, with bytes that no sync covered
        self._closed: list[int] = []  # numbers of older segments, oldest first
        #: By number of a segment: the entries whose oldest record it holds.
        self._oldest: dict[int, set[JournalEntry]] = {}
        self._next_slot = 1
        self._marks = Marks(folder, self._files)
        self._reserve = Reserve(folder, self._files)
        self._one_at_a_time = trio.CapacityLimiter(1)  # in the reserve
        self._synced: dict[int, int] = {}  # of each segment, bytes that are on the disk
        self._stored: deque[tuple[str, int]] = deque(maxlen=REMEMBERED)
        self._hurry = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()
        self._limiter = trio.CapacityLimiter(1)
        self._progressed: set[JournalEntry] = set()
        self._progress = trio.Event()

    def __repr__(self) -> str:
        state = "failed" if self.failed else "refusing" if self.refusal else "open"
        unsynced = self._position - self._durable
        return (
            f"<Journal {self._folder} {state} unsynced={unsynced} segments={self.stats.segments}>"
        )

    # -- opening ------------------------------------------------------------------------------

    def open(
        self, find_lost: FindLost | None = None, progress: Progress = lambda _: None
    ) -> tuple[list[tuple[OpenGeneration, JournalEntry]], Recovered]:
        """Read what is there, and begin segments that hold it anew. Blocks: for a thread.

        Everything is written again rather than kept, because what can be read need not be on the
        disk: after a failed sync the page cache still shows what was lost.

        Args:
            find_lost: see recovery.read.
            progress: told how much of the work is done.

        Returns:
            The open generations, each with its entry to be continued; and all that was found.

        Raises:
            StorageError: the journal cannot be read, or not be written.
        """
        found = read(self._folder, self._files, find_lost, lambda part: progress(_READING * part))
        # The numbers of what was lost are given anew.
        stored = [one for one in found.stored.items() if one[0] not in found.lost]
        self._stored.extend(sorted(stored, key=lambda one: one[1]))
        pairs = [(g, self._entry_of(g, found)) for g in found.generations]
        try:
            segments = restate(
                self._folder,
                self._files,
                framing.Header(found.next_segment, max(self._next_slot, found.next_slot)),
                pairs,
                Stored(results=list(self._stored)),
                self._segment_bytes,
                lambda part: progress(_READING + (1 - _READING) * part),
            )
            *closed, self._segment = segments
            self._close(closed)
            self._closed += [segment.number for segment in closed]
            paths = [segment_path(self._folder, segment.number) for segment in segments]
            self._presence.watch(*paths)
            self._synced |= {segment.number: segment.size for segment in segments}
            self._marks.begin(self._synced)
            self._reserve.begin(self._next_slot)
            for number, path in found.segments.items():
                if number in found.damaged:
                    self._files.rename(path, path.with_name(path.name + DAMAGED))
                    self._files.fsync_dir(self._folder)
                else:
                    self._unlink([path])
        except OSError as error:
            raise as_storage_error(error) from error
        for _, entry in pairs:
            self._oldest.setdefault(entry.oldest, set()).add(entry)
        self.stats.live_bytes = sum(entry.bytes for _, entry in pairs)
        self.stats.segments = len(segments)
        return pairs, found

    def _entry_of(self, generation: OpenGeneration, found: Recovered) -> JournalEntry:
        slot = max(self._next_slot, found.next_slot)
        self._next_slot = slot + 1
        entry = JournalEntry(self, generation.opened, slot, found.next_segment)
        entry.splices = generation.splices
        entry.switches = generation.switches
        entry.count = entry.durable = generation.packed.count
        if generation.dispatched is not None:
            entry.dispatches = generation.dispatched.number + 1
        return entry

    # -- entries ------------------------------------------------------------------------------

    def start(self, opened: Opened) -> JournalEntry:
        """Buffer that a generation was accepted; gives it a slot.

        Raises:
            StorageError: the journal has failed, its disk is full, or the request is too large.
        """
        if self.refusal is not None:
            raise self.refusal
        entry = JournalEntry(self, opened, self._next_slot, self._segment.number)
        opened.slot = entry.slot
        body = encode(opened)
        if len(body) > framing.MAX_BODY:
            raise StorageError(
                f"the request has {len(body)} bytes, at most {framing.MAX_BODY} can be stored",
                StorageError.INVALID,
            )
        self._next_slot += 1
        self.add(entry, body)
        self._oldest.setdefault(self._segment.number, set()).add(entry)
        if entry.synced:
            self.appended[entry] = 0
        return entry

    def forget(self, entry: JournalEntry, reached: int = 0) -> None:
        """The store has the result: the journal need not keep the entry. Never raises.

        Args:
            reached: Store.reached, after the commit; 0 where no result was stored.
        """
        self._reserve.release(entry.slot)
        holders = self._oldest.get(entry.oldest)
        if holders is None or entry not in holders:
            return
        holders.discard(entry)
        self.stats.live_bytes -= entry.bytes
        self.appended.pop(entry, None)
        if self.failed is None:
            # Not synced: should it be lost, the store says that it has the result.
            id_ = entry.opened.generation if reached else ""
            self._add_loose(encode(Forgotten(entry.slot, id_, reached)))
            if reached:
                self._stored.append((id_, reached))
        if not holders and entry.oldest != self._segment.number:
            self._work.set()

    async def end(self, entry: JournalEntry, ended: Ended) -> None:
        """Record how a generation ended, and return when that is as safe as its level says; in the
        reserve, if the journal takes nothing.

        Raises:
            StorageError: it is recorded nowhere.
        """
        try:
            entry.end(ended)  # if there is no room, for later
            await (self.sync() if entry.synced else self.written())
        except StorageError:
            body = entry.encoded(ended)
            place = self._reserve.place(entry.slot, len(body))
            write = partial(self._reserve.write, place, body)
            await trio.to_thread.run_sync(write, limiter=self._one_at_a_time)

    async def progressed(self) -> set[JournalEntry]:
        """Entries of which more is on the disk than when this was called last; waits for one."""
        await self._progress.wait()
        found, self._progressed = self._progressed, set()
        self._progress = trio.Event()
        return found

    def stop(self, error: StorageError) -> None:
        """Take nothing any more: what is written would not be found again."""
        if self.failed is None:
            self._refuse(error)

    def _refuse(self, refusal: StorageError) -> None:
        super()._refuse(refusal)
        if self.failed is not None:
            self._waiting.unpark_all()

    # -- syncing ------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Return when everything appended so far would survive a power cut; `run` must be running.

        Raises:
            StorageError: it would not.
        """
        target = self._position
        await self.written()
        while self._durable < target:
            if self.failed is not None:
                raise self.failed
            self._hurry.set()
            self._work.set()
            await self._waiting.park()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sync, rotate and delete until cancelled, and then sync and close."""
        token = trio.lowlevel.current_trio_token()
        wake = partial(token.run_sync_soon, self.collect, idempotent=True)
        work = partial(serve, self._for_thread, self._files, self._finished, wake)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_in_thread, work)
                task_status.started()
                try:
                    await self._run()
                finally:
                    with trio.CancelScope(shield=True):
                        await self._sync_written()
                    closed = StorageError("the journal is closed")
                    self.failed = self.failed or closed
                    self.refusal = self.refusal or closed
                    self._waiting.unpark_all()
                    self._for_thread.put(None)
        finally:
            # After the thread's last write: the descriptors' numbers will be other files'.
            await _in_thread(self._close_all)

    async def _run(self) -> None:
        started = -self._interval
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

    def _close(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._files.close(segment.descriptor)

    def _close_all(self) -> None:
        self._close([*self._retiring, self._segment])
        self._marks.close()
        self._reserve.close()

    async def _sync_written(self) -> bool:
        """Whether everything written so far has become durable."""
        try:
            await self.written(again=True)
        except StorageError:
            if self.failed is not None:
                return False
        target = self._written
        if target == self._durable:
            self._waiting.unpark_all()
            return True
        batch, self._unsynced = self._unsynced, {}
        unwritten = {chunk.segment.number for chunk in self._chunks}
        segments = [*self._retiring, self._segment]
        ends = {segment.number: segment.size for segment in segments}
        over = [segment for segment in self._retiring if segment.number not in unwritten]
        self.stats.syncs += 1
        try:
            seconds = await trio.to_thread.run_sync(
                self._sync_segments, segments, over, self._synced | ends, limiter=self._limiter
            )
        except OSError as error:
            self._refuse(as_storage_error(error, failed=True))
            return False
        except StorageError as error:
            self._refuse(error)
            return False
        if self._on_sync is not None:
            self._on_sync(seconds)
        self._retiring = [segment for segment in self._retiring if segment not in over]
        self._durable = target
        self._synced |= ends
        if self.refusal is None:
            self._add_loose(encode(mark(self._synced)))  # with the next batch
        for entry, count in batch.items():
            if count > entry.durable:
                entry.durable = count
                self._progressed.add(entry)
        if self._progressed:
            self._progress.set()
        self._waiting.unpark_all()
        return True

    def _sync_segments(
        self, segments: list[Segment], over: list[Segment], ends: dict[int, int]
    ) -> float:
        started = time.perf_counter()
        for segment in segments:  # oldest first: a later one alone would be of no use
            self._files.fdatasync(segment.descriptor)
        seconds = time.perf_counter() - started
        self._presence.check()
        with contextlib.suppress(OSError):  # there are marks in the journal, too
            self._marks.write(ends)
        self._close(over)
        return seconds

    # -- segments -----------------------------------------------------------------------------

    async def _tidy(self) -> None:
        try:
            if self._segment.size >= self._segment_bytes:
                await self._rotate()
                for _ in range(_COPIES):
                    await self._delete()
                    dead_weight = 2 * (self.stats.live_bytes // self._segment_bytes)
                    if len(self._closed) > KEEP + dead_weight:
                        await self._copy_forward(self._closed[0])
            await self._delete()
        except OSError as error:
            # There is a journal still, only in a larger file: try again after the next sync.
            if not has_no_room(error):
                self._refuse(as_storage_error(error, failed=True))
        except StorageError as error:  # an older segment cannot be read any more
            self._refuse(StorageError(error.message, StorageError.FAILED))

    async def _rotate(self) -> None:
        number = self._segment.number + 1
        header = framing.Header(number, self._next_slot)
        fresh = await trio.to_thread.run_sync(self._start, header, limiter=self._limiter)
        if self._buffer:
            self._chunk()  # it is framed for the old segment
        self._retiring.append(self._segment)
        self._closed.append(self._segment.number)
        self._segment = fresh
        self._synced[fresh.number] = fresh.size
        self._add_loose(encode(Stored(results=list(self._stored))))
        self.stats.segments += 1

    def _start(self, header: framing.Header) -> Segment:
        segment = start_segment(self._folder, self._files, header)
        self._presence.watch(segment_path(self._folder, segment.number))
        return segment

    async def _copy_forward(self, number: int) -> None:
        """Write the records of the oldest segment's open generations anew."""
        holders = self._oldest.get(number, set())
        if holders:
            found = await trio.to_thread.run_sync(
                live_bodies,
                segment_path(self._folder, number),
                self._files,
                {entry.slot for entry in holders},
                limiter=self._limiter,
            )
            holders = self._oldest[number]
            slots = {entry.slot for entry in holders}
            for slot, body in found:
                if slot in slots:  # not forgotten meanwhile
                    self._add_loose(body)
            copied = self._position
            if not await self._sync_written() or self._durable < copied:
                return
            for entry in self._oldest.pop(number):
                entry.oldest = number + 1  # or later; the next round finds out
                self._oldest.setdefault(number + 1, set()).add(entry)

    async def _delete(self) -> None:
        gone = []
        retiring = {segment.number for segment in self._retiring}
        while self._closed and not (
            self._oldest.get(self._closed[0]) or self._closed[0] in retiring
        ):
            number = self._closed.pop(0)
            self._oldest.pop(number, None)
            self._synced.pop(number, None)
            gone.append(segment_path(self._folder, number))
        if gone:
            self.stats.segments -= len(gone)
            ends = dict(self._synced)
            await trio.to_thread.run_sync(self._remove, gone, ends, limiter=self._limiter)

    def _remove(self, paths: list[Path], ends: dict[int, int]) -> None:
        self._marks.write(ends, sync=True)  # first: one that is marked and gone is missed
        self._unlink(paths)

    def _unlink(self, paths: list[Path]) -> None:
        for path in paths:
            self._presence.forget(path)
            self._files.unlink(path)
            # One by one: after a power cut no later one may be gone where an earlier one is not.
            self._files.fsync_dir(self._folder)


async def _in_thread(work: Callable[[], object]) -> None:
    """Run something to its end in a thread of its own."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))

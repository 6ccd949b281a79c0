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
- `compact` leaves no record of what was forgotten before it: a new segment is begun, the records of
  what is open are copied there, and the older segments are deleted.

Appending happens on the trio thread, which never waits for the disk: see appender. One thread
writes (write_thread), another one syncs (sync_thread), and all who wait share the next sync.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.disk import Files, RealFiles, as_storage_error, has_no_room
from llcuda_net.storage.journal.durable import DurableAppender
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.marks import Marks
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
from llcuda_net.storage.journal.threads.sync_thread import INTERVAL
from llcuda_net.storage.records import Ended, Forgotten, Opened, Stored, encode
from llcuda_net.storage.replica.interface import Accept

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
_COPIES = 4
#: The part of a start that reads; the rest writes.
_READING = 0.9


class Journal(DurableAppender):
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
        files = RealFiles() if files is None else files
        super().__init__(
            files,
            Marks(folder, files),
            presence or Presence(files),
            interval=interval,
            segment_bytes=segment_bytes,
            on_sync=on_sync,
        )
        self._folder = folder
        self._closed: list[int] = []  # numbers of older segments, oldest first
        #: By number of a segment: the entries whose oldest record it holds.
        self._oldest: dict[int, set[JournalEntry]] = {}
        self._next_slot = 1
        self._reserve = Reserve(folder, self._files)
        self._one_at_a_time = trio.CapacityLimiter(1)  # in the reserve
        self._stored: deque[tuple[str, int]] = deque(maxlen=REMEMBERED)
        self._store: list[str] = []  # which one has these
        self._unwanted = 0  # segments up to this number are to go, whatever they hold
        self._compacted = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "failed" if self.failed else "refusing" if self.refusal else "open"
        unsynced = self._position - self._durable
        return (
            f"<Journal {self._folder} {state} unsynced={unsynced} segments={self.stats.segments}>"
        )

    # -- opening ------------------------------------------------------------------------------

    def open(
        self,
        find_lost: FindLost | None = None,
        progress: Progress = lambda _: None,
        store: Sequence[str] = (),
    ) -> tuple[list[tuple[OpenGeneration, JournalEntry]], Recovered]:
        """Read what is there, and begin segments that hold it anew. Blocks: for a thread.

        Everything is written again rather than kept, because what can be read need not be on the
        disk: after a failed sync the page cache still shows what was lost.

        Args:
            find_lost: see recovery.read.
            progress: told how much of the work is done.
            store: names of the store where results are from now on; see recovery.read.

        Returns:
            The open generations, each with its entry to be continued; and all that was found.

        Raises:
            StorageError: the journal cannot be read, or not be written.
        """
        self._store = list(store)
        found = read(
            self._folder, self._files, find_lost, lambda part: progress(_READING * part), store
        )
        # The numbers of what was lost are given anew.
        stored = [one for one in found.stored.items() if one[0] not in found.lost]
        self._stored.extend(sorted(stored, key=lambda one: one[1]))
        self._next_slot = max(self._next_slot, found.next_slot)
        pairs = [(g, self._entry_of(g, found.next_segment)) for g in found.generations]
        try:
            segments = restate(
                self._folder,
                self._files,
                framing.Header(found.next_segment, self._next_slot),
                pairs,
                Stored(results=list(self._stored), store=self._store),
                self._segment_bytes,
                lambda part: progress(_READING + (1 - _READING) * part),
            )
            *closed, self._segment = segments
            self._close(closed)
            self._closed += [segment.number for segment in closed]
            paths = [segment_path(self._folder, segment.number) for segment in segments]
            self._presence.watch(*paths)
            self._segments = (self._segment,)
            self._syncing.ends = {segment.number: segment.size for segment in segments}
            self._marks.begin(self._syncing.ends)
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

    def _entry_of(self, generation: OpenGeneration, segment: int) -> JournalEntry:
        entry = JournalEntry(self, generation.opened, self._next_slot, segment)
        self._next_slot += 1
        entry.splices = generation.splices
        entry.switches = generation.switches
        entry.count = entry.durable = generation.packed.count
        if generation.dispatched is not None:
            entry.dispatches = generation.dispatched.number + 1
        return entry

    # -- entries ------------------------------------------------------------------------------

    def entry_of(self, generation: OpenGeneration) -> JournalEntry:
        """An entry for a generation of another journal; `restate` buffers what it has."""
        entry = self._entry_of(generation, self._segment.number)
        entry.durable = 0
        return entry

    def restate(self, entry: JournalEntry, bodies: Iterable[bytes]) -> None:
        """Buffer records that another journal has of an entry, which is not mirrored yet.

        On a full disk they stay in the buffer; they are in the other journal.

        Raises:
            StorageError: the journal has failed.
        """
        if self.failed is not None:
            raise self.failed
        if not entry.bytes:
            entry.oldest = self._segment.number
            self._oldest.setdefault(entry.oldest, set()).add(entry)
        for body in bodies:
            self.add(entry, body)
        if entry.synced:
            self.appended[entry] = entry.count

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
        replica = self.replica
        if replica is not None:
            entry.mirror()
        self.add(entry, body)
        if replica is not None:
            replica.accept(entry, Accept.of(opened), entry.acceptance_awaited)
        self._oldest.setdefault(self._segment.number, set()).add(entry)
        if entry.synced:
            self.appended[entry] = 0
        return entry

    def forget(self, entry: JournalEntry, reached: int = 0, *, elsewhere: bool = False) -> None:
        """The store has the result: the journal need not keep the entry. Never raises.

        Args:
            reached: Store.reached, after the commit; 0 where no result was stored.
            elsewhere: another server has it: what the database says of it is not ours to change.
        """
        self._reserve.release(entry.slot)
        self._unfollow(entry)
        if entry.mirrored and self.replica is not None:
            self.replica.forget(
                entry.slot, entry.opened.generation, stored=reached > 0 or elsewhere
            )
            if not reached:
                self.replica.send()
            entry.mirrored = False
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

    async def copy(self) -> None:
        """Have the replica get all records of mirrored entries again; `run` must be running.

        Raises:
            StorageError: the journal cannot be read, or not be written.
        """
        replica = self.replica
        assert replica is not None
        await self.written()
        for number in [*self._closed, self._segment.number]:
            mirrored = {e.slot: e for holders in self._oldest.values() for e in holders}
            path = segment_path(self._folder, number)
            try:
                found = await trio.to_thread.run_sync(live_bodies, path, self._files, {*mirrored})
            except FileNotFoundError:  # nothing in it is open any more
                continue
            except OSError as error:
                raise as_storage_error(error) from error
            for slot, body in found:
                if (entry := mirrored[slot]).mirrored:
                    replica.add(slot, body, entry.awaited)
        for entry in {e for holders in self._oldest.values() for e in holders}:
            if entry.mirrored:
                replica.accept(entry, Accept.of(entry.opened), entry.acceptance_awaited)
        replica.send()

    async def compact(self) -> None:
        """Return when no file has records of what was forgotten before; `run` must be running.

        What is open is written anew, some at a time. Segments that were set aside as damaged stay.

        Raises:
            StorageError: the journal has failed. Where there is only no room, it is tried again.
        """
        number = self._segment.number
        self._unwanted = max(self._unwanted, number)
        self._work.set()
        while self._first <= number:
            if self.failed is not None:
                raise self.failed
            await self._compacted.park()

    @property
    def _first(self) -> int:
        """The number of the oldest segment."""
        return self._closed[0] if self._closed else self._segment.number

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

    # -- running ------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write, sync, rotate and delete until cancelled, and then sync and close."""
        soon = partial(trio.lowlevel.current_trio_token().run_sync_soon, idempotent=True)
        self._writing.wake = partial(soon, self.collect)
        self._syncing.wake = partial(soon, self._catch_up)
        try:
            async with trio.open_nursery() as nursery:
                for work in (self._writing.serve, self._syncing.serve):
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
                    self._compacted.unpark_all()
                    self._writing.stop()
                    self._syncing.stop()
        finally:
            # After the threads' last calls: the descriptors' numbers will be other files'.
            await _in_thread(self._close_all)

    async def _run(self) -> None:
        """Do what is to be done now and then."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if self.failed is not None:
                await trio.sleep_forever()
            if self.refusal is not None:
                await trio.sleep(PROBE)
                self._work.set()
            with trio.CancelScope(shield=True):
                if self.refusal is not None:
                    with contextlib.suppress(StorageError):
                        await self.written(again=True)
                if self.failed is None:
                    await self._tidy()
            if self.failed is not None:
                self._compacted.unpark_all()
            elif self._first <= self._unwanted:
                await trio.sleep(PROBE)
                self._work.set()

    def _close_all(self) -> None:
        self._close(self._segments)
        self._marks.close()
        self._reserve.close()

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
            await self._compact()
        except OSError as error:
            # There is a journal still, only in a larger file: try again after the next sync.
            if not has_no_room(error):
                self._refuse(as_storage_error(error, failed=True))
        except StorageError as error:  # an older segment cannot be read any more
            self._refuse(StorageError(error.message, StorageError.FAILED))

    async def _compact(self) -> None:
        """Have the segments deleted that are to go; what is not done now is done later."""
        if self._first > self._unwanted:
            return
        while self._first <= self._unwanted:
            if self._segment.number <= self._unwanted:
                await self._rotate()
            oldest = self._first
            await self._copy_forward(oldest)
            if not await self._sync_written():
                return
            await self._delete()
            if self._first == oldest:
                return
        await trio.to_thread.run_sync(self._reserve.wipe, limiter=self._one_at_a_time)
        self._compacted.unpark_all()

    async def _rotate(self) -> None:
        header = framing.Header(self._segment.number + 1, self._next_slot)
        fresh = await self._syncing.call(partial(self._start, header))
        if self._buffer:
            self._chunk()  # it is framed for the old segment
        self._retiring.append((self._position, self._segment))
        self._closed.append(self._segment.number)
        self._segment = fresh
        self._segments = (*self._segments, fresh)
        self._syncing.wanted = self._written
        self._syncing.rouse()
        self._add_loose(encode(Stored(results=list(self._stored), store=self._store)))
        self.stats.segments += 1

    def _start(self, header: framing.Header) -> Segment:
        segment = start_segment(self._folder, self._files, header)
        self._presence.watch(segment_path(self._folder, segment.number))
        return segment

    async def _copy_forward(self, number: int) -> None:
        """Write the records of the oldest segment's open generations anew."""
        holders = self._oldest.get(number, set())
        if holders:
            path = segment_path(self._folder, number)
            slots = {entry.slot for entry in holders}
            found = await trio.to_thread.run_sync(live_bodies, path, self._files, slots)
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
        retiring = {segment.number for _, segment in self._retiring}
        while self._closed and not (
            self._oldest.get(self._closed[0]) or self._closed[0] in retiring
        ):
            number = self._closed.pop(0)
            self._oldest.pop(number, None)
            gone.append(number)
        if gone:
            self.stats.segments -= len(gone)
            await self._syncing.call(partial(self._remove, gone))

    def _remove(self, gone: list[int]) -> None:
        ends = {number: end for number, end in self._syncing.ends.items() if number not in gone}
        self._syncing.ends = ends
        self._marks.write(ends, sync=True)  # first: one that is marked and gone is missed
        self._unlink([segment_path(self._folder, number) for number in gone])

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

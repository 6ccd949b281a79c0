"""Making durable what is appended: those who wait for the disk, and those who follow it.

A sync happens in a thread of its own, beside the event loop: see threads.sync_thread. What it has
covered is noted with the next write, or when somebody waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.appender import Appender
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.marks import Marks, mark
from llcuda_net.storage.journal.presence import Presence
from llcuda_net.storage.journal.segments import Segment
from llcuda_net.storage.journal.threads.sync_thread import SyncThread
from llcuda_net.storage.records import encode


class DurableAppender(Appender):
    """An appender whose records are synced.

    Args:
        on_sync: called with the seconds that each sync took; not from a thread.
        See SyncThread for the others.
    """

    def __init__(
        self,
        files: Files,
        marks: Marks,
        presence: Presence,
        *,
        interval: float,
        segment_bytes: int,
        on_sync: Callable[[float], None] | None,
    ) -> None:
        super().__init__(files, segment_bytes)
        self._marks = marks
        self._presence = presence
        self._on_sync = on_sync
        self._durable = 0  # position up to which everything is on the disk, as far as is known here
        #: With bytes that no sync covered, oldest first; the last one is being written.
        self._segments: tuple[Segment, ...] = ()
        self._syncing = SyncThread(files, marks, presence, self._look, interval)
        self._waiting = trio.lowlevel.ParkingLot()
        self._followed: set[JournalEntry] = set()
        self._progressed: set[JournalEntry] = set()
        self._progress = trio.Event()

    def _look(self) -> tuple[int, Sequence[Segment]]:
        """What a sync is to cover; called in its thread."""
        position = self._written  # first: a segment that begins after that is not needed
        return position, self._segments

    def _catch_up(self) -> None:
        """Take note of what the syncing thread has done."""
        syncing = self._syncing
        syncing.news = False
        self.stats.syncs = syncing.syncs
        while syncing.seconds:
            seconds = syncing.seconds.popleft()
            if self._on_sync is not None:
                self._on_sync(seconds)
        if syncing.failed is not None:
            if self.failed is None:
                self._refuse(syncing.failed)
            return
        if syncing.durable == self._durable:
            return
        self._durable = syncing.told = syncing.durable
        if self.refusal is None:
            self._add_loose(encode(mark(syncing.ends)))  # with the next batch
        grown: dict[JournalEntry, int] = {}
        while self._unsynced and self._unsynced[0][0] <= self._durable:
            grown |= self._unsynced.popleft()[1]
        for entry, count in grown.items():
            entry.durable = max(entry.durable, count)
        if self._followed:
            self._progressed |= self._followed & grown.keys()
            if self._progressed:
                self._progress.set()
        over = []
        while self._retiring and self._retiring[0][0] <= self._durable:
            over.append(self._retiring.popleft()[1])
        if over:
            self._segments = tuple(one for one in self._segments if one not in over)
            self._syncing.order(partial(self._close, over))
            self._work.set()
        self._waiting.unpark_all()

    async def sync(self) -> None:
        """Return when everything appended so far would survive a power cut; `run` must be running.

        Raises:
            StorageError: it would not.
        """
        target = self._position
        await self._until_written()
        await self._until_durable(target)

    async def _until_durable(self, target: int) -> None:
        parked = False
        while self._durable < target:
            if self.failed is not None:
                raise self.failed
            # It notices that we wait, or we notice that it is done.
            self._syncing.hurry(target)
            if self._syncing.news:
                self._catch_up()
            else:
                parked = True
                await self._waiting.park()
        if not parked:
            await trio.lowlevel.checkpoint()

    async def _sync_written(self) -> bool:
        """Whether everything written so far has become durable."""
        with contextlib.suppress(StorageError):
            await self.written(again=True)
        try:
            await self._until_durable(self._written)
        except StorageError:
            return False
        return True

    def _close(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self._files.close(segment.descriptor)

    def follow(self, entry: JournalEntry) -> None:
        """Have `progressed` tell of an entry; see JournalEntry.follow."""
        self._followed.add(entry)
        self._syncing.followed = True

    def _unfollow(self, entry: JournalEntry) -> None:
        self._followed.discard(entry)
        self._progressed.discard(entry)
        self._syncing.followed = bool(self._followed)

    async def progressed(self) -> set[JournalEntry]:
        """Of the followed entries those of which more is on the disk than when this was called
        last; waits for one. Not at once after the sync: with the next write, or somewhat later.
        """
        while not self._progressed:
            self._progress = trio.Event()
            await self._progress.wait()
        found, self._progressed = self._progressed, set()
        return found

    def stop(self, error: StorageError) -> None:
        """Take nothing any more: what is written would not be found again."""
        if self.failed is None:
            self._refuse(error)

    def _refuse(self, refusal: StorageError) -> None:
        super()._refuse(refusal)
        if self.failed is not None:
            self._waiting.unpark_all()

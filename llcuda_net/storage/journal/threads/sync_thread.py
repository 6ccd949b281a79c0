"""The thread that syncs the journal, at its own rhythm and beside the event loop.

It looks by itself how far the journal is written, and says how far it is on the disk in attributes,
which the trio thread reads when it writes the next time anyhow. It wakes the trio thread only for
those who wait for a sync, for a failure, and, a while after a sync, for those who follow the disk
and would otherwise not be told.

All else that blocks and must not happen beside a sync is done by this thread, too.
"""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import Files, as_storage_error
from llcuda_net.storage.journal.marks import Marks
from llcuda_net.storage.journal.presence import Presence
from llcuda_net.storage.journal.segments import Segment
from llcuda_net.storage.journal.threads.orders import ordered

log = structlog.get_logger(__name__)

#: Seconds from the start of one sync to the next: with a quick disk, durable is under 20 ms behind.
INTERVAL = 0.015
#: Seconds after a sync in which the trio thread may find out by itself.
TELL = 0.02

_T = TypeVar("_T")
#: How far the journal is written, and the segments that this is in, oldest first.
Look = Callable[[], tuple[int, Sequence[Segment]]]


class SyncThread:
    """Syncs the segments of one journal. All but `serve` is for the trio thread.

    Args:
        files: the disk.
        marks: are written after each sync.
        presence: is checked after each sync.
        look: called in the thread.
        interval: seconds from one sync to the next, where nobody waits.

    Attributes:
        wake: has the trio thread read the attributes below; set before `serve` runs.
        news: whether they have changed; reset by the reader, before it reads.
        durable: position up to which everything is on the disk.
        ends: of each segment, bytes that are on the disk; replaced by each sync.
        failed: why there will be no sync any more.
        syncs: how many were tried.
        seconds: that each sync took which nobody has noted yet.
        wanted: position up to which everything is to be synced, which is written, when the
            interval is over; set by the writer, who then rouses a thread that is idle.
        idle: whether it waits for something to be wanted. The thread says so, and then looks what
            is wanted; the writer says what it wants, and then looks whether it is idle. So one of
            them notices.
        rouse: has it look again.
        told: position of which the trio thread knows that it is durable.
        followed: whether somebody wants to be told of each sync, though not at once.
    """

    def __init__(
        self, files: Files, marks: Marks, presence: Presence, look: Look, interval: float
    ) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.news = False
        self.durable = 0
        self.ends: dict[int, int] = {}
        self.failed: StorageError | None = None
        self.syncs = 0
        self.seconds: deque[float] = deque()
        self.wanted = 0
        self.idle = False
        self.told = 0
        self.followed = False
        self._files = files
        self._marks = marks
        self._presence = presence
        self._look = look
        self._interval = interval
        self._awaited = 0  # as `wanted`, at once, since somebody waits
        #: What to do beside syncing; None: look again.
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.rouse = partial(self._orders.put, None)  # once per batch: a call of ours less
        self._stopping = False

    def __repr__(self) -> str:
        return f"<SyncThread durable={self.durable} wanted={self.wanted} syncs={self.syncs}>"

    def hurry(self, position: int) -> None:
        """Have everything up to a position synced now, and wake the trio thread then."""
        self._awaited = max(self._awaited, position)
        self.wanted = max(self.wanted, position)
        self.rouse()

    async def call(self, work: Callable[[], _T]) -> _T:
        """Do something in the thread, not beside a sync, to its end; raises what it raises."""
        return await ordered(self._orders.put, work)

    def order(self, work: Callable[[], object]) -> None:
        """The same, of which nobody waits for the end; it must not raise."""
        self._orders.put(work)

    def stop(self) -> None:
        """Have the thread end, after what it does now and was ordered to do."""
        self._orders.put(partial(setattr, self, "_stopping", True))

    # -- in the thread ------------------------------------------------------------------------

    def serve(self) -> None:
        """Sync until `stop`. For a thread."""
        due = tell = 0.0
        while not self._stopping:
            if self.told >= self.durable:
                tell = 0.0
            self.idle = True
            until = tell or math.inf
            if self.wanted > self.durable and self.failed is None:
                self.idle = False
                until = min(until, 0.0 if self._awaited > self.durable else due)
            try:
                pause = None if until == math.inf else max(0.0, until - time.monotonic())
                work = self._orders.get(timeout=pause)
            except queue.Empty:
                now = time.monotonic()
                if tell and now >= tell:
                    self.wake()
                    tell = 0.0
                if not self.idle and (self._awaited > self.durable or now >= due):
                    due = now + self._interval
                    self._sync()
                    tell = now + TELL if self.followed and not tell else tell
            else:
                if work is not None:
                    work()

    def _sync(self) -> None:
        before = self.durable
        self.syncs += 1
        try:
            # In this order: what is written meanwhile is in these segments, or in later ones.
            position, segments = self._look()
            ends = self.ends | {segment.number: segment.size for segment in segments}
            started = time.perf_counter()
            for segment in segments:  # oldest first: a later one alone would be of no use
                self._files.fdatasync(segment.descriptor)
            seconds = time.perf_counter() - started
            self._presence.check()
        except OSError as error:
            self.failed = as_storage_error(error, failed=True)
        except StorageError as error:
            self.failed = error
        except Exception as error:  # whoever waits must be told
            log.exception("journal_not_synced")
            self.failed = StorageError(f"a bug: {type(error).__name__}", StorageError.FAILED)
        else:
            with contextlib.suppress(OSError):  # there are marks in the journal, too
                self._marks.write(ends)
            self.ends = ends
            self.seconds.append(seconds)
            self.durable = position
        self.news = True
        # Also one who came meanwhile may have what it waits for.
        if self._awaited > before or self.failed is not None:
            self.wake()

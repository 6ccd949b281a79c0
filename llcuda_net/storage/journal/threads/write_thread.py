"""The thread that writes where a write may have to wait for the disk.

It serves one chunk at a time. A write into the page cache takes microseconds, and to wake the trio
thread costs more than that. So the trio thread waits for the chunk that it hands over, for a
bounded time, in which the other one has the interpreter lock. Where that was too short, the next
hand-overs do not wait: each miss in a row doubles how many. Then the thread wakes the trio thread,
at most every PACE seconds; one that is awake anyhow looks by itself what is finished, so that under
load tokens wait for the next ones rather than for the pace.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import Files, as_storage_error
from llcuda_net.storage.journal.segments import Segment

log = structlog.get_logger(__name__)

#: Seconds for which a hand-over waits, at most.
PATIENCE = 0.0003
#: Most hand-overs in a row that do not wait.
MOST_SKIPPED = 255
#: Seconds from one time that the trio thread is woken to the next, at least.
PACE = 0.001


class Chunk(msgspec.Struct, eq=False):
    """Records that are to be written to a segment, after all that it has.

    Attributes:
        data: their bytes.
        end: position of the last one's end in all that was ever appended.
        appended: entries with pieces in it, and how many they then have.
        done: bytes of it that are written.
    """

    segment: Segment
    data: bytearray
    end: int
    appended: dict[Any, int] = {}
    done: int = 0


#: A chunk that the thread is done with, and why it could not be written.
Outcome = tuple[Chunk, StorageError | None]


class WriteThread:
    """Writes chunks. All but `serve` is for the trio thread.

    Args:
        files: the disk.

    Attributes:
        wake: has the trio thread `take` what is finished; set before `serve` runs.
    """

    def __init__(self, files: Files) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._files = files
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._serving = False
        self._watched = False  # whether somebody waits for the chunk that is being written
        self._misses = 0  # in a row
        self._skip = 0  # so many hand-overs do not wait

    def __repr__(self) -> str:
        return f"<WriteThread misses={self._misses}>"

    def hand_over(self, chunk: Chunk) -> Outcome | None:
        """Have a chunk written; the one before has been taken.

        Returns:
            What became of it; None: it takes longer, `wake` tells when it may be taken.
        """
        watched = self._watched = self._serving and self._skip == 0
        self._chunks.put(chunk)
        if not watched:
            self._skip = max(0, self._skip - 1)
            return None
        try:
            outcome = self._finished.get(timeout=PATIENCE)
        except queue.Empty:
            self._watched = False  # now the thread wakes us; or it has just finished
            self._misses += 1
            self._skip = min((1 << self._misses) - 1, MOST_SKIPPED)
            return self.take()
        self._misses = 0
        return outcome

    def take(self) -> Outcome | None:
        """What became of the chunk that was handed over; None: it is still being written."""
        return None if self._finished.empty() else self._finished.get_nowait()

    def stop(self) -> None:
        """Have the thread end, after what was handed over."""
        self._chunks.put(None)

    def serve(self) -> None:
        """Write each chunk, until `stop`. For a thread."""
        woken, unseen = 0.0, False
        self._serving = True
        while True:
            pause = max(0.0, woken + PACE - time.monotonic()) if unseen else None
            try:
                chunk = self._chunks.get(timeout=pause)
            except queue.Empty:
                woken, unseen = time.monotonic(), False
                self.wake()
                continue
            if chunk is None:
                return
            try:
                refusal = write_whole(self._files, chunk)
            except Exception as error:  # whoever waits must be told
                log.exception("journal_not_written")
                refusal = StorageError(f"a bug: {type(error).__name__}")
            self._finished.put((chunk, refusal))
            unseen = not self._watched


def write_whole(files: Files, chunk: Chunk) -> StorageError | None:
    """Write a chunk; or cut the file back to its last whole record, and say why."""
    segment, data = chunk.segment, chunk.data
    try:
        while chunk.done < len(data):  # a short write says nothing; the next one says why
            # A copy: a view, kept by an exception, would keep the buffer from growing.
            rest = bytes(data[chunk.done :]) if chunk.done else data
            chunk.done += files.pwrite(segment.descriptor, rest, segment.size + chunk.done)
    except OSError as error:
        chunk.done = 0
        refusal = as_storage_error(error)
        try:
            # Nothing torn may stay in the middle, and cutting needs no room.
            files.truncate(segment.descriptor, segment.size)
        except OSError as worse:
            refusal = as_storage_error(worse, failed=True)
        return refusal
    return None

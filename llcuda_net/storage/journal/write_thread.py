"""The thread that writes where a write may have to wait for the disk.

It serves one chunk at a time. To wake the trio thread costs more than the write, so that it is done
at most every PACE seconds. A trio thread that is awake anyhow looks by itself what is finished, so
that under load tokens wait for the next ones rather than for the pace.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import Files, as_storage_error
from llcuda_net.storage.journal.segments import Segment

log = structlog.get_logger(__name__)

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


def serve(
    chunks: queue.SimpleQueue[Chunk | None],
    files: Files,
    finished: deque[tuple[Chunk, StorageError | None]],
    wake: Callable[[], None],
) -> None:
    """Write each chunk, until a None comes. For a thread.

    Args:
        chunks: the next one comes when the one before has been taken from `finished`.
        finished: gets each chunk, with why it could not be written.
        wake: has the trio thread look at `finished`.
    """
    woken, unseen = 0.0, False
    while True:
        pause = max(0.0, woken + PACE - time.monotonic()) if unseen else None
        try:
            chunk = chunks.get(timeout=pause)
        except queue.Empty:
            woken, unseen = time.monotonic(), False
            wake()
            continue
        if chunk is None:
            return
        try:
            refusal = write_whole(files, chunk)
        except Exception as error:  # whoever waits must be told
            log.exception("journal_not_written")
            refusal = StorageError(f"a bug: {type(error).__name__}")
        finished.append((chunk, refusal))
        unseen = True


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

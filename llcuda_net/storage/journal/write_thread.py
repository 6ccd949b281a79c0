"""The thread that writes where a write may have to wait for the disk.

It serves one chunk at a time. A report wakes the trio thread, which costs more than the write, so
that reports come at most every PACE seconds: under a load that high the chunks get longer instead.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.disk import Files, as_storage_error
from llcuda_net.storage.journal.segments import Segment

log = structlog.get_logger(__name__)

#: Seconds from one report to the next, at least.
PACE = 0.005


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
    token: trio.lowlevel.TrioToken,
    done: Callable[[Chunk, StorageError | None], None],
) -> None:
    """Write each chunk and report it on the trio thread, until a None comes. For a thread."""
    reported = 0.0
    while (chunk := chunks.get()) is not None:
        try:
            refusal = write_whole(files, chunk)
        except Exception as error:  # whoever waits must be told
            log.exception("journal_not_written")
            refusal = StorageError(f"a bug: {type(error).__name__}")
        early = reported + PACE - time.monotonic()
        if early > 0:
            time.sleep(early)
        reported = time.monotonic()
        token.run_sync_soon(done, chunk, refusal)


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

"""Room for what must still be written when there is none: how generations ended.

An error is told to a client only when the next server will know of it. So the journal's folder has
a file of zeros, written while there was room, into which ends are written when the journal itself
takes nothing. Overwriting needs no new blocks, but on a file system that never overwrites (Btrfs,
ZFS) it may fail, too; then the error says that the outcome is not known.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files, as_storage_error

log = structlog.get_logger(__name__)

NAME = "reserve"
#: Bytes: more than 500 ends.
SIZE = 1 << 20
_END = bytes(framing.FRAME_SIZE)  # of the records, where older ones follow


@dataclass(frozen=True)
class Place:
    """Where a record goes, and the start value of its CRC."""

    at: int
    seed: int


class Reserve:
    """The file of one journal. `begin`, `write` and `close` block: for threads, one at a time."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._path = folder / NAME
        self._files = files
        self._descriptor: int | None = None
        self._header = framing.Header(0, 0)
        self._at = framing.HEADER_SIZE
        self._count = 0
        self._used = self._at  # up to where records were written, and may still be
        self._slots: set[int] = set()

    def __repr__(self) -> str:
        return f"<Reserve {self._path} {self._at} of {SIZE} bytes used>"

    def read(self) -> list[bytes]:
        """The bodies of the records that an earlier server left.

        Raises:
            OSError: the file cannot be read.
            NewerFormat: it is of a later format.
        """
        try:
            data = self._files.read(self._path)
            header = framing.Header.decode(data)
        except NewerFormat:
            raise
        except (FileNotFoundError, StorageError):
            return []
        found = framing.scan(data, header.seed)  # with its zeros: a record may end in some
        return [bytes(body) for _, _, body in found if body is not None]

    def begin(self, slot: int) -> None:
        """Replace the file of an earlier server, where there is room.

        Args:
            slot: the lowest that no generation has; no two files have the same.
        """
        self._header = framing.Header(0, slot)
        data = self._header.encode().ljust(SIZE, b"\0")
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._path)
        try:
            descriptor = self._files.create(self._path)
            try:
                done = 0
                while done < len(data):
                    done += self._files.pwrite(descriptor, data[done:], done)
                self._files.fdatasync(descriptor)
            except OSError:
                self._files.close(descriptor)
                self._files.unlink(self._path)
                raise
        except OSError as error:
            log.warning("journal_without_reserve", reason=error.strerror or str(error))
        else:
            self._descriptor = descriptor

    def place(self, slot: int, size: int) -> Place:
        """Reserve room for a record; on the trio thread.

        Raises:
            StorageError: there is none.
        """
        end = self._at + framing.FRAME_SIZE + size
        if self._descriptor is None or end + len(_END) > SIZE:
            raise StorageError("the journal has no reserve left", StorageError.FULL)
        out = Place(self._at, self._header.seed + self._count)
        self._at = end
        self._used = max(self._used, end)
        self._count += 1
        self._slots.add(slot)
        return out

    def write(self, place: Place, body: bytes) -> None:
        """Write a record; it is on the disk when this returns.

        Raises:
            StorageError: it is not.
        """
        assert self._descriptor is not None
        data = framing.frame(body, place.seed) + body + _END
        try:
            if self._files.pwrite(self._descriptor, data, place.at) < len(data):
                raise StorageError("the journal's reserve took a part only", StorageError.FULL)
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            raise as_storage_error(error) from error

    def release(self, slot: int) -> None:
        """The store has the result of a generation; on the trio thread."""
        if slot in self._slots:
            self._slots.discard(slot)
            if not self._slots:
                self._at, self._count = framing.HEADER_SIZE, 0

    def wipe(self) -> None:
        """Overwrite the records that are needed no more, if none is needed.

        Raises:
            OSError: the file system failed.
        """
        # A record that gets its place meanwhile is written after this.
        if self._descriptor is None or self._slots or self._used == framing.HEADER_SIZE:
            return
        data, done = bytes(self._used - framing.HEADER_SIZE), 0
        while done < len(data):
            at = framing.HEADER_SIZE + done
            done += self._files.pwrite(self._descriptor, data[done:], at)
        self._files.fdatasync(self._descriptor)
        self._used = framing.HEADER_SIZE

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            self._files.close(self._descriptor)
            self._descriptor = None

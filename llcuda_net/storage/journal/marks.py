"""How far the segments were on the disk: what tells damage from the tail that a power cut leaves.

A mark is written after the sync that it speaks of, so it never claims too much: into the journal
itself, as a record of the next batch, and at once into a file of its own, which also knows of a
segment that was cut, and of one that is gone.
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.records import Synced, decode, encode

NAME = "synced"
#: Most segments in one mark: then its file stays within one sector.
_MOST = 32


class Marks:
    """The file of marks in a journal's folder. Its methods block: for threads, one at a time."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._path = folder / NAME
        self._files = files
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<Marks {self._path}>"

    def read(self) -> dict[int, int]:
        """Of each segment that was there at the last sync, how many bytes were on the disk.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            data = self._files.read(self._path)
        except FileNotFoundError:
            return {}
        if len(data) < framing.FRAME_SIZE:
            return {}
        length, crc = framing.FRAME.unpack_from(data)
        body = data[framing.FRAME_SIZE : framing.FRAME_SIZE + length]
        with contextlib.suppress(StorageError):
            if zlib.crc32(body) == crc and isinstance(mark := decode(body), Synced):
                return dict(mark.ends)
        return {}  # it was only one of two witnesses

    def begin(self, ends: dict[int, int]) -> None:
        """Replace the file that an earlier server left.

        Raises:
            OSError: the file system failed.
        """
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._path)
        self._descriptor = self._files.create(self._path)
        self.write(ends, sync=True)

    def write(self, ends: dict[int, int], *, sync: bool = False) -> None:
        """Write that so many bytes of each segment are on the disk.

        Raises:
            OSError: the file system failed.
        """
        if self._descriptor is None:
            return
        body = encode(mark(ends))
        self._files.pwrite(self._descriptor, framing.frame(body, 0) + body, 0)
        if sync:
            self._files.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            self._files.close(self._descriptor)
            self._descriptor = None


def mark(ends: dict[int, int]) -> Synced:
    """The record that says so."""
    return Synced(ends=sorted(ends.items())[-_MOST:])


def note(synced: Synced, ends: dict[int, int]) -> None:
    """Take what a mark says into what is known."""
    for number, end in synced.ends:
        ends[number] = max(ends.get(number, 0), end)

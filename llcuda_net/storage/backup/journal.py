"""The journal of a data directory at one moment, while its server goes on writing it.

All segments are opened, and their sizes are read from the newest to the oldest. A server writes a
segment only when it has written the one before to its end, so what lies within these sizes is all
that was written up to a moment, whole; a record that is half written there is a torn tail. An open
file stays, also where its server deletes it.

What is open then is written anew, as a server's start writes it. Results that are to be erased
are left out: no copy is to have them when their time is over.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal import marks, recovery, reserve
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.journal.journal import REMEMBERED, SEGMENT_BYTES
from llcuda_net.storage.journal.segments import restate
from llcuda_net.storage.records import Stored

_SEGMENT = ".journal"
#: Attempts to open all that is there, while a server deletes and makes files.
_TRIES = 100


class JournalMoment(RealFiles):
    """The files of a journal at the moment at which this was made; `release` them.

    Args:
        quiet: no server uses it, so that its marks say what was on the disk.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self.folder = folder
        self._quiet = quiet
        self._names = (reserve.NAME, marks.NAME) if quiet else (reserve.NAME,)
        self._open: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        for _ in range(_TRIES):
            if self._take():
                return
        raise StorageError(f"the journal in {folder} changes all the time", StorageError.BUSY)

    def __repr__(self) -> str:
        return f"<JournalMoment of {self.folder}, {sum(self._sizes.values()):,} bytes>"

    def _take(self) -> bool:
        names = sorted(
            name
            for name in (super().listdir(self.folder) if self.folder.is_dir() else ())
            if name.endswith(_SEGMENT) or name in self._names
        )
        try:
            for name in names:
                path = self.folder / name
                self._open[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            for name in reversed(names):
                self._sizes[name] = os.fstat(self._open[name]).st_size
        except FileNotFoundError:
            self.release()
            return False
        except BaseException:
            self.release()
            raise
        # One that was just begun has no records, and the one before it may not be whole yet.
        begun = [name for name in names if name.endswith(_SEGMENT)] if not self._quiet else []
        while begun and self._sizes[begun[-1]] <= framing.HEADER_SIZE:
            os.close(self._open.pop(begun.pop()))
        return True

    def listdir(self, folder: Path) -> list[str]:
        """See Files."""
        return list(self._open)

    def read(self, path: Path) -> bytes:
        """See Files."""
        if path.name not in self._open:
            raise FileNotFoundError(path)
        descriptor, size = self._open[path.name], self._sizes[path.name]
        parts, at = [], 0
        while at < size and (part := os.pread(descriptor, size - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def release(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._sizes.clear()


@dataclass
class _Place:
    """Where a generation is written; see segments.Place."""

    slot: int
    bytes: int = 0
    oldest: int = 0


def write(moment: JournalMoment, folder: Path, store: list[str]) -> int:
    """Write what was open at a moment into an empty folder, on the disk when this returns.

    Args:
        store: names of the store whose results the journal remembers; empty: not known.

    Returns:
        How many generations were open.

    Raises:
        OSError: it cannot be written.
        StorageError: the journal cannot be read, or is damaged.
    """
    found = recovery.read(moment.folder, moment, store=store)
    if found.problems:
        raise StorageError(
            f"the journal in {moment.folder} is damaged ({found.problems[0]}): restart "
            "llcuda-server, which saves what can be read of it, and try again",
            StorageError.DAMAGED,
        )
    generations = [one for one in found.generations if not one.opened.transient]
    stored = sorted(found.stored.items(), key=lambda one: one[1])[-REMEMBERED:] if store else []
    files = RealFiles()
    segments = restate(
        folder,
        files,
        framing.Header(1, len(generations) + 1),
        [(one, _Place(slot)) for slot, one in enumerate(generations, 1)],
        Stored(results=stored, store=store),
        SEGMENT_BYTES,
    )
    for segment in segments:
        files.close(segment.descriptor)
    known = marks.Marks(folder, files)
    known.begin({segment.number: segment.size for segment in segments})
    known.close()
    return sum(one.ended is None for one in generations)

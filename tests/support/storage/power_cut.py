"""Disks that lose what was not synced.

Everything that is done to a disk is recorded, in order, beside what was acknowledged. A power cut
at any moment is then a choice: of each write that no sync covered, all, nothing or any of its
sectors is on the disk, whatever became of the writes before it; of files made or deleted since the
folder was synced, any may be there.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECTOR = 512
#: A write, or a cut: offset and data, or the size and None.
Change = tuple[int, bytes | None]


class Recorder:
    """What happened to a disk; an event's index is a moment at which the power may go."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.lock = threading.RLock()

    def note(self, *event: Any) -> None:
        with self.lock:
            self.events.append(event)

    def image(self, moment: int, rng: random.Random, *, syncs: bool = True) -> dict[str, bytes]:
        """The files after a power cut; without `syncs`, of a disk that only says that it synced."""
        synced: dict[str, bytes] = {}
        pending: dict[str, list[Change]] = {}
        lasting: set[str] = set()  # names that the folder's sync has covered
        names: set[str] = set()
        for event in self.events[:moment]:
            kind, name = event[0], event[1] if len(event) > 1 else ""
            if kind == "create":
                synced[name], pending[name] = b"", []
                names.add(name)
            elif kind == "change":
                pending[name].append(event[2])
            elif kind == "sync" and syncs:
                for change in pending[name]:
                    synced[name] = apply(synced[name], change)
                pending[name] = []
            elif kind == "unlink":
                names.discard(name)
            elif kind == "rename":
                # Both names may be there until the folder is synced.
                synced[event[2]], pending[event[2]] = synced[name], list(pending[name])
                names.discard(name)
                names.add(event[2])
            elif kind == "sync_dir" and syncs:
                lasting = set(names)
        there = {n for n in names | lasting if n in names & lasting or rng.random() < 0.5}
        return {n: _after(synced[n], pending[n], rng) for n in there}

    def acknowledged(self, moment: int) -> list[Any]:
        return [event[1] for event in self.events[:moment] if event[0] == "acknowledged"]


def apply(data: bytes, change: Change) -> bytes:
    at, new = change
    if new is None:
        return data[:at].ljust(at, b"\0")
    return data[:at].ljust(at, b"\0") + new + data[at + len(new) :]


def _after(data: bytes, changes: list[Change], rng: random.Random) -> bytes:
    mood = rng.random()  # often everything or nothing survives, since extremes find most
    for at, new in changes:
        if new is None:
            if rng.random() < mood:
                data = apply(data, (at, None))
            continue
        start = 0
        while start < len(new):
            end = min(len(new), start + SECTOR - (at + start) % SECTOR)
            if rng.random() < mood:
                data = apply(data, (at + start, new[start:end]))
            start = end
    return data


class SimulatedFiles:
    """A disk in memory, for the journal.

    Attributes:
        room: bytes that still fit; None: no end.
        now: whether it takes writes that must not wait.
        sync_error: raised by each fdatasync, before it does anything.
        before_sync: called in the thread that syncs.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.recorder = Recorder()
        self.room: int | None = None
        self.now = True
        self.sync_error: OSError | None = None
        self.before_sync: Callable[[], None] = lambda: None
        self.syncs = 0
        self.files = {name: bytearray(data) for name, data in (files or {}).items()}
        self._open: dict[int, str] = {}
        self._next = 1000
        for name, data in self.files.items():
            self.recorder.note("create", name)
            self.recorder.note("change", name, (0, bytes(data)))
            self.recorder.note("sync", name)
        self.recorder.note("sync_dir")

    def listdir(self, folder: Path) -> list[str]:
        return list(self.files)

    def read(self, path: Path) -> bytes:
        try:
            return bytes(self.files[path.name])
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def create(self, path: Path) -> int:
        if path.name in self.files:
            raise FileExistsError(path.name)
        self._next += 1
        self._open[self._next] = path.name
        self.files[path.name] = bytearray()
        self.recorder.note("create", path.name)
        return self._next

    def pwrite(self, descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        name = self._open[descriptor]
        with self.recorder.lock:
            new = bytes(data)
            growth = max(0, offset + len(new) - len(self.files[name]))
            if self.room is not None and growth > self.room:
                new = new[: len(new) - growth + self.room]
                if not new:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                growth = self.room
            if self.room is not None:
                self.room -= growth
            self.files[name][:] = apply(bytes(self.files[name]), (offset, new))
            self.recorder.note("change", name, (offset, new))
        return len(new)

    def write_now(self, descriptor: int, data: bytes | bytearray, offset: int) -> int:
        if not self.now:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return self.pwrite(descriptor, data, offset)

    def fdatasync(self, descriptor: int) -> None:
        self.before_sync()
        if self.sync_error is not None:
            raise self.sync_error
        self.syncs += 1
        self.recorder.note("sync", self._open[descriptor])

    def truncate(self, descriptor: int, size: int) -> None:
        name = self._open[descriptor]
        if self.room is not None:
            self.room += max(0, len(self.files[name]) - size)
        self.files[name][:] = apply(bytes(self.files[name]), (size, None))
        self.recorder.note("change", name, (size, None))

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def unlink(self, path: Path) -> None:
        if path.name not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        del self.files[path.name]
        self.recorder.note("unlink", path.name)

    def rename(self, path: Path, new: Path) -> None:
        self.files[new.name] = self.files.pop(path.name)
        self.recorder.note("rename", path.name, new.name)

    def identity(self, path: Path) -> tuple[int, int]:
        try:
            return 0, id(self.files[path.name])
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def fsync_dir(self, folder: Path) -> None:
        self.recorder.note("sync_dir")

"""Disks on which a write waits until the test lets it go."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import trio

from llcuda_net.storage.journal.disk import RealFiles
from tests.support.storage.power_cut import SimulatedFiles

PATIENCE = 300.0


class Stall:
    """A gate before each pwrite.

    Attributes:
        stalled: a write waits; set from its thread.
    """

    def __init__(self) -> None:
        self.stalled = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def begin(self) -> None:
        self.stalled.clear()
        self._open.clear()

    def end(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        if not self._open.is_set():
            self.stalled.set()
            assert self._open.wait(PATIENCE)

    async def reached(self) -> None:
        """Return when a write waits."""
        assert await trio.to_thread.run_sync(self.stalled.wait, PATIENCE)


class StallingFiles(RealFiles):
    """A real disk on which writes wait."""

    def __init__(self) -> None:
        self.stall = Stall()

    def write_now(self, descriptor: int, data: Any, offset: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        self.stall.pass_through()
        return os.pwrite(descriptor, data, offset)


class StallingMemory(SimulatedFiles):
    """A disk in memory on which writes wait, and which writes at once no more than `at_once`."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        super().__init__(files)
        self.stall = Stall()
        self.at_once = 0
        self.writes: list[bytes] = []

    def write_now(self, descriptor: int, data: bytes | bytearray, offset: int) -> int:
        if not self.now:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if not self.at_once:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return super().pwrite(descriptor, bytes(data[: self.at_once]), offset)

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        self.stall.pass_through()
        self.writes.append(bytes(data))
        return super().pwrite(descriptor, data, offset)

"""The GPU's memory: where it comes from, and how it goes back in the order of the streams.

Memory belongs to the stream that it was made on, its home: what is freed there is taken again by
what is queued there later. Where another stream has worked with it, home waits for that stream
before the memory goes back. So nobody gets memory that is still read or written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import driver
from .driver import Place, _here
from .shim import core


class Memory:
    """Some of the GPU's memory; it goes back when nobody holds it any more."""

    __slots__ = ("_buffer", "_others", "handle", "home", "place")

    def __init__(self, buffer: Any, place: Place, home: Any) -> None:
        self._buffer, self.place, self.home = buffer, place, home
        self.handle = int(buffer.handle)
        self._others: dict[int, Any] | None = None

    def ready(self, stream: Any) -> None:
        """Let the current stream, `stream`, wait for all that was queued with this memory."""
        waiting = driver.handle_of(stream)
        for other in (self.home, *(self._others or {}).values()):
            if other is not stream and not _closed(other):
                driver.wait_for(waiting, driver.handle_of(other))

    def used(self, stream: Any) -> None:
        """Another stream than home has worked with it."""
        if stream is not self.home:
            if self._others is None:
                self._others = {}
            self._others[int(driver.handle_of(stream))] = stream

    def __del__(self) -> None:
        if self._others and not sys.is_finalizing():
            with driver.at(self.place):
                if not _closed(self.home):
                    for other in self._others.values():
                        if not _closed(other):
                            driver.wait_for(driver.handle_of(self.home), driver.handle_of(other))
                self._buffer = None


def _closed(stream: Any) -> bool:
    """A stream that was closed was waited for first (`StreamManager`)."""
    return bool(getattr(stream, "is_closed", False))


class Recording:
    """Memory for a sequence that runs twice: the second run gets what the first one was given.

    So what is recorded in a graph has memory of its own, which lives as long as the graph.
    """

    def __init__(self) -> None:
        self.memory: list[tuple[int, Memory]] = []
        self._next: int | None = None
        self.libraries: set[Any] = set()  # those whose arrays the sequence was given

    @property
    def records(self) -> bool:
        """Whether this is the second run: nothing is executed."""
        return self._next is not None

    def again(self) -> None:
        """From now on give what was given."""
        self._next = 0

    def allocate(self, size: int) -> Memory:
        """The next memory. Raises RuntimeError where the second run wants another size."""
        if self._next is None:
            made = _new(size)
            self.memory.append((size, made))
            return made
        if self._next >= len(self.memory) or self.memory[self._next][0] != size:
            raise RuntimeError(
                "the sequence takes other memory the second time: it must do the same each time"
            )
        self._next += 1
        return self.memory[self._next - 1][1]


def at_home(memory: Any) -> bool:
    """Whether the current stream is the only one that has worked with a memory, on one GPU."""
    return (
        type(memory) is Memory
        and memory.home is getattr(_here, "stream", None)
        and memory.place is getattr(_here, "place", None)
        and not memory._others
        and getattr(_here, "recording", None) is None
        and driver.count() == 1
    )


def recording() -> Recording | None:
    """What this thread records, if it does."""
    return getattr(_here, "recording", None)


def set_recording(new: Recording | None) -> None:
    """Begin or end to record."""
    _here.recording = new


def allocate(size: int) -> Any:
    """Device memory, in the order of the current stream: from the recording, the pool in use, the
    library of the user's arrays, or the device's own pool.
    """
    found = recording()
    if found is not None:
        return found.allocate(size)
    lends = lender()
    if lends is not None and getattr(_here, "pool", None) is None:
        return lends(size)
    return _new(size)


def _new(size: int) -> Memory:
    where, home = driver.place(), driver.stream()
    pool = getattr(_here, "pool", None)
    if pool is not None:
        return Memory(pool.allocate(size), where, home)
    return Memory(where.device.memory_resource.allocate(size, stream=home), where, home)


def set_pool(new: Any) -> Any:
    """Make a pool this thread's, or none; the one that was."""
    old = getattr(_here, "pool", None)
    _here.pool = new
    return old


def lender() -> Callable[[int], Any] | None:
    """Whom this thread's operations get memory from, if no pool is in use; None: from our own."""
    found: Callable[[int], Any] | None = getattr(_here, "lender", None)
    return found


def set_lender(new: Callable[[int], Any] | None) -> None:
    """Make it another one."""
    _here.lender = new


def source(kind: str) -> Any:
    """A pool of cuda.core of our own, on the current device."""
    if kind == "device":
        return core.DeviceMemoryResource(driver.device(), core.DeviceMemoryResourceOptions())
    driver.device()
    return core.PinnedMemoryResource(core.PinnedMemoryResourceOptions())

"""Keeps the server's memory within its bounds, and tells what takes it.

Twice a second it looks at what the process takes, has generations ended and logs dropped where
that is too much, and gives free memory back after much of it was in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import structlog
import trio

from llcuda_net.config.settings import LEAST_MEMORY
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.budget import DEFAULT, Bounds, MemoryBudget
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.server.garbage import Garbage
from llcuda_net.server.tcp.room import Incoming, Unsent
from llcuda_net.util import process_memory

log = structlog.get_logger(__name__)

#: Seconds between two looks.
INTERVAL = 0.5
#: Bytes by which what we count must have fallen before free memory is given back.
_WORTH = 8 << 20
#: The same for bytes by which the process has grown, and seconds between two times for that.
_GROWN, _PAUSE = 16 << 20, 5.0


class Held:
    """What takes memory for a user and is not over.

    Args:
        running: what runs here.
        followed: returns what other servers run and this one reads.
    """

    def __init__(
        self, running: Iterable[Generation], followed: Callable[[], Iterable[Generation]]
    ) -> None:
        self._running = running
        self._followed = followed

    def __iter__(self) -> Iterator[Generation]:
        yield from self._running
        yield from (one for one in self._followed() if not one.ended)


class MemoryGuard:
    """Watches over the memory of one server.

    Args:
        bounds: what may take how much.
        budget: of the generations that wait or run.
        shelf: the logs of those that are over.
    """

    def __init__(self, bounds: Bounds, budget: MemoryBudget, shelf: Shelf) -> None:
        self.bounds = bounds
        self.unsent = Unsent(bounds.unsent)
        self.incoming = Incoming(bounds.incoming)
        self._budget = budget
        self._shelf = shelf
        self.garbage = Garbage()
        self._allocator = process_memory.Allocator()
        self._highest = 0
        self._trimmed = 0  # bytes that the process took after memory was last given back
        self._trim_at = -math.inf

    def __repr__(self) -> str:
        return f"<MemoryGuard {self.counted:,} of {self.bounds.limit:,} bytes>"

    @property
    def counted(self) -> int:
        """Bytes that we know of."""
        return self._budget.running + self._shelf.size + self.unsent.waiting + self.incoming.waiting

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            self.look(process_memory.resident())

    def look(self, resident: int) -> None:
        """Do what must be done where the process takes so many bytes."""
        counted = self.counted
        self._highest = max(self._highest, counted)
        # Where what clients made us hold is little, refusing them would not help.
        near = resident > self.bounds.limit * 9 // 10 and counted > self.bounds.limit // 32
        if near:
            self._shelf.clear()
        if near is not self._budget.pressed:
            self._budget.pressed = near
            log.warning(
                "memory_near_limit" if near else "memory_relieved",
                resident=resident,
                limit=self.bounds.limit,
            )
        self._budget.relieve(resident if near else 0)
        idle = not self._budget.running
        collected = self.garbage.look(resident, idle=idle)
        # What is free is not seen from here: where the process has grown, some of it may be.
        grown = resident - self._trimmed > _GROWN and trio.current_time() >= self._trim_at
        if near or grown or self._highest - counted > _WORTH:
            if idle and not collected:
                self.garbage.collect(resident)  # nobody waits for a token now
            self._allocator.trim()
            self._highest = counted
            self._trimmed = min(resident, process_memory.resident())
            self._trim_at = trio.current_time() + _PAUSE

    def report(self) -> dict[str, int]:
        """What takes how much, in bytes; the keys of `memory` in a status report."""
        bounds = self.bounds
        return {
            "resident": process_memory.resident(),
            "limit": bounds.limit,
            "running": self._budget.running,
            "running_limit": bounds.running,
            "user_limit": bounds.user,
            "generation_limit": bounds.generation,
            "finished": self._shelf.size,
            "finished_limit": bounds.finished,
            "unsent": self.unsent.waiting,
            "unsent_limit": bounds.unsent,
            "incoming": self.incoming.waiting,
            "incoming_limit": bounds.incoming,
            "refused": self._budget.refused,
            "ended": self._budget.ended,
            "dropped": self._shelf.dropped,
            "read_again": self._shelf.read_again,
        }


def limit_of(given: int | None) -> int:
    """The bytes that the process may take: as given, or half of what its control group may."""
    if given is not None:
        return given
    group = process_memory.cgroup_limit()
    return DEFAULT if group is None else max(LEAST_MEMORY, group // 2)

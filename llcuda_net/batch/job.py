"""A batch from its beginning to its end, on every rank."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from llcuda_net.batch.distributor import WorkQueue
from llcuda_net.batch.mpi import LONGEST_POLL, POLL, Communicator
from llcuda_net.batch.rank import FROM_ZERO, TO_ZERO, Rank, Tally, merge

#: Seconds between two calls of `progress`.
_PROGRESS = 0.2


@dataclass(slots=True)
class Done:
    """What a job came to, for the report.

    Attributes:
        seconds: by the wall clock.
        tally: of all ranks together.
        capacity: requests that could be under way at once, on all ranks.
        notes: what happened to ranks, one line each.
        without: ranks that lost their server for good.
        stranded: lines were left, since no rank has a server.
    """

    seconds: float
    tally: Tally
    capacity: int
    notes: list[str] = field(default_factory=list)
    without: int = 0
    stranded: bool = False


async def run(
    communicator: Communicator,
    rank: Rank,
    inflight: int,
    queue: WorkQueue | None,
    progress: Callable[[WorkQueue], None],
    note: Callable[[str], None],
) -> Done | None:
    """Work, and on rank 0 distribute the work.

    Args:
        queue: on rank 0; None on the others.
        progress: called on rank 0 some times per second.
        note: called on rank 0 with one line when a rank loses its server, or finds it again.

    Returns:
        on rank 0 what it came to; None on the others.

    Raises:
        ConfigError: on rank 0: the output is another job's, or cannot be written.
    """
    begin = time.monotonic()
    director = None if queue is None else _Director(communicator, queue, progress, note)
    raised: list[Exception] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rank.run)
        if director is not None:
            try:
                await director.run()
            except Exception as error:  # the other ranks must be let go first
                raised.append(error)
                director.dismiss()
    await communicator.flush()
    merged = await communicator.reduce(rank.tally.packed(), merge)
    if raised:
        raise raised[0]
    if director is None:
        return None
    return Done(
        time.monotonic() - begin,
        Tally.unpacked(merged),
        inflight * communicator.size,
        director.notes,
        len(director.gone),
        director.stranded,
    )


class _Director:
    """Rank 0's messages to and from all ranks, its own among them."""

    def __init__(
        self,
        communicator: Communicator,
        queue: WorkQueue,
        progress: Callable[[WorkQueue], None],
        note: Callable[[str], None],
    ) -> None:
        self.notes: list[str] = []
        self.gone: set[int] = set()
        self.stranded = False
        self._communicator = communicator
        self._queue = queue
        self._progress = progress
        self._note = note
        self._free = dict.fromkeys(range(communicator.size), 0)
        self._most = dict.fromkeys(range(communicator.size), 0)
        self._down: set[int] = set()
        self._next_progress = 0.0

    async def run(self) -> None:
        """Run until every line is written, or no rank is left that could ask one."""
        pause = POLL
        while True:
            self._communicator.look()
            received = False
            while (found := self._communicator.take(TO_ZERO)) is not None:
                self._handle(*found[1])
                received = True
            given = self._give()
            if trio.current_time() >= self._next_progress:
                self._next_progress = trio.current_time() + _PROGRESS
                self._progress(self._queue)
            if self._queue.over:
                break
            if len(self.gone) == self._communicator.size:
                self.stranded = True
                break
            pause = POLL if received or given else min(LONGEST_POLL, pause * 1.5)
            await trio.sleep(pause)
        self.dismiss()

    def dismiss(self) -> None:
        """Send every rank the end of the work."""
        for rank in range(self._communicator.size):
            self._communicator.send(rank, FROM_ZERO, None)

    def _handle(self, rank: int, what: str, *rest: Any) -> None:
        now = trio.current_time()
        if what == "done":
            self._queue.finished(rest[0])
            self._room(rank)
        elif what == "wrong":
            self._queue.went_wrong(rest[0], rest[1], now)
            self._room(rank)
        elif what == "up":
            self._free[rank] = self._most[rank] = rest[0]
            if rank in self._down:
                self._down.discard(rank)
                self._report(f"{self._name(rank)}the server is there again")
        else:
            why, final = rest
            self._free[rank] = 0
            lost = self._queue.give_back(rank, now)
            if rank not in self._down or final:
                more = f"; {lost} lines are asked again" if lost else ""
                self._report(f"{self._name(rank)}{why}{more}")
            self._down.add(rank)
            if final:
                self.gone.add(rank)

    def _name(self, rank: int) -> str:
        return f"rank {rank}: " if self._communicator.size > 1 else ""

    def _room(self, rank: int) -> None:
        """One of a rank's requests is over."""
        self._free[rank] = min(self._most[rank], self._free[rank] + 1)

    def _report(self, text: str) -> None:
        self.notes.append(text)
        self._note(text)

    def _give(self) -> bool:
        """Hand out as much as there is room for, in turn; whether there was any."""
        given = False
        again = True
        while again:
            again = False
            for rank, free in self._free.items():
                if free > 0 and rank not in self._down:
                    line = self._queue.take(rank, trio.current_time())
                    if line is None:
                        return given
                    self._free[rank] -= 1
                    self._communicator.send(rank, FROM_ZERO, line)
                    given = again = True
        return given

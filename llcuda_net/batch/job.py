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


@dataclass(slots=True)
class Done:
    """What a job came to, for the report.

    Attributes:
        seconds: by the wall clock.
        tally: of all ranks together.
        capacity: requests that could be under way at once, on all ranks.
        notes: what happened to ranks, one line each.
        without: ranks that have no server any more.
        stranded: lines were left, since no rank has one.
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
    hand_out: WorkQueue | None,
    progress: Callable[[WorkQueue], None],
    note: Callable[[str], None],
) -> Done | None:
    """Work, and on rank 0 hand out the work.

    Args:
        hand_out: on rank 0; None on the others.
        progress: called on rank 0 now and then.
        note: called on rank 0 with one line when a rank loses its server, or finds it again.

    Returns:
        on rank 0 what it came to; None on the others.

    Raises:
        ConfigError: on rank 0: the output is another job's, or cannot be written.
    """
    begin = time.monotonic()
    director = None if hand_out is None else _Director(communicator, hand_out, progress, note)
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
    """Rank 0's conversation with all ranks, its own among them."""

    def __init__(
        self,
        communicator: Communicator,
        hand_out: WorkQueue,
        progress: Callable[[WorkQueue], None],
        note: Callable[[str], None],
    ) -> None:
        self.notes: list[str] = []
        self.gone: set[int] = set()
        self.stranded = False
        self._communicator = communicator
        self._hand_out = hand_out
        self._progress = progress
        self._note = note
        self._free = dict.fromkeys(range(communicator.size), 0)
        self._most = dict.fromkeys(range(communicator.size), 0)
        self._down: set[int] = set()

    async def run(self) -> None:
        """Until every line is written, or no rank is left that could ask one."""
        pause = POLL
        while True:
            self._communicator.look()
            heard = False
            while (found := self._communicator.take(TO_ZERO)) is not None:
                self._hear(*found[1])
                heard = True
            given = self._give()
            self._progress(self._hand_out)
            if self._hand_out.over:
                break
            if len(self.gone) == self._communicator.size:
                self.stranded = True
                break
            pause = POLL if heard or given else min(LONGEST_POLL, pause * 1.5)
            await trio.sleep(pause)
        self.dismiss()

    def dismiss(self) -> None:
        """Tell every rank that there is no more."""
        for rank in range(self._communicator.size):
            self._communicator.send(rank, FROM_ZERO, None)

    def _hear(self, rank: int, what: str, *rest: Any) -> None:
        now = trio.current_time()
        if what == "done":
            self._hand_out.finished(rest[0])
            self._room(rank)
        elif what == "wrong":
            self._hand_out.went_wrong(rest[0], rest[1], now)
            self._room(rank)
        elif what == "up":
            self._free[rank] = self._most[rank] = rest[0]
            if rank in self._down:
                self._down.discard(rank)
                self._tell(f"{self._name(rank)}the server is there again")
        else:
            why, final = rest
            self._free[rank] = 0
            lost = self._hand_out.give_back(rank, now)
            if rank not in self._down or final:
                more = f"; {lost} lines are asked again" if lost else ""
                self._tell(f"{self._name(rank)}{why}{more}")
            self._down.add(rank)
            if final:
                self.gone.add(rank)

    def _name(self, rank: int) -> str:
        return f"rank {rank}: " if self._communicator.size > 1 else ""

    def _room(self, rank: int) -> None:
        """One of a rank's requests is over."""
        self._free[rank] = min(self._most[rank], self._free[rank] + 1)

    def _tell(self, text: str) -> None:
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
                    line = self._hand_out.take(rank, trio.current_time())
                    if line is None:
                        return given
                    self._free[rank] -= 1
                    self._communicator.send(rank, FROM_ZERO, line)
                    given = again = True
        return given

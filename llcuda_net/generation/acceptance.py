"""Accepts generations: each when its request is as safe as its level says.

Upstreams do not wait for that. A generation runs while its request is journalled, and its readers
get nothing of it before it is accepted (see `Generation.accepted`): what a client has been told
survives, and what it has not been told may be lost with the server. One that cannot be kept is
stopped, which cancels what its upstream does.

All that come while the disk is busy share the next sync, and are accepted in one turn.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import trio

from llcuda_net.errors import InvalidRequest, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.storage.journal.entry import JournalEntry

#: Each is False, False, False or begins with True; see _kind.
_KINDS = [(False, False, False), *product((True,), (False, True), (False, True))]
#: Tasks per kind of level: while one waits for a sync, the other asks for the one behind it.
_WAITERS = 2


class Acceptance:
    """Waits for the journal, and accepts.

    Args:
        persistence: holds the requests.
        publish: sends what was added for the readers.
    """

    def __init__(self, persistence: Persistence, publish: Callable[[], None]) -> None:
        self._persistence = persistence
        self._publish = publish
        #: Those that are neither accepted nor over, each with the event that its runner waits for.
        self._waiting: dict[Generation, trio.Event | None] = {}
        # A generation of the level process must not wait for another one's disk, nor one that is
        # kept nowhere for either; and one without a key not for the database of several servers.
        self._lines = {kind: _Line() for kind in _KINDS}

    def __repr__(self) -> str:
        return f"<Acceptance {len(self._waiting)} waiting>"

    def begin(self, generation: Generation) -> None:
        """Accept it as soon as its request, which is in the journal's buffer, is safe.

        At the level memory that is now; its readers are told when its own task gives others a turn.
        """
        if generation.entry is None:
            generation.accept()
        else:
            self._waiting[generation] = None
        line = self._lines[_kind(generation.entry)]
        line.waiting.append((generation, generation.entry))
        line.idle.unpark()

    def forget(self, generation: Generation) -> None:
        """It is over, accepted or not."""
        self._waiting.pop(generation, None)

    async def wait(self, generation: Generation) -> None:
        """Return when it is accepted; one that cannot be is cancelled here."""
        if generation not in self._waiting:
            return
        event = self._waiting[generation] = trio.Event()
        await event.wait()

    async def run(self) -> None:
        """Accept until cancelled."""
        async with trio.open_nursery() as nursery:
            for line in self._lines.values():
                for _ in range(_WAITERS):
                    nursery.start_soon(self._follow, line)

    async def _follow(self, line: _Line) -> None:
        while True:
            while not line.waiting:
                await line.idle.park()
            batch, line.waiting = line.waiting, []
            # The journal's order is theirs: when the last one is safe, all are.
            await self._accept([generation for generation, _ in batch], batch[-1][1])

    async def _accept(self, generations: list[Generation], last: JournalEntry | None) -> None:
        try:
            await self._persistence.accepted(last)
        except RequestError as error:
            for generation in generations:
                if generation in self._waiting:
                    generation.hand_back(error)
            return
        for generation in generations:
            if generation in self._waiting:
                if generation.entry is not None and generation.entry.taken is not None:
                    generation.hand_back(_taken(generation))
                    continue
                event = self._waiting.pop(generation)
                generation.accept()
                if event is not None:
                    event.set()
        self._publish()


class _Line:
    """Generations that wait for the same."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Generation, JournalEntry | None]] = []
        self.idle = trio.lowlevel.ParkingLot()


def _taken(generation: Generation) -> RequestError:
    """The error for one whose key another server of the cluster has given to another one.

    That happens to a fresh key whose request was overtaken by its repetition.
    """
    key = (generation.key or "")[:60]
    return InvalidRequest(f"the idempotency key {key!r} is not fresh: it was used before")


def _kind(entry: JournalEntry | None) -> tuple[bool, bool, bool]:
    """Whether it waits for the system, the disk, the database of several servers."""
    return (False,) * 3 if entry is None else (True, entry.synced, entry.acceptance_awaited)

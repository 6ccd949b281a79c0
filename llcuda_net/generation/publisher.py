"""What upstreams sent since the last batch: into the journal, then to the readers, then sent.

`Poller` calls `publish` once per batch. Each generation that has grown is appended to the journal
once, all of it is written with one system call, mostly by the journal's thread, and only then do
readers see the new pieces: what a client has seen survives a kill. Each connection that got bytes
is then flushed once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import trio

from llcuda_net.errors import RequestError, StorageError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence, refused
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.records import Level, Switch
from llcuda_net.upstream.interface import CompletionEvent

#: Most pieces in one record of the journal: a stored log may come at once.
_MOST_PIECES = 1024
#: Members of enums are found slowly.
_STRICT, _CLUSTER = Level.STRICT, Level.CLUSTER


class Flushable(Protocol):
    """A connection's bytes on their way out."""

    def flush(self) -> None:
        """Send what was added."""


class Publisher:
    """Lets readers see of a generation only what is as safe as its level says.

    Args:
        persistence: its storage, if there is one, is running.
        may_show: whether readers may see now what only this machine has; None: always.

    Attributes:
        unflushed: connections with bytes that were added since the last `publish`.
    """

    def __init__(
        self, persistence: Persistence, may_show: Callable[[], bool] | None = None
    ) -> None:
        storage = persistence.storage
        self.unflushed: set[Flushable] = set()
        self._persistence = persistence
        self._may_show = may_show
        self._journal = None if storage is None else storage.journal
        self._replica = None if storage is None else storage.replica
        self._grown: set[Generation] = set()
        self._now = 0.0  # when its batch began to come
        self._strict: set[Generation] = set()  # of the level strict: they wait for the disk
        self._strict_work = trio.Event()

    def extend(self, generation: Generation, events: list[CompletionEvent]) -> None:
        """Take a batch of an upstream's events for a generation; `publish` shows it."""
        grown = self._grown
        if not grown:
            self._now = trio.current_time()  # once per batch
        if generation.extend(events, self._now):
            grown.add(generation)

    def record(self, generation: Generation) -> None:
        """Buffer in the journal what it does not have yet of a generation.

        Raises:
            RequestError: the journal does not take it.
        """
        entry = generation.entry
        if entry is None:
            return
        pieces, logprobs = generation.pieces, generation.logprobs
        try:
            while entry.count < len(pieces):
                part = slice(entry.count, entry.count + _MOST_PIECES)
                if len(entry.switches) < len(generation.switches):
                    _switch(entry, generation.switches, part.stop)
                entry.append(
                    pieces[part],
                    generation.ids[part],
                    None if logprobs is None else logprobs[part],
                    generation.counts[part],
                )
            if generation.final is not None:
                # The upstream sent the end, so that no later server asks it for more.
                outcome = generation.outcome
                entry.conclude(outcome.reason, outcome.stop, outcome.usage)
        except StorageError as error:
            raise refused(error) from None

    def forget(self, generation: Generation) -> None:
        """A generation is over: how it ended shows all that may be seen of it."""
        self._grown.discard(generation)
        self._strict.discard(generation)

    def flush(self) -> None:
        """Send what waits in write buffers."""
        while self.unflushed:
            self.unflushed.pop().flush()

    def publish(self) -> None:
        """Journal what has come since the last time; show it when it is written, and send it."""
        journal = self._journal
        counts: dict[Generation, int] = {}  # of those that wait for the journal
        free: dict[Generation, int] = {}  # of those that no disk holds up
        if self._grown:
            grown, self._grown = self._grown, set()
            for generation in grown:
                if generation.entry is None:
                    free[generation] = len(generation.pieces)
                    continue
                try:
                    self.record(generation)
                except RequestError as error:
                    generation.hand_back(error)
                else:
                    counts[generation] = len(generation.pieces)
        if counts and journal is not None:
            try:
                if journal.write(partial(self._show, counts)):
                    free.update(counts)
            except StorageError as error:
                self._refuse(counts, error)
        if free or self.unflushed:
            self._show(free)

    def _show(self, counts: dict[Generation, int], error: StorageError | None = None) -> None:
        """Show so many pieces of each generation, or stop those that the journal did not take."""
        if error is not None:
            self._refuse(counts, error)
            counts = {}
        # The clock is asked directly before: nobody may have stopped this process since then.
        too_late = self._may_show is not None and bool(counts) and not self._may_show()
        uncommitted: dict[Generation, int] = {}
        for generation, count in counts.items():
            level = generation.level
            if level is _CLUSTER and self._replica is not None:
                uncommitted[generation] = count
            elif too_late:
                continue  # another server may go on with it
            elif level is _STRICT or level is _CLUSTER:  # a server that has no database any more
                self._strict.add(generation)
                self._strict_work.set()
            elif count > generation.visible:
                generation.visible = count
                for reader in tuple(generation.readers):
                    reader.pump()
        if uncommitted:
            self._show_when_committed(uncommitted)
        self.flush()

    def _show_when_committed(self, counts: dict[Generation, int]) -> None:
        """Show so many pieces of each generation as soon as other servers could continue it."""
        assert self._replica is not None
        try:
            then = partial(self._show_committed, counts)
            if self._replica.when(self._replica.position, then):
                self._show_committed(counts)
        except StorageError as error:
            self._refuse(counts, error)

    def _show_committed(
        self, counts: dict[Generation, int], error: StorageError | None = None
    ) -> None:
        if error is not None:
            self._refuse(counts, error)
            return
        for generation, count in counts.items():
            if not generation.ended and count > generation.visible:
                generation.durable = max(generation.durable, count)
                generation.show(count)
        self.flush()

    def _refuse(self, counts: dict[Generation, int], error: StorageError) -> None:
        refusal = refused(error)
        for generation in counts:
            generation.hand_back(refusal)

    async def run(self) -> None:
        """Show what the disk has: tokens at the level strict, how much is durable; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sync_strictly)
            nursery.start_soon(self._follow_disk)

    async def _sync_strictly(self) -> None:
        while True:
            await self._strict_work.wait()
            self._strict_work = trio.Event()
            grown = [(generation, len(generation.pieces)) for generation in self._strict]
            self._strict.clear()
            try:
                await self._persistence.sync()
            except RequestError as error:
                for generation, _ in grown:
                    generation.hand_back(error)
                continue
            for generation, count in grown:
                if not generation.ended:
                    generation.show(count)
            self.publish()

    async def _follow_disk(self) -> None:
        while True:
            for generation in await self._persistence.settled():
                generation.notify()
            self.publish()


def _switch(entry: JournalEntry, switches: list[Switch], behind: int) -> None:
    """Buffer the switches before piece `behind` that the journal does not have yet."""
    for switch in switches[len(entry.switches) :]:
        if switch.position >= behind:
            return
        entry.switch(switch)

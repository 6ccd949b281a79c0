"""Takes up what was open when a server ended: itself at its start, or another one of a cluster.

What is over gets its result; what runs is to go on here.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import PROBE, Journal
from llcuda_net.storage.outcomes.outcomes import Outcomes
from llcuda_net.storage.replica.interface import Replica
from llcuda_net.storage.replica.takeover import Takeover
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.results.writer import BATCH, OpenStore
from llcuda_net.storage.starting import Recovered, Sorted, sort_out
from llcuda_net.storage.transient.results import TransientResults

_Pair = tuple[OpenGeneration, JournalEntry]


class Resuming:
    """Takes up open generations.

    Args:
        outcomes: has what is over stored.
        open_store: opens the store of results.
        replica: of the journal; None: there is none.
    """

    def __init__(
        self,
        journal: Journal,
        transient: TransientResults,
        outcomes: Outcomes,
        open_store: OpenStore,
        replica: Replica | None,
    ) -> None:
        self._journal = journal
        self._transient = transient
        self._outcomes = outcomes
        self._open_store = open_store
        self._takeover = None if replica is None else Takeover(journal, replica)

    def __repr__(self) -> str:
        return f"<Resuming into {self._journal!r}>"

    async def start(self, found: list[_Pair], store: Store) -> list[Recovered]:
        """Do what is left to do with the generations of the journal, at a start: what runs.

        Raises:
            StorageError: as Takeover.start; or the store cannot be read, or refuses a result.
        """
        elsewhere: list[_Pair] = []
        if self._takeover is not None:
            found, elsewhere = await self._takeover.start(found)
        left = await trio.to_thread.run_sync(sort_out, found, store, self._transient.ids)
        gone = await trio.to_thread.run_sync(sort_out, elsewhere, store, self._transient.ids)
        left.committed += gone.committed
        for entry in gone.entries:
            self._journal.forget(entry, elsewhere=True)
        reached = await trio.to_thread.run_sync(store.reached)
        for entry, ended in left.committed:
            self._outcomes.forget(entry, reached, 0 if ended is None else ended.finished)
        for entry, generation in left.transient:
            await self._outcomes.keep(entry, generation.result())
        for first in range(0, len(left.ended), BATCH):
            some = left.ended[first : first + BATCH]
            batch = [(entry, generation.result()) for entry, generation in some]
            try:
                await trio.to_thread.run_sync(store.put, [result for _, result in batch])
            except StorageError as error:
                if not error.retry:
                    raise
                self._outcomes.postpone(batch, error)
            else:
                reached = await trio.to_thread.run_sync(store.reached)
                for entry, _ in batch:
                    self._journal.forget(entry, reached)
        return left.running

    async def adopt(self, other: int, generations: Sequence[OpenGeneration]) -> list[Recovered]:
        """Take over what a fenced life of a server had: what runs, and is to go on here.

        The results of those that had ended are stored.

        Raises:
            StorageError: this life is fenced itself, or a store or a journal takes nothing.
        """
        assert self._takeover is not None
        pairs = await self._takeover.adopt(other, generations)

        def look() -> Sorted:
            store = self._open_store(False)
            try:
                return sort_out(pairs, store, self._transient.ids)
            finally:
                store.close()

        while True:  # they are this server's now, so it must go on with them
            try:
                left = await trio.to_thread.run_sync(look)
                break
            except StorageError as error:
                if not error.retry:
                    raise
                await trio.sleep(PROBE)
        for entry, _ in left.committed:
            self._journal.forget(entry, self._outcomes.writer.reached)
        for entry, generation in (*left.ended, *left.transient):
            await self._outcomes.keep(entry, generation.result())
        return left.running

    def begin_again(self, one: Recovered) -> None:
        """Have one that was abandoned be the new life's."""
        assert self._takeover is not None
        entry = one.entry
        generation = OpenGeneration(
            entry.opened,
            one.packed,
            entry.splices,
            entry.switches,
            one.dispatched,
            one.concluded,
        )
        self._takeover.begin(generation, entry)

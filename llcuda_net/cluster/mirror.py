"""The journal's second copy in the database of several servers, as the trio thread uses it.

What it adds goes to the thread of committer.py, which says what is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from llcuda_net.cluster import leases, recovery
from llcuda_net.cluster.committer import Committer, fenced
from llcuda_net.cluster.portions import Life, Over, Started
from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.threads.orders import ordered
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.replica.interface import Accept, Adopted, Committed, Entry, Former, Replica
from llcuda_net.storage.results.interface import Store

_T = TypeVar("_T")


class Mirror(Committer, Replica):
    """A Replica in the database of several servers; see there for what is not explained here.

    Args:
        url: of the database; its schema is there.

    Attributes:
        on_fenced: called with the number of a life that turns out to be fenced; on the trio thread.
    """

    def __init__(self, url: str) -> None:
        super().__init__(Session(url, write=True))
        self._session.one_plan = True
        self.failed: StorageError | None = None
        self.position = 0
        self.on_fenced: Callable[[int], None] | None = None
        self._void = range(0)  # positions that were never committed, of the life before
        self._on_settled: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        behind = self.position - self.committed
        return f"<Mirror life={self.number} behind={behind} failed={self.failed}>"

    @property
    def number(self) -> int:
        """The life under which is written; 0: none yet."""
        return self._life.number

    def begin(
        self,
        number: int,
        former: Sequence[int] = (),
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin a life: what was added before and is not committed is void.

        Args:
            former: earlier lives of this data directory, which are fenced.
            settled: called when nothing is left of them; in the mirror's thread.
        """
        self._void = range(self.committed + 1, self.position + 1)
        self.committed = self.position
        self._life = Life(number, tuple(former), self.position)
        self._on_settled = settled
        self.failed = None
        self._refuse(fenced())
        self._orders.put(None)

    # -- records ------------------------------------------------------------------------------

    def add(self, slot: int, body: bytes, hurry: bool) -> None:
        """See Replica."""
        life = self._life
        life.waiting.append((slot, body))
        self.position += 1
        if hurry:
            life.hurried = self.position

    def accept(self, entry: Entry, accept: Accept, hurry: bool) -> None:
        """See Replica."""
        life = self._life
        life.waiting.append(Started(entry, accept))
        self.position += 1
        entry.accepted_at = self.position
        if hurry:
            life.hurried = self.position

    def forget(self, slot: int, generation: str, *, stored: bool) -> None:
        """See Replica."""
        self._life.waiting.append(Over(slot, generation, stored))
        self.position += 1

    def send(self) -> None:
        """See Replica."""
        if self._asleep and (not self._pacing or (self._life.urgent and not self._resting)):
            self._asleep = False
            self._orders.put(None)

    def when(self, position: int, then: Committed) -> bool:
        """See Replica."""
        if position in self._void:
            raise fenced()
        if position <= self.committed:
            if self._awaited:
                self._collect()  # those that came before are told before
            return True
        if self.failed is not None:
            raise self.failed
        self._awaited.append((position, then))
        if position > self._life.hurried:
            self._life.hurried = position
        self.send()
        if position <= self.committed:  # meanwhile: the thread may have seen nobody wait
            self._collect()
        return False

    async def until(self, position: int) -> None:
        """See Replica."""
        settled = trio.Event()
        failure: list[StorageError | None] = []

        def then(error: StorageError | None) -> None:
            failure.append(error)
            settled.set()

        if self.when(position, then):
            await trio.lowlevel.checkpoint()
            return
        await settled.wait()
        if failure[0] is not None:
            raise StorageError(failure[0].message, failure[0].code)

    def _collect(self) -> None:
        """Tell those who wait what is committed, or that nothing will be."""
        awaited = self._awaited
        while awaited and awaited[0][0] <= self.committed:
            awaited.popleft()[1](None)
        life = self._life
        self.refusal = life.refusal
        if life.failed is not None and self.failed is None:
            self.failed = life.failed
            self._refuse(life.failed)
            if life.failed.code == StorageError.FENCED and self.on_fenced is not None:
                self.on_fenced(life.number)

    def _refuse(self, error: StorageError) -> None:
        awaited, self._awaited = self._awaited, deque()
        for _, then in awaited:
            then(error)

    # -- others' generations ------------------------------------------------------------------

    async def former(self) -> list[Former]:
        """See Replica."""
        life = self._life
        return [
            await self._ordered(partial(self._ask, partial(recovery.read, server=number)))
            for number in life.former
        ]

    async def settled(self) -> None:
        """See Replica."""
        life = self._life
        for number in life.former:
            adopted = partial(leases.adopted, me=life.number, other=number)
            await self._ordered(partial(self._change, adopted))
        await self._ordered(self._on_settled)

    async def orphaned(self, ids: Sequence[str]) -> set[str]:
        """See Replica."""
        return await self._ordered(partial(self._ask, partial(leases.orphaned, ids=ids)))

    async def adopt(self, other: int, generations: Sequence[Adopted]) -> dict[str, int]:
        """See Replica."""
        life = self._life
        return await self._ordered(partial(self._adopt, life, other, generations))

    def give_up(self) -> None:
        """See Replica."""
        self._giving_up.set()

    def guard(self, store: Store) -> None:
        """See Replica."""
        if isinstance(store, PostgresStore):
            store.guard(self._release)

    def _release(self, db: Connection, ids: list[str]) -> None:
        """In the transaction that stores their results; in the thread that does."""
        if not leases.release(db, self.number, ids):
            raise fenced()

    async def _ordered(self, work: Callable[[], _T]) -> _T:
        """Do something in the thread, between two batches, to its end; raises what it raises."""

        def give(order: Callable[[], object]) -> None:
            self._orders.put(order)
            if self._ended:  # nobody else executes it
                self._drain()

        return await ordered(give, work)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See Replica."""
        self._soon = partial(trio.lowlevel.current_trio_token().run_sync_soon, idempotent=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_in_thread, self._serve)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.failed = self.failed or StorageError("the journal is closed")
                self._giving_up.set()
                self._stopping.set()
                self._orders.put(None)
        self._refuse(self.failed)


async def _in_thread(work: Callable[[], object]) -> None:
    """Run something to its end in a thread of its own."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))

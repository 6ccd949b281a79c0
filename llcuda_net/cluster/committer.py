"""The thread that writes a journal's copy into the database, a batch at a time.

It takes all records that wait, commits them as one batch, says so, and takes the next ones: under
load batches grow by themselves. `BURST` of them follow each other at once; in the long run there is
one per `EVERY`, so that tokens that come singly without end share a commit. Where nobody waits for
a commit, records gather for `PACE`. A batch whose answer was lost is sent again, the same under the
same number, until there is an answer; nothing overtakes it.

The trio thread adds records to a deque and looks whether the thread sleeps; the thread says that it
is going to sleep, and then looks whether there are records. So one of them notices.
"""

from __future__ import annotations

import abc
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog

from llcuda_net.cluster import keys, leases
from llcuda_net.cluster.portions import Contents, Item, Life
from llcuda_net.cluster.standing import Batch
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.replica.bodies import joined, parted
from llcuda_net.storage.replica.interface import Accept, Adopted, Committed

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds in which records gather that nobody waits for.
PACE = 0.02
#: Seconds from one batch to the next in the long run, and how many may follow each other at once
#: before: what the tokens of one step need, which come together. A commit costs about the same
#: however little is in it.
EVERY, BURST = 0.004, 4
#: Seconds from one trimming of the journal to the next.
_TRIM = 1.0
_WHAT = "the journal cannot be copied to the database"


class Rate:
    """When the next batch may be written: one per EVERY in the long run, BURST after a silence."""

    def __init__(self) -> None:
        self._even = 0.0  # when one more would be the one per EVERY

    def wait(self, now: float) -> float:
        """Seconds until a batch may be written, at most those of the rate."""
        return max(0.0, self._even - (BURST - 1) * EVERY - now)

    def count(self, now: float) -> None:
        """One is written."""
        self._even = max(self._even, now) + EVERY


#: Keys that other generations have, by the ids of those that wanted them.
ClaimKeys = Callable[[Connection, int, Sequence[Accept]], dict[str, str]]


class Committer(abc.ABC):
    """What the thread does; `Mirror` derives from it, and is what the trio thread uses.

    Args:
        session: writes; used by the thread alone.

    Attributes:
        claim_keys: called in the transaction that accepts generations with idempotency keys; those
            whose keys others have are not accepted.
        on_set_back: see Replica; on the trio thread.
        committed: position up to which all is committed.
        refusal: see Replica.
    """

    def __init__(self, session: Session) -> None:
        self.committed = 0
        self.refusal: StorageError | None = None
        self.claim_keys: ClaimKeys | None = None
        self.on_set_back: Callable[[], object] = lambda: None
        self._session = session
        self._connection: Connection | None = None  # of which it is known that it has all
        self._life = Life(0)
        self._awaited: deque[tuple[int, Committed]] = deque()
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._asleep = False  # the thread waits for orders, and has nothing to commit
        self._pacing = False  # it lets records gather
        self._stopping = threading.Event()
        self._giving_up = threading.Event()
        self._ended = False  # the thread executes no orders any more
        self._resting = False  # it lets records gather that somebody waits for
        self._due = 0.0  # when records that nobody waits for are written
        self._rate = Rate()
        self._trim_at = 0.0
        #: Has something called on the trio thread.
        self._soon: Callable[[Callable[[], object]], object] = lambda _: None

    @abc.abstractmethod
    def _collect(self) -> None:
        """Tell those who wait what is committed, or that nothing will be; on the trio thread."""

    def _serve(self) -> None:
        self._due = self._trim_at = 0.0
        try:
            while True:
                work = self._order(self._life)
                life, now = self._life, time.monotonic()
                if work is not None:
                    work()
                elif self._pause(life, now) != 0:
                    ends = life.failed is not None or life.tries or not life.pending
                    if self._stopping.is_set() and ends:
                        return
                elif life.pending:
                    self._due = now + PACE
                    self._rate.count(now)
                    self._commit(life)
                else:
                    self._trim_at = now + _TRIM
                    self._tidy(life)
        finally:
            self._session.close()
            self._ended = True
            self._drain()

    def _drain(self) -> None:
        """Execute what was ordered after the end: it fails, since the session is closed."""
        while True:
            try:
                work = self._orders.get(block=False)
            except queue.Empty:
                return
            if work is not None:
                work()

    def _order(self, life: Life) -> Callable[[], object] | None:
        """What is to be done now beside batches; None: a batch, perhaps."""
        self._pacing = self._resting = False
        self._asleep = True  # before the look: what is added from here on wakes this thread
        try:
            pause = self._pause(life, time.monotonic())
            self._pacing = pause is not None
            self._resting = bool(pause) and life.urgent
            return self._orders.get(block=pause != 0, timeout=pause)
        except queue.Empty:
            return None
        finally:
            self._asleep = False

    def _pause(self, life: Life, now: float) -> float | None:
        """Seconds until there is something to write, if nobody adds anything; None: for ever."""
        stopping = self._stopping.is_set()
        if life.failed is None and life.pending:
            if life.tries:
                return 1.0 if stopping else max(0.0, life.again - now)
            if stopping:
                return 0.0
            return self._rate.wait(now) if life.urgent else max(0.0, self._due - now)
        if stopping:
            return 1.0
        if life.failed is None and life.trimming.due:
            return max(0.0, self._trim_at - now)
        return None

    def _commit(self, life: Life) -> None:
        """Try to have one batch in the database."""
        batch = life.batch()
        if batch is None:
            return
        try:
            there = self._write(life.number, batch.number, Contents.of(batch.records))
        except StorageError as error:
            self._missed(life, error)
        else:
            if there:
                self._committed(life, batch)
            else:
                self._fail(life, fenced())

    def _write(self, me: int, number: int, contents: Contents) -> bool:
        started = contents.started
        if self.claim_keys is None or all(one.accept.key is None for one in started):
            accepts = [one.accept for one in started]
            return self._ask(
                lambda db: leases.append(db, me, number, contents.data, accepts, contents.ended)
            )
        accept = partial(self._accept, me=me, number=number, contents=contents)
        there, taken = self._change(accept)
        for one in started:  # not before the commit: another attempt may find it otherwise
            one.entry.taken = taken.get(one.accept.id)
        return there

    def _look(self, db: Connection) -> None:
        """See whether the database still has what it had committed."""
        life = self._life
        found = leases.last(db, life.number)
        # Of a life that is fenced and taken over from, the journal is deleted: that is no loss.
        if found < life.last and not leases.was_fenced(db, life.number):
            log.error("database_set_back", number=life.number, had=life.last, has=found)
            self._soon(self.on_set_back)
        self._connection = db

    def _accept(
        self, db: Connection, me: int, number: int, contents: Contents
    ) -> tuple[bool, dict[str, str]]:
        """Write a batch with generations that have keys: those get on whose keys are theirs.

        Returns:
            Whether it is there; and those whose keys others have, or had: which.
        """
        assert self.claim_keys is not None
        keyed = [one.accept for one in contents.started if one.accept.key is not None]
        taken = self.claim_keys(db, me, keyed)
        accepts = [one.accept for one in contents.started if one.accept.id not in taken]
        new = leases.added(db, me, number, contents.data, accepts, contents.ended)
        if new is False:
            # An attempt whose answer was lost has decided. A key that another one had then may have
            # become free since: who was not accepted then is not now.
            mine = leases.owned(db, me)
            refused = [one.id for one in accepts if one.id not in mine]
            keys.release(db, refused)
            taken |= dict.fromkeys(refused, "another one")
        return new is not None, taken

    def _committed(self, life: Life, batch: Batch[Item]) -> None:
        """A batch is in the database: what waits for that may be told."""
        life.committed(batch)
        if life is self._life:
            self.committed = max(self.committed, life.taken)
            if self._awaited or self.refusal is not None:
                self._soon(self._collect)

    def _missed(self, life: Life, error: StorageError) -> None:
        """An attempt failed: there will be another one, unless none can succeed."""
        if error.code == StorageError.INVALID:
            log.error("mirror_failed", reason=error.message)
            self._fail(life, StorageError(error.message))
            return
        if not life.tries:
            log.warning("mirror_waits", reason=error.message)
        life.missed(time.monotonic())
        if error.code == StorageError.FULL and life is self._life:
            life.refusal = error
            self._soon(self._collect)

    def _fail(self, life: Life, error: StorageError) -> None:
        life.failed = error
        if life is self._life:
            self._soon(self._collect)

    def _adopt(self, life: Life, other: int, generations: Sequence[Adopted]) -> dict[str, int]:
        number = self._free_number(life)

        def adopt(db: Connection) -> dict[str, int] | None:
            epochs = leases.adopt(db, life.number, other, number, generations)
            if epochs is None and not leases.hold(db, life.number):
                raise fenced()
            return epochs

        epochs = self._answered(life, adopt) or {}
        sizes = {
            one.slot: sum(map(len, one.bodies)) for one in generations if one.generation in epochs
        }
        if epochs:
            life.last = number
        life.trimming.added(number, sizes)
        return epochs

    def _free_number(self, life: Life) -> int:
        """The number of a batch that is none of the outbox; all before it are answered."""
        while life.outbox.sent is not None:
            self._commit(life)
            self._go_on(life)
        return life.next_number()

    def _answered(self, life: Life, change: Callable[[Connection], _T]) -> _T:
        """Repeat a change until there is an answer."""
        while True:
            try:
                found = self._change(change)
            except StorageError as error:
                if error.code == StorageError.FENCED:
                    self._fail(life, error)
                if not error.retry:
                    raise
                self._missed(life, error)
                self._go_on(life)
            else:
                life.tries = 0
                return found

    def _go_on(self, life: Life) -> None:
        """Wait until the next attempt is due.

        Raises:
            StorageError: there will be none.
        """
        if life.failed is not None:
            raise life.failed
        if life is not self._life:
            raise fenced()
        if life.tries and self._giving_up.wait(max(0.0, life.again - time.monotonic())):
            raise StorageError("the server stops", StorageError.BUSY)

    def _tidy(self, life: Life) -> None:
        """Delete batches that are not needed; write again what keeps many others."""
        trimming = life.trimming
        try:
            if last := trimming.crowded:
                self._copy(life, last)
            if trimming.due:
                low = trimming.low
                self._change(lambda db: leases.trim(db, life.number, low))
                trimming.done = low
        except StorageError as error:
            log.warning("mirror_not_trimmed", reason=error.message)

    def _copy(self, life: Life, last: int) -> None:
        """Write what is live in the oldest batches again, as one."""
        trimming, low = life.trimming, life.trimming.low
        batches = self._ask(lambda db: leases.journal(db, life.number, low - 1, last - low + 1))
        found = [
            (slot, body)
            for number, data in batches
            if number <= last
            for slot, body in parted(data)
            if trimming.live(slot)
        ]
        number = self._free_number(life)
        data = joined([body for _, body in found])
        there = self._answered(life, lambda db: leases.append(db, life.number, number, data))
        if not there:
            self._fail(life, fenced())
            return
        sizes: dict[int, int] = {}
        for slot, body in found:
            sizes[slot] = sizes.get(slot, 0) + len(body)
        life.last = number
        trimming.moved(last, number, sizes)

    def _ask(self, question: Callable[[Connection], _T]) -> _T:
        return self._session.ask(_WHAT, partial(self._looking, question))

    def _change(self, change: Callable[[Connection], _T]) -> _T:
        return self._session.change(_WHAT, partial(self._looking, change))

    def _looking(self, work: Callable[[Connection], _T], db: Connection) -> _T:
        """Do something, after a look at a connection that is new."""
        if db is not self._connection:
            self._look(db)
        return work(db)


def fenced() -> StorageError:
    """The error for what a life cannot write any more."""
    return StorageError(
        "another server has taken over what this one had: ask again", StorageError.FENCED
    )

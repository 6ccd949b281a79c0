"""Group commit: one thread writes results in batches, another updates the search index.

A batch holds the results that arrived while the previous batch was being committed. So no result
waits for others to arrive, and under load more results share one sync of the disk. The waiting
tasks continue right after the commit; the checkpoint runs after that.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Store

log = structlog.get_logger(__name__)

#: Most results in one transaction, and most that may queue; further tasks wait for room.
BATCH, QUEUE = 256, 1024
#: Seconds until indexing is retried after an error; and in which results gather for it: one alone
#: takes the processor for three times as long.
_RETRY, _GATHER = 5.0, 0.25
#: Most seconds that a step of indexing is delayed while commits queue.
_PATIENCE = 1.0

#: Opens a store; the argument says whether it may write.
OpenStore = Callable[[bool], Store]


@dataclass(eq=False, slots=True)
class _Waiter:
    result: Result
    task: trio.lowlevel.Task
    error: StorageError | None = None


class Writer:
    """Commits results for tasks of trio.

    Args:
        store: may write; used by the writer's thread alone while `run` runs.
        open_store: opens the store whose search index is updated.
        batch: most results in one transaction.
        room: most results that may queue.
        check: called after each commit, before it is reported: raises StorageError if what was
            committed would not be found again.

    Attributes:
        failed: why the writer commits nothing any more; None while it does.
        committed: results committed since the start.
        reached: Store.reached after the last commit; 0 before the first one.
    """

    def __init__(
        self,
        store: Store,
        open_store: OpenStore,
        *,
        batch: int = BATCH,
        room: int = QUEUE,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.failed: StorageError | None = None
        self.committed = 0
        self.reached = 0
        self._store = store
        self._open_store = open_store
        self._batch = batch
        self._check = check
        self._free = self._size = room
        self._no_room = trio.lowlevel.ParkingLot()
        self._queue: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._new_results = threading.Event()
        self._stop = threading.Event()
        self._token: trio.lowlevel.TrioToken

    def __repr__(self) -> str:
        state = f"failed: {self.failed}" if self.failed else "working"
        return (
            f"<Writer {state}, {self.backlog} of {self._size} queued, {self.committed} committed>"
        )

    @property
    def backlog(self) -> int:
        """Results that queue or are being committed."""
        return self._size - self._free

    async def room(self) -> None:
        """Return when the queue has room for one more result."""
        await trio.lowlevel.checkpoint()
        while self._free == 0:
            await self._no_room.park()
        self._no_room.unpark()  # we took no room, so the next task may have it

    async def commit(self, result: Result) -> None:
        """Store a result; it is on the disk when this returns. Waits while the queue is full.

        A commit that has begun cannot be cancelled: the result is stored all the same.

        Raises:
            StorageError: the result is not stored.
        """
        # A Semaphore and an Event would cost two more turns of trio's scheduler.
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._free == 0:
            await self._no_room.park()
        if self.failed is not None:
            self._no_room.unpark()
            raise self.failed
        waiter = _Waiter(result, trio.lowlevel.current_task())
        self._free -= 1
        self._queue.put(waiter)
        await trio.lowlevel.wait_task_rescheduled(_not_now)
        if waiter.error is not None:
            # A copy: the tasks of one batch must not write into each other's traceback.
            raise StorageError(waiter.error.message, waiter.error.code) from waiter.error

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, then commit the queued results."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            # Outside trio's default limiter, because both threads live as long as the server.
            for work in (self._write, self._index):
                nursery.start_soon(_run_thread, work)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.failed = self.failed or StorageError("the store is closed")
                self._stop.set()
                self._queue.put(None)
                self._new_results.set()

    def _wake(self, batch: list[_Waiter]) -> None:
        self._free += len(batch)
        self.committed += sum(waiter.error is None for waiter in batch)
        for waiter in batch:
            trio.lowlevel.reschedule(waiter.task)
        self._no_room.unpark(count=len(batch))

    # -- in threads ---------------------------------------------------------------------------

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            stop = False
            while len(batch) < self._batch and not stop:
                try:
                    waiter = self._queue.get_nowait()
                except queue.Empty:
                    break
                if waiter is None:
                    stop = True
                else:
                    batch.append(waiter)
            self._commit(batch)
            self._token.run_sync_soon(self._wake, batch)
            self._new_results.set()
            try:
                self._store.checkpoint()
            except StorageError as error:
                self._record(error)
            if stop:
                break

    def _commit(self, batch: list[_Waiter]) -> None:
        error = self.failed if self.failed and not self._stop.is_set() else None
        if error is None:
            error = self._put(batch)
            if error is None:
                return
        if len(batch) > 1 and error.code in (StorageError.INVALID, StorageError.FENCED):
            for waiter in batch:  # one is invalid, or another server's; the others can be stored
                waiter.error = self._put([waiter])
            return
        for waiter in batch:
            waiter.error = error

    def _put(self, batch: list[_Waiter]) -> StorageError | None:
        try:
            self._store.put([waiter.result for waiter in batch])
            if self._check is not None:
                self._check()
            self.reached = self._store.reached()
        except StorageError as error:
            self._record(error)
            return error
        except Exception as error:
            log.exception("result_not_stored")
            return StorageError(f"a bug: {type(error).__name__}", StorageError.INVALID)
        return None

    def _record(self, error: StorageError) -> None:
        log.error("store_error", code=error.code, reason=error.message)
        if error.code in (StorageError.FAILED, StorageError.DAMAGED):
            # Never retry a failed sync: the retry would succeed without the lost pages.
            self.failed = error

    def _index(self) -> None:
        store: Store | None = None
        try:
            while True:
                last = self._stop.is_set()  # then one more step: what came just now is found
                self._new_results.clear()
                try:
                    store = store or self._open_store(False)
                    while store.update_index() and not self._stop.is_set():
                        self._give_way()
                except StorageError as error:
                    log.warning("search_is_behind", code=error.code, reason=error.message)
                    self._stop.wait(_RETRY)
                    self._new_results.set()
                except Exception:
                    log.exception("search_is_behind")
                    self._stop.wait(_RETRY)
                    self._new_results.set()
                if last:
                    break
                self._new_results.wait()
                self._stop.wait(_GATHER)
        finally:
            if store is not None:
                store.close()

    def _give_way(self) -> None:
        """Leave the processor to commits while a full batch queues, for a limited time."""
        until = time.monotonic() + _PATIENCE
        while self.backlog >= self._batch and time.monotonic() < until:
            if self._stop.wait(_PATIENCE / 20):
                return


async def _run_thread(work: Callable[[], None]) -> None:
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))


def _not_now(_: object) -> trio.lowlevel.Abort:
    """The result is stored all the same."""
    return trio.lowlevel.Abort.FAILED

"""One thread writes results, whole batches at a time; another brings search up to date behind it.

A batch is whatever has come while the last one was being committed, so nobody waits for others to
come, and the busier it is the more share one sync of the disk. Those whose results were committed
are told first; only then is the database tidied up.
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

#: Most results in one transaction, and most that may wait: whoever comes then waits for room.
BATCH, QUEUE = 256, 1024
#: Seconds until deriving is tried again after an error.
_RETRY = 5.0
#: Seconds that one step of deriving waits at most while commits queue.
_PATIENCE = 1.0

#: Opens a store; True: one that may write.
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
        open_store: opens the store that derives.

    Attributes:
        failed: why nothing is committed any more; None: it is.
        committed: results since the start.
    """

    def __init__(
        self, store: Store, open_store: OpenStore, *, batch: int = BATCH, room: int = QUEUE
    ) -> None:
        self.failed: StorageError | None = None
        self.committed = 0
        self._store = store
        self._open_store = open_store
        self._batch = batch
        self._free = self._size = room
        self._outside = trio.lowlevel.ParkingLot()
        self._queue: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._behind = threading.Event()
        self._stopped = False
        self._token: trio.lowlevel.TrioToken

    @property
    def backlog(self) -> int:
        """Results that wait, or are being committed."""
        return self._size - self._free

    async def room(self) -> None:
        """Return when one more result could be taken at once."""
        await trio.lowlevel.checkpoint()
        while self._free == 0:
            await self._outside.park()
        self._outside.unpark()  # who waits to commit comes after us: we have taken nothing

    async def commit(self, result: Result) -> None:
        """Store a result; it is on the disk when this returns. Waits for room while there is none.

        Once it has begun it cannot be cancelled: the result would be stored all the same.

        Raises:
            StorageError: it is not stored.
        """
        # Not a Semaphore and an Event, which would take a task two more turns of the scheduler.
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._free == 0:
            await self._outside.park()
        if self.failed is not None:
            self._outside.unpark()
            raise self.failed
        waiter = _Waiter(result, trio.lowlevel.current_task())
        self._free -= 1
        self._queue.put(waiter)
        await trio.lowlevel.wait_task_rescheduled(_not_now)
        if waiter.error is not None:
            # A copy: the tasks of one batch must not write into each other's traceback.
            raise StorageError(waiter.error.message, waiter.error.code) from waiter.error

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, then commit what waits."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            # Not trio's own limiter: both threads last as long as the server.
            for work in (self._write, self._derive):
                nursery.start_soon(_run_thread, work)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.failed = self.failed or StorageError("the store is closed")
                self._stopped = True
                self._queue.put(None)
                self._behind.set()

    def _wake(self, batch: list[_Waiter]) -> None:
        self._free += len(batch)
        self.committed += sum(waiter.error is None for waiter in batch)
        for waiter in batch:
            trio.lowlevel.reschedule(waiter.task)
        self._outside.unpark(count=len(batch))

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
            self._behind.set()
            try:
                self._store.settle()
            except StorageError as error:
                self._note(error)
            if stop:
                break

    def _commit(self, batch: list[_Waiter]) -> None:
        error = self.failed if self.failed and not self._stopped else None
        if error is None:
            error = self._put(batch)
            if error is None:
                return
        if len(batch) > 1 and error.code == StorageError.INVALID:
            for waiter in batch:  # one of them cannot be stored; the others can
                waiter.error = self._put([waiter])
            return
        for waiter in batch:
            waiter.error = error

    def _put(self, batch: list[_Waiter]) -> StorageError | None:
        try:
            self._store.put([waiter.result for waiter in batch])
        except StorageError as error:
            self._note(error)
            return error
        except Exception as error:
            log.exception("result_not_stored")
            return StorageError(f"a bug: {type(error).__name__}", StorageError.INVALID)
        return None

    def _note(self, error: StorageError) -> None:
        log.error("store_error", code=error.code, reason=error.message)
        if error.code in (StorageError.FAILED, StorageError.DAMAGED):
            # A sync that failed must not be tried again: it would say that all is well.
            self.failed = error

    def _derive(self) -> None:
        store: Store | None = None
        try:
            while not self._stopped:
                self._behind.clear()
                try:
                    store = store or self._open_store(False)
                    while not self._stopped and store.derive():
                        self._give_way()
                except StorageError as error:
                    log.warning("search_is_behind", code=error.code, reason=error.message)
                    self._behind.wait(_RETRY)
                except Exception:
                    log.exception("search_is_behind")
                    self._behind.wait(_RETRY)
                if not self._stopped:
                    self._behind.wait()
        finally:
            if store is not None:
                store.close()

    def _give_way(self) -> None:
        """Let commits have the processor while a full batch of them waits; but not for ever."""
        until = time.monotonic() + _PATIENCE
        while self.backlog >= self._batch and not self._stopped and time.monotonic() < until:
            time.sleep(_PATIENCE / 20)


async def _run_thread(work: Callable[[], None]) -> None:
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))


def _not_now(_: object) -> trio.lowlevel.Abort:
    """The result is being stored all the same."""
    return trio.lowlevel.Abort.FAILED

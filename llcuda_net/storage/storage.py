"""What a server uses: the journal and the store of one data directory, held together.

    storage = Storage(directory)
    await nursery.start(storage.run)          # what was cut off is now in storage.recovered
    entry = storage.start(Opened(…))           # a request; buffered
    await storage.accepted(entry)              # now `accepted` may be sent
    entry.dispatched(url, model, prompt)       # an upstream is asked; buffered
    entry.append(pieces, ids)                  # tokens; buffered
    entry.conclude("stop", None, usage)        # the upstream sent the end, with the last of them
    await storage.written()                    # before anything of it is sent
    await storage.finish(entry, Ended(…), log) # now `done` may be sent

A generation of the level memory has no entry, and needs none of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage import damage
from llcuda_net.storage.data_dir import journal_of, prepare, transient_of
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.disk_usage import disk_usage, free_space
from llcuda_net.storage.formats import gate, version_file
from llcuda_net.storage.journal.disk import Files, RealFiles
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import SEGMENT_BYTES, Journal
from llcuda_net.storage.journal.presence import Lookout, Presence
from llcuda_net.storage.journal.threads.sync_thread import INTERVAL
from llcuda_net.storage.objects import database
from llcuda_net.storage.objects.database import Objects
from llcuda_net.storage.objects.interface import ObjectStore
from llcuda_net.storage.outcomes.outcomes import Outcomes
from llcuda_net.storage.outcomes.resuming import Resuming
from llcuda_net.storage.outcomes.store_readers import StoreReaders
from llcuda_net.storage.records import Opened, Result
from llcuda_net.storage.replica.interface import Replica
from llcuda_net.storage.results.interface import Deleted, Store
from llcuda_net.storage.results.sqlite import RESULTS, SqliteStore
from llcuda_net.storage.results.writer import OpenStore, Writer
from llcuda_net.storage.starting import (
    Progress,
    Recovered,
    find_lost,
    losses,
)
from llcuda_net.storage.transient.eraser import Eraser
from llcuda_net.storage.transient.results import TransientResults

log = structlog.get_logger(__name__)

#: Seconds after its end for which a transient generation is kept.
TRANSIENT = 600.0
#: Seconds from one look at whether the files are still there to the next.
WATCH = 1.0


class Storage:
    """A data directory that is served.

    Args:
        directory: made if need be.
        shared: others may have access to the directory; see data_dir.prepare.
        address: where we serve; it is named to a server that finds the directory locked.
        files, interval, segment_bytes: the journal's.
        open_store: opens the store where it is not in the directory; by default SQLite's, there.
        replica: gets a copy of the journal, in a life that has begun.
        objects: what clients keep beside results, where that is not in the directory.
        on_sync: called with the seconds that each sync of the journal took.
        watch: seconds between looks at whether the directory's files are still there; each sync
            and each commit looks, too.
        transient_seconds: for which a transient generation is kept after its end.
        clock: the wall clock, in nanoseconds.

    Attributes:
        recovered: filled in when `run` has started.
        objects: what clients keep beside results; open while `run` runs.
        problems: what this start found damaged or lost, one line each.
        damage: what any start found, until somebody deleted damage.log.
        replica: see the argument.
        finish, close_soon: see Outcomes.
        get, find_by_key, read: see StoreReaders.
        adopt, begin_again: see Resuming.
        transient: the results that are erased when they are due; found, read and deleted by the
            methods here as all others are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        shared: bool = False,
        address: str = "",
        files: Files | None = None,
        interval: float = INTERVAL,
        segment_bytes: int = SEGMENT_BYTES,
        open_store: OpenStore | None = None,
        replica: Replica | None = None,
        objects: ObjectStore | None = None,
        on_sync: Callable[[float], None] | None = None,
        watch: float = WATCH,
        transient_seconds: float = TRANSIENT,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.recovered: list[Recovered] = []
        self.problems: list[str] = []
        self.damage: list[str] = []
        self._directory = directory
        self._shared = shared
        self._address = address
        self._files = files or RealFiles()
        self._presence = Presence(self._files)
        names = ["lock"]
        if objects is None:
            names += [database.NAME, f"{database.NAME}-wal"]
        if open_store is None:
            names += [RESULTS, f"{RESULTS}-wal"]
        self._lookout = Lookout(self._presence, [directory / name for name in names], watch)
        self.objects: ObjectStore = objects or Objects(directory, check=self._presence.check)
        self._open_store = open_store or self._open_sqlite
        self._progress = Progress()
        self._lock: DirectoryLock | None = None
        self._deleting = trio.Lock()
        self._set_back = trio.Event()
        self.journal = Journal(
            journal_of(directory),
            self._files,
            interval=interval,
            segment_bytes=segment_bytes,
            on_sync=on_sync,
            presence=self._presence,
        )
        self.transient = TransientResults(
            transient_of(directory),
            self._files,
            transient_seconds,
            clock=clock,
            check=self._presence.check,
        )
        self.replica = self.journal.replica = replica
        self._eraser = Eraser(self.journal, self.transient, transient_seconds)
        self._outcomes = Outcomes(self.journal, self.transient, self._eraser, replica)
        self.finish = self._outcomes.finish
        self.close_soon = self._outcomes.close_soon
        self._store_readers = StoreReaders(self._open_store, self.transient, self._presence)
        self.get = self._store_readers.get
        self.find_by_key = self._store_readers.find_by_key
        self.read = self._store_readers.read
        self._resuming = Resuming(
            self.journal, self.transient, self._outcomes, self._open_store, replica
        )
        self.adopt, self.begin_again = self._resuming.adopt, self._resuming.begin_again
        self._writer: Writer

    def __repr__(self) -> str:
        unstored = len(self._outcomes.unstored)
        return f"<Storage {self._directory} unstored={unstored}>"

    @property
    def progress(self) -> float:
        """How much of the start is done, from 0 to 1."""
        return self._progress.part

    def _open_sqlite(self, write: bool) -> Store:
        return SqliteStore(self._directory, write=write, mend=write)

    # -- life ---------------------------------------------------------------------------------

    async def claim(self) -> None:
        """Have the directory, which no other server can have then; `run` lets it go.

        Raises:
            NewerFormat: a newer llcuda wrote it; all in it is as it was.
            StorageError: it is another server's, or cannot be used.
        """
        await trio.to_thread.run_sync(gate.check, self._directory)
        await trio.to_thread.run_sync(partial(prepare, self._directory, shared=self._shared))
        self._lock = await trio.to_thread.run_sync(DirectoryLock, self._directory, self._address)
        try:
            await trio.to_thread.run_sync(version_file.note, self._directory)
        except BaseException:
            self._lock.release()
            self._lock = None
            raise

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open everything, say so, and serve until cancelled: cancel it after all that uses it.

        Raises:
            StorageError: the directory is another server's, or what it holds cannot be read.
        """
        if self._lock is None:
            await self.claim()
        assert self._lock is not None
        try:
            await self._serve(task_status)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._lock.release)

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        store = await trio.to_thread.run_sync(self._open_store, True)
        failure: StorageError | None = None
        try:
            async with trio.open_nursery() as nursery:
                if self.replica is not None:
                    self.replica.guard(store)
                    self.replica.on_set_back = self._set_back.set
                    nursery.start_soon(self._copy_again)
                    await nursery.start(self.replica.run)
                try:
                    await self._open(store)
                except StorageError as error:  # as it is, and not in a group
                    failure = error
                else:
                    await self._run(store, task_status)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self.objects.aclose()
                await self._store_readers.aclose()
                await trio.to_thread.run_sync(store.close)
        if failure is not None:
            raise failure

    async def _open(self, store: Store) -> None:
        """Read what there is, and take up what the last server left."""
        names = await trio.to_thread.run_sync(store.names)
        found, read = await trio.to_thread.run_sync(
            self.journal.open,
            lambda stored: find_lost(store, stored),
            self._progress.reached,
            names,
        )
        self.problems = read.problems + losses(read)
        await self.transient.open()
        self.recovered += await self._resuming.start(found, store)
        await self.objects.open()
        self.damage = await trio.to_thread.run_sync(damage.told, self._directory, self.problems)
        await trio.to_thread.run_sync(self._lookout.begin)

    async def _run(self, store: Store, task_status: trio.TaskStatus[None]) -> None:
        self._writer = Writer(store, self._open_store, check=self._presence.check)
        self._outcomes.writer = self._writer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run)
            await nursery.start(self._writer.run)
            nursery.start_soon(self._outcomes.run)
            nursery.start_soon(self._lookout.run, self.journal.stop)
            nursery.start_soon(self._eraser.run)
            self._progress.part = 1.0
            task_status.started()

    # -- writing ------------------------------------------------------------------------------

    @property
    def refusal(self) -> StorageError | None:
        """Why no new request can be taken; None: it can."""
        replica = self.replica
        return (
            self.journal.refusal
            or self._writer.failed
            or self._outcomes.refusal
            or (None if replica is None else replica.failed or replica.refusal)
        )

    @property
    def unstored(self) -> list[Result]:
        """Results that the store has not taken yet; they are in the journal."""
        return [result for _, result in self._outcomes.unstored.values()]

    @property
    def committed(self) -> int:
        """Results that were committed since the start, those of the last server apart."""
        return self._writer.committed

    @property
    def backlog(self) -> int:
        """Results that wait to be committed."""
        return self._outcomes.ending + len(self._outcomes.unstored)

    async def disk_usage(self) -> tuple[dict[str, int], int]:
        """Bytes of the files of each part, and bytes that are free on their disk.

        Raises:
            OSError: the directory is gone.
        """

        def look() -> tuple[dict[str, int], int]:
            return disk_usage(self._directory), free_space(self._directory)

        return await trio.to_thread.run_sync(look)

    def start(self, opened: Opened) -> JournalEntry:
        """Take a request of a level that is journalled; buffered until `accepted`.

        Raises:
            StorageError: it cannot be taken.
        """
        if (refusal := self.refusal) is not None:
            raise refusal
        return self.journal.start(opened)

    async def accepted(self, entry: JournalEntry) -> None:
        """Return when the request is as safe as its level says.

        Waits for room in the queue of results too: that is how a slow store slows acceptance.

        Raises:
            StorageError: it is not, and must not be served.
        """
        await self._writer.room()
        if entry.acceptance_awaited and self.replica is not None:
            self.journal.write()
            await self.replica.until(entry.accepted_at)
        if entry.synced:
            await self.journal.sync()
        else:
            await self.journal.written()

    async def written(self) -> None:
        """Return when the system has all that was appended; it may be sent then.

        Raises:
            StorageError: none of it may be sent. With the code storage_full it is written later.
        """
        await self.journal.written()

    async def sync(self) -> None:
        """`written`, and return when all of it is on the disk: before a send, at the level strict.

        Raises:
            StorageError: it is not.
        """
        await self.journal.sync()

    async def delete(self, id_: str, owner: str | None) -> Deleted | None:
        """Delete a result of an owner (None: anybody's), for good; None: there is none.

        Raises:
            StorageError: it was not deleted.
        """
        if id_ in self._outcomes.unstored:
            raise StorageError("its result waits for room in the store", StorageError.BUSY)
        if id_ in self.transient and not await self.transient.get(id_, owner, lambda _: True):
            return None
        # That the journal needs it no more must be on the disk, or a restart would store it again.
        await self.journal.sync()
        if id_ in self.transient:
            for erased in await self.transient.erase([id_]):
                self._eraser.deleted()
                return Deleted(erased.owner, erased.key)

        def delete() -> Deleted | None:
            store = self._open_store(True)
            try:
                return store.delete(id_, owner)
            finally:
                store.close()

        async with self._deleting:
            return await trio.to_thread.run_sync(delete)

    # -- other servers ------------------------------------------------------------------------

    async def _copy_again(self) -> None:
        """Each time that the database was set back, what runs here is to be in it."""
        while True:
            await self._set_back.wait()
            self._set_back = trio.Event()
            assert self.replica is not None
            self.replica.on_set_back = self._set_back.set
            try:
                await self.journal.copy()
            except StorageError as error:
                log.error("not_copied_again", code=error.code, reason=error.message)

    def forget(self, entry: JournalEntry) -> None:
        """Forget one that another server has."""
        self.journal.forget(entry, elsewhere=True)

"""What a server uses: the journal and the store of one data directory, held together.

    storage = Storage(directory)
    await nursery.start(storage.run)          # what was cut off is now in storage.recovered
    kept = storage.start(Opened(…))           # a request; buffered
    await storage.accepted(kept)              # now `accepted` may be sent
    kept.dispatched(url, model, prompt)       # an upstream is asked; buffered
    kept.append(pieces, ids)                  # tokens; buffered
    kept.conclude("stop", None, usage)        # it said the end, with the last of them
    storage.write()                           # once a batch, before anything of it is sent
    await storage.finish(kept, Ended(…), log) # now `done` may be sent

Everything but `Kept.append` is cheap enough to be called for generations of the level memory too,
and does nothing for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.entry import Log
from llcuda_net.storage.journal.journal import INTERVAL, PROBE, SEGMENT_BYTES, Journal
from llcuda_net.storage.journal.recovery import OpenGeneration
from llcuda_net.storage.records import (
    Concluded,
    Dispatched,
    Ended,
    Level,
    Logprobs,
    Opened,
    Result,
    Splice,
    TokenLog,
)
from llcuda_net.storage.results.interface import Store
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.results.writer import BATCH, OpenStore, Writer

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Threads that read results at a time.
_READERS = 4


class Kept:
    """A generation in the journal, or, at the level memory, nowhere.

    Attributes:
        opened: how it began.
        splices: its continuations so far.
    """

    __slots__ = ("_log", "opened", "splices")

    def __init__(self, opened: Opened, log: Log | None) -> None:
        self.opened = opened
        self.splices: list[Splice] = []
        self._log = log

    @property
    def durable(self) -> int:
        """How many entries of its log a power cut cannot take away."""
        return 0 if self._log is None else self._log.durable

    def watch(self, callback: Callable[[int], None] | None) -> None:
        """Have `durable` told each time it has grown, in the trio thread; it must not raise."""
        if self._log is not None:
            self._log.on_durable = callback

    def dispatched(
        self, upstream: str, model: dict[str, Any], prompt: str | list[int] | None = None
    ) -> None:
        """Buffer that an upstream is asked; the last time counts.

        Args:
            model: the fingerprint of its model.
            prompt: see records.Dispatched.

        Raises:
            StorageError: as `append`.
        """
        if self._log is not None:
            self._log.dispatch(Dispatched(upstream=upstream, model=model, prompt=prompt))

    def append(
        self,
        pieces: list[str],
        ids: list[int | None],
        logprobs: Logprobs | None = None,
        counts: list[int] | None = None,
    ) -> None:
        """Buffer the next entries of its log, until `Storage.write`; see TokenLog.

        Raises:
            StorageError: they cannot be kept: the disk is full, or has failed.
        """
        if self._log is not None:
            self._log.append(pieces, ids, logprobs, counts)

    def conclude(self, reason: str, stop: str | None, usage: dict[str, int]) -> None:
        """Buffer that the upstream has said the end, in one batch with the last entries.

        Raises:
            StorageError: as `append`.
        """
        if self._log is not None:
            self._log.conclude(Concluded(reason=reason, stop=stop, usage=usage))

    def splice(self, position: int, upstream: str, epoch: int = 0) -> None:
        """Buffer that entries from `position`, the next one, come from another run.

        Args:
            epoch: names that run.

        Raises:
            StorageError: as `append`.
        """
        if self._log is not None:
            self._log.splice(upstream, epoch)
        self.splices.append(Splice(position, upstream, epoch))


@dataclass
class Recovered:
    """A generation that was running when the last server ended.

    Attributes:
        kept: goes on where it was.
        log: what it had emitted; `kept.opened` has the request and `kept.splices` the splices.
        gap: whether later tokens had been written, which a power cut took: a client may have them.
        dispatched: how an upstream was asked last; None: none was.
        concluded: what the upstream said of the end: only the result is missing. None: nothing yet.
    """

    kept: Kept
    log: TokenLog
    gap: bool
    dispatched: Dispatched | None = None
    concluded: Concluded | None = None


class Storage:
    """A data directory that is served.

    Args:
        directory: made if need be.
        address: where we serve, for whoever finds the directory locked.
        files, interval, segment_bytes: the journal's.
        open_store: opens the store; by default SQLite's, in the directory.

    Attributes:
        recovered: filled in when `run` has started.
        problems: damage that was found in the journal, one line each.
        on_state: called with `refusal` when the journal's state changes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "",
        files: Files | None = None,
        interval: float = INTERVAL,
        segment_bytes: int = SEGMENT_BYTES,
        open_store: OpenStore | None = None,
    ) -> None:
        self.recovered: list[Recovered] = []
        self.problems: list[str] = []
        self.on_state: Callable[[StorageError | None], None] = lambda refusal: None
        self._directory = directory
        self._address = address
        self._files = files
        self._interval = interval
        self._segment_bytes = segment_bytes
        self._open_store = open_store or self._open_sqlite
        self._limiter = trio.CapacityLimiter(_READERS)
        self._readers: list[Store] = []
        self._unstored: dict[str, tuple[Kept, Result]] = {}
        self._more_unstored = trio.Event()
        self._store_refusal: StorageError | None = None
        self.journal: Journal
        self._writer: Writer

    def _open_sqlite(self, write: bool) -> Store:
        return SqliteStore(self._directory, write=write)

    # -- life ---------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open everything, say so, and serve until cancelled: cancel it after all that uses it.

        Raises:
            StorageError: the directory is another server's, or what it holds cannot be read.
        """
        folder = await trio.to_thread.run_sync(prepare, self._directory)
        lock = DirectoryLock(self._directory, self._address)
        try:
            await self._serve(folder, task_status)
        finally:
            lock.release()

    async def _serve(self, folder: Path, task_status: trio.TaskStatus[None]) -> None:
        self.journal = Journal(
            folder, self._files, interval=self._interval, segment_bytes=self._segment_bytes
        )
        self.journal.on_state = lambda refusal: self.on_state(refusal)
        store = await trio.to_thread.run_sync(self._open_store, True)
        try:
            found, self.problems = await trio.to_thread.run_sync(self.journal.open)
            for problem in self.problems:
                log.error("journal_damaged", detail=problem)
            await self._recover(found, store)
            self._writer = Writer(store, self._open_store)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.journal.run)
                await nursery.start(self._writer.run)
                nursery.start_soon(self._store_again)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                for reader in [*self._readers, store]:
                    await trio.to_thread.run_sync(reader.close)

    async def _recover(self, found: list[tuple[OpenGeneration, Log]], store: Store) -> None:
        ids = [generation.id for generation, _ in found]
        missing = await trio.to_thread.run_sync(store.missing, ids)
        ended: list[tuple[Kept, Result]] = []
        for generation, place in found:
            kept = Kept(generation.opened, place)
            kept.splices = generation.splices
            if generation.id not in missing:
                place.forget()  # committed, and then we ended
            elif generation.ended is not None:
                ended.append((kept, generation.result()))
            else:
                self.recovered.append(
                    Recovered(
                        kept,
                        generation.log,
                        generation.gap,
                        generation.dispatched,
                        generation.concluded,
                    )
                )
        for first in range(0, len(ended), BATCH):
            batch = ended[first : first + BATCH]
            try:
                await trio.to_thread.run_sync(store.put, [result for _, result in batch])
            except StorageError as error:
                if not error.retry:
                    raise
                self._unstored.update({result.id: (kept, result) for kept, result in batch})
                self._store_refusal = error
                self._more_unstored.set()
            else:
                for kept, _ in batch:
                    _forget(kept)

    # -- writing ------------------------------------------------------------------------------

    @property
    def refusal(self) -> StorageError | None:
        """Why no new request can be taken; None: it can."""
        return self.journal.refusal or self._writer.failed or self._store_refusal

    @property
    def unstored(self) -> list[Result]:
        """Results that the store has not taken yet; they are in the journal."""
        return [result for _, result in self._unstored.values()]

    @property
    def committed(self) -> int:
        """Results that were committed since the start, those of the last server apart."""
        return self._writer.committed

    @property
    def backlog(self) -> int:
        """Results that wait to be committed."""
        return self._writer.backlog + len(self._unstored)

    def start(self, opened: Opened) -> Kept:
        """Take a request; buffered until `accepted`.

        Raises:
            StorageError: it cannot be taken.
        """
        level = Level(opened.level)
        if not level.journalled:
            return Kept(opened, None)
        if (refusal := self.refusal) is not None:
            raise refusal
        return Kept(opened, self.journal.start(opened))

    async def accepted(self, kept: Kept) -> None:
        """Return when the request is as safe as its level says.

        Waits for room in the queue of results too: that is how a slow store slows acceptance.

        Raises:
            StorageError: it is not, and must not be served.
        """
        level = Level(kept.opened.level)
        if not level.journalled:
            return
        await self._writer.room()
        if level.synced:
            await self.journal.sync()
        else:
            self.journal.write()

    def write(self) -> None:
        """Hand all that was appended to the system; call it before any of that is sent.

        Raises:
            StorageError: none of it may be sent. With the code storage_full it is written later.
        """
        self.journal.write()

    async def sync(self) -> None:
        """`write`, and return when all of it is on the disk: before a send, at the level strict.

        Raises:
            StorageError: it is not.
        """
        await self.journal.sync()

    async def finish(
        self, kept: Kept, ended: Ended, tokens: TokenLog, *, cached_from: str | None = None
    ) -> Result | None:
        """Store a generation's result; it is on the disk when this returns.

        Args:
            tokens: the whole log, all of which was appended.

        Returns:
            The result; None at the level memory.

        Raises:
            StorageError: it is not stored. With the code storage_full or storage_busy it stays in
                the journal, and is stored when that is possible.
        """
        if kept._log is None:
            return None
        result = Result.of(kept.opened, tokens, ended, kept.splices, cached_from)
        # A journal that cannot take the end is no reason not to store the result.
        with contextlib.suppress(StorageError):
            kept._log.end(ended)
            self.journal.write()
        try:
            await self._writer.commit(result)
        except StorageError as error:
            if error.retry:
                self._unstored[result.id] = (kept, result)
                self._store_refusal = error
                self._more_unstored.set()
            raise
        _forget(kept)
        return result

    async def discard(self, kept: Kept) -> None:
        """Forget a generation of which nothing is to be stored. Never raises."""
        _forget(kept)

    async def _store_again(self) -> None:
        """Store results that there was no room for; bounded, since nothing new is taken then."""
        while True:
            await self._more_unstored.wait()
            self._more_unstored = trio.Event()
            while self._unstored:
                await trio.sleep(PROBE)
                for kept, result in tuple(self._unstored.values()):
                    try:
                        await self._writer.commit(result)
                    except StorageError:
                        break
                    del self._unstored[result.id]
                    _forget(kept)
            self._store_refusal = None

    # -- reading ------------------------------------------------------------------------------

    async def read(self, question: Callable[[Store], _T]) -> _T:
        """Ask the store something, in a thread: `await storage.read(lambda s: s.get(id))`.

        Raises:
            StorageError: what the question raises.
        """
        async with self._limiter:
            store = self._readers.pop() if self._readers else None

            def ask() -> _T:
                nonlocal store
                if store is None:
                    store = self._open_store(False)
                return question(store)

            try:
                return await trio.to_thread.run_sync(ask)
            finally:
                if store is not None:
                    self._readers.append(store)


def _forget(kept: Kept) -> None:
    if kept._log is not None:
        kept._log.forget()

"""Results of generations that end: each is committed, and the journal forgets its generation.

What the store takes not now, for want of room or of a database that answers, waits: one that other
servers could end waits without a word; another is told to have failed, and is stored later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial

import structlog
import trio

from llcuda_net.errors import OutcomeUnknown, StorageError
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import PROBE, Journal
from llcuda_net.storage.records import Ended, Result, TokenLog
from llcuda_net.storage.replica.interface import Replica
from llcuda_net.storage.results.writer import Writer
from llcuda_net.storage.transient.eraser import Eraser
from llcuda_net.storage.transient.results import TransientResults

log = structlog.get_logger(__name__)

_UNKNOWN = (
    "and not even that could be recorded: how it ends is not known, a restart may continue it"
)


class Outcomes:
    """Commits results, and remembers those that wait.

    Args:
        replica: of the journal; None: there is none.

    Attributes:
        writer: commits to the store; set before the first result comes.
        refusal: why the store takes nothing now; None: as far as is known it does.
        unstored: results that the store has not taken yet, by id, with their entries.
        ending: results that are being stored for the first time.
        closing: see `close_soon`.
    """

    def __init__(
        self,
        journal: Journal,
        transient: TransientResults,
        eraser: Eraser,
        replica: Replica | None,
    ) -> None:
        self.writer: Writer
        self.refusal: StorageError | None = None
        self.unstored: dict[str, tuple[JournalEntry, Result]] = {}
        self.ending = 0
        self.closing = trio.Event()
        self._journal = journal
        self._transient = transient
        self._eraser = eraser
        self._replica = replica
        self._closers: set[trio.Event] = set()
        self._more = trio.Event()

    def __repr__(self) -> str:
        return f"<Outcomes {self.ending} on their way, {len(self.unstored)} waiting>"

    def close_soon(self) -> None:
        """The server ends: nothing waits any more for a database that does not answer."""
        self.closing.set()
        for settled in self._closers:
            settled.set()
        if self._replica is not None:
            self._replica.give_up()

    def postpone(self, some: Iterable[tuple[JournalEntry, Result]], error: StorageError) -> None:
        """Store these later; until then nothing new is taken."""
        self.unstored.update({result.id: (entry, result) for entry, result in some})
        self.refusal = error
        self._more.set()

    async def finish(
        self,
        entry: JournalEntry,
        ended: Ended,
        tokens: TokenLog,
        *,
        cached_from: str | None = None,
        otherwise: Callable[[StorageError], Ended] | None = None,
    ) -> Result:
        """Store a generation's result; it is on the disk when this returns.

        Args:
            tokens: the whole log, all of which was appended.
            otherwise: the end that is told if the result is not stored; None: `ended`.

        Raises:
            StorageError: it is not stored, and `otherwise` is how it ended, also after a restart.
                With the code storage_full or storage_busy the result with that end is stored when
                that is possible. With storage_fenced it has not ended: another server has it.
            OutcomeUnknown: the same, except that a restart may not know of that end.
        """
        of = partial(Result.of, splices=entry.splices, switches=entry.switches)
        result = of(entry.opened, tokens, ended, cached_from=cached_from)
        replica = self._replica if entry.mirrored else None
        if replica is not None and replica.failed is not None:
            raise replica.failed
        # A journal that cannot take the end is no reason not to store the result.
        with contextlib.suppress(StorageError):
            entry.end(ended)
            self._journal.write()
        if replica is not None:  # its row goes with its result
            await self._until_accepted(entry, replica)
        self.ending += 1
        try:
            try:
                await self._store(entry, result)
            finally:
                self.ending -= 1
        except StorageError as error:
            if error.code == StorageError.FENCED:  # it is another server's, which ends it
                raise
            if otherwise is not None:
                ended = otherwise(error)
                result = of(entry.opened, tokens, ended, cached_from=cached_from)
            if error.retry:
                self.postpone([(entry, result)], error)
            try:
                await self._journal.end(entry, ended)
            except StorageError:
                raise OutcomeUnknown(f"{error.message}; {_UNKNOWN}", error.code) from error
            raise
        self.forget(entry, self.writer.reached, result.finished)
        return result

    async def keep(self, entry: JournalEntry, result: Result) -> None:
        """Keep the result of one that had ended when its last server did."""
        try:
            await self.commit(result)
        except StorageError as error:
            if not error.retry:
                raise
            self.postpone([(entry, result)], error)
        else:
            reached = 0 if result.transient else self.writer.reached
            self.forget(entry, reached, result.finished)

    async def _store(self, entry: JournalEntry, result: Result) -> None:
        """Commit a generation's result; one that other servers can end waits for its store."""
        told = ""
        while True:
            try:
                return await self.commit(result)
            except StorageError as error:
                if not (entry.mirrored and error.retry):
                    raise
                if error.message != told:
                    told = error.message
                    log.warning("result_waits", generation=result.id, reason=told)
                with trio.move_on_after(PROBE):
                    await self.closing.wait()
                if self.closing.is_set():
                    raise _left_open(told) from error

    async def _until_accepted(self, entry: JournalEntry, replica: Replica) -> None:
        """Return when other servers know of an entry.

        Raises:
            StorageError: they never will, or the server ends before.
        """
        settled = trio.Event()
        failure: list[StorageError | None] = []

        def then(error: StorageError | None) -> None:
            failure.append(error)
            settled.set()

        if replica.when(entry.accepted_at, then):
            return
        self._closers.add(settled)
        await settled.wait()
        self._closers.discard(settled)
        if not failure:
            raise _left_open("the database does not answer")
        if failure[0] is not None:
            raise failure[0]

    async def commit(self, result: Result) -> None:
        """Have a result stored where it is to be.

        Raises:
            StorageError: it is not.
        """
        if not result.transient:
            await self.writer.commit(result)
        elif not self._transient.is_due(result.finished):  # else nobody is to get it any more
            await self._transient.commit(result)

    def forget(self, entry: JournalEntry, reached: int, finished: int) -> None:
        """The journal needs an entry no more, whose generation ended then."""
        transient = entry.opened.transient
        self._journal.forget(entry, 0 if transient else reached)
        if transient:
            self._eraser.forgot(finished)

    async def run(self) -> None:
        """Store what was postponed, for ever; bounded, since nothing new is taken then."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self.unstored:
                await trio.sleep(PROBE)
                for entry, result in tuple(self.unstored.values()):
                    try:
                        await self.commit(result)
                    except StorageError as error:
                        if error.code != StorageError.FENCED:
                            break
                        log.warning("result_is_elsewhere", generation=result.id)
                        self._journal.forget(entry)
                    else:
                        self.forget(entry, self.writer.reached, result.finished)
                    del self.unstored[result.id]
            self.refusal = None


def _left_open(why: str) -> StorageError:
    return StorageError(f"the server stops, and another one ends this: {why}", StorageError.FENCED)

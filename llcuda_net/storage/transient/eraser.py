"""Erases what is transient: results that are due, and before that what the journal had of them.

The journal needs a generation no more once its result is kept, but its records stay in a segment
until that is deleted. So the journal is compacted half the time before the first of them is due;
one compaction takes all that were forgotten until then. With results that come all the time, that
is once in half that time, whatever their number.

Nothing is done while there is nothing to erase. A wait looks at the wall clock now and then, since
a computer may have slept meanwhile.
"""

from __future__ import annotations

import math

import structlog
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.transient.results import TransientResults

log = structlog.get_logger(__name__)

#: Seconds after which a wait looks at the clock again.
LOOK = 30.0
#: Results that are erased in one step.
STEP = 64
#: Seconds within which the journal is compacted after a user has deleted a result.
SOON = 30.0


class Eraser:
    """Erases from the journal and the results of one data directory.

    Args:
        journal: forgets what is kept elsewhere; see `forgot`.
        results: the transient ones.
        seconds: for which they are kept.
    """

    def __init__(self, journal: Journal, results: TransientResults, seconds: float) -> None:
        self._journal = journal
        self._results = results
        self._half = int(seconds * 1e9) // 2
        #: By when the journal is to be compacted; None: it has nothing that is to go.
        self._compact_by: int | None = None
        self._sooner = trio.Event()

    def __repr__(self) -> str:
        stale = "nothing" if self._compact_by is None else "something"
        return f"<Eraser {self._results!r}, {stale} in the journal>"

    def forgot(self, finished: int) -> None:
        """The journal has forgotten a transient generation that ended then."""
        self._compact(self._results.due_at(finished) - self._half)

    def deleted(self) -> None:
        """A user has deleted a transient result: the journal is to have none of it soon."""
        if self._compact_by is not None:
            self._compact(self._results.now() + int(SOON * 1e9))

    def _compact(self, by: int) -> None:
        if self._compact_by is None or by < self._compact_by:
            self._compact_by = by
            self._sooner.set()

    async def run(self) -> None:
        """Erase until cancelled; the journal must be running."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._erase_results)
            nursery.start_soon(self._compact_journal)

    async def _erase_results(self) -> None:
        while True:
            left = self._results.next_due()
            with trio.move_on_after(math.inf if left is None else min(max(left, 0), LOOK)):
                await self._results.wait_for_earlier()
            while ids := self._results.due(STEP):
                if erased := await self._results.erase(ids):
                    log.info("results_erased", count=len(erased))

    async def _compact_journal(self) -> None:
        while True:
            while self._compact_by is None:
                await self._sooner.wait()
                self._sooner = trio.Event()
            now = self._results.now()
            self._compact_by = min(self._compact_by, now + self._half)  # the clock was set back
            left = (self._compact_by - now) / 1e9
            if left > 0:
                with trio.move_on_after(min(left, LOOK)):
                    await self._sooner.wait()
                    self._sooner = trio.Event()
                continue
            self._compact_by = None
            try:
                await self._journal.compact()
            except StorageError as error:
                log.error("journal_not_compacted", code=error.code, reason=error.message)
                return  # it has failed: the next start writes it anew

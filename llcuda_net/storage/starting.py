"""What a start finds in the journal: what is over, what is to be stored, and what goes on."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog

from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.recovery import Recovered as Found
from llcuda_net.storage.packed_log import PackedLog
from llcuda_net.storage.records import Concluded, Dispatched, Ended, TokenLog
from llcuda_net.storage.results.interface import Store

log = structlog.get_logger(__name__)

#: Seconds between lines in the log about a start that takes longer.
TELLING = 5.0


class Progress:
    """How far the journal is read; a start that takes long says so in the log.

    Attributes:
        part: how much is done, from 0 to 1.
    """

    def __init__(self) -> None:
        self.part = 0.0
        self._tell_at = 0.0

    def __repr__(self) -> str:
        return f"<Progress {self.part:.0%}>"

    def reached(self, part: float) -> None:
        """Note it; called in the thread that reads the journal."""
        self.part = part
        now = time.monotonic()
        if not self._tell_at:
            self._tell_at = now + TELLING
        elif now >= self._tell_at:
            self._tell_at = now + TELLING
            log.info("journal_recovering", percent=int(100 * part))


@dataclass
class Recovered:
    """A generation that was running when the last server ended.

    Attributes:
        entry: continues where it was; it has the request and the splices.
        packed: what it had emitted.
        gap: whether later tokens had been written, which a power cut took: a client may have them.
        dispatched: the last dispatch to an upstream; None: there was none.
        concluded: the end as the upstream sent it: only the result is missing. None: no end yet.
        cancelled: it was to end, and has not.
    """

    entry: JournalEntry
    packed: PackedLog
    gap: bool
    dispatched: Dispatched | None = None
    concluded: Concluded | None = None
    cancelled: bool = False

    @property
    def log(self) -> TokenLog:
        """What it had emitted, decoded."""
        return self.packed.unpack()


@dataclass
class Sorted:
    """Generations that the journal has, by what is left to do.

    Attributes:
        committed: their results are stored; the server ended before it noted that. Each with its
            end, if the journal has it.
        ended: their results are to be stored.
        transient: the same, of those that are erased when they are due.
        running: they are to be continued.
    """

    committed: list[tuple[JournalEntry, Ended | None]] = field(default_factory=list)
    transient: list[tuple[JournalEntry, OpenGeneration]] = field(default_factory=list)
    ended: list[tuple[JournalEntry, OpenGeneration]] = field(default_factory=list)
    running: list[Recovered] = field(default_factory=list)

    @property
    def entries(self) -> list[JournalEntry]:
        """The entries of all that have no result yet."""
        found = [entry for entry, _ in (*self.ended, *self.transient)]
        return found + [one.entry for one in self.running]


def sort_out(
    found: Sequence[tuple[OpenGeneration, JournalEntry]], store: Store, transient: Collection[str]
) -> Sorted:
    """What is left to do with each generation of a journal.

    Args:
        transient: ids of the results that are stored elsewhere, until they are due.

    Raises:
        StorageError: the store cannot be read.
    """
    missing = store.missing([one.id for one, _ in found if not one.opened.transient])
    missing |= {one.id for one, _ in found if one.opened.transient and one.id not in transient}
    out = Sorted()
    for generation, entry in found:
        if generation.id not in missing:
            out.committed.append((entry, generation.ended))
        elif generation.ended is not None and generation.opened.transient:
            out.transient.append((entry, generation))
        elif generation.ended is not None:
            out.ended.append((entry, generation))
        else:
            out.running.append(
                Recovered(
                    entry,
                    generation.packed,
                    generation.gap,
                    generation.dispatched,
                    generation.concluded,
                )
            )
    return out


def find_lost(store: Store, stored: dict[str, int]) -> set[str]:
    """The results that a store had and has no more, those apart that somebody pruned.

    Args:
        stored: by id, how many results the store had then, as the journal remembers it.
    """
    reached = store.reached()
    return store.missing([id_ for id_, of in stored.items() if of > reached])


def losses(found: Found) -> list[str]:
    """What to say of results that the store has lost."""
    if not found.lost:
        return []
    restored = found.lost & {generation.id for generation in found.generations}
    gone = sorted(found.lost - restored)
    text = (
        f"the store has lost {len(found.lost)} results that it had committed, its newest ones: "
        "results.db or results.db-wal was deleted, cut or replaced, or the database of --store was "
        f"set back. {len(restored)} of them are restored from the journal"
    )
    return [f"{text}; not these: {', '.join(gone)}" if gone else text]

"""A server's local journal, and its disk: what is appended is there at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import Collector, OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.records import Forgotten, Opened, encode
from llcuda_net.storage.replica.interface import Accept, Replica


@dataclass
class Disk:
    """What of a server outlives its process.

    Attributes:
        lives: as the file `lives` has them.
        records: those of the journal.
        slots: given out so far.
    """

    lives: list[int] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    slots: int = 0


class Journal:
    """As storage.journal.journal.Journal, for its entries and for storage.replica.takeover."""

    def __init__(self, disk: Disk, replica: Replica) -> None:
        self.replica = replica
        self.refusal: StorageError | None = None
        self.failed: StorageError | None = None
        self.appended: dict[JournalEntry, int] = {}
        self._disk = disk

    def recover(self) -> list[tuple[OpenGeneration, JournalEntry]]:
        """What an earlier process has left; it is written again, and nothing else."""
        collector = Collector((), {})
        collector.add(self._disk.records)
        self._disk.records = []
        pairs = [(one, self.entry_of(one)) for one in collector.generations()]
        for generation, entry in pairs:
            self.restate(entry, restated(generation, entry.slot))
        return pairs

    def entry_of(self, generation: OpenGeneration) -> JournalEntry:
        """See Journal."""
        entry = self._entry(generation.opened)
        entry.splices, entry.switches = generation.splices, generation.switches
        entry.count = generation.packed.count
        return entry

    def _entry(self, opened: Opened) -> JournalEntry:
        self._disk.slots += 1
        appender: Any = self
        return JournalEntry(appender, opened, self._disk.slots, 1)

    def start(self, opened: Opened) -> JournalEntry:
        """See Journal."""
        entry = self._entry(opened)
        opened.slot = entry.slot
        entry.mirror()
        self.add(entry, encode(opened))
        self.replica.accept(entry, Accept.of(opened), entry.acceptance_awaited)
        return entry

    def restate(self, entry: JournalEntry, bodies: Iterable[bytes]) -> None:
        """See Journal."""
        for body in bodies:
            self.add(entry, body)

    def add(self, entry: JournalEntry, body: bytes) -> None:
        """See Appender."""
        body = bytes(body)
        self._disk.records.append(body)
        entry.bytes += len(body)
        if entry.mirrored:
            self.replica.add(entry.slot, body, entry.awaited)

    def forget(self, entry: JournalEntry, reached: int = 0, *, elsewhere: bool = False) -> None:
        """See Journal."""
        id_ = entry.opened.generation
        if entry.mirrored:
            self.replica.forget(entry.slot, id_, stored=reached > 0 or elsewhere)
            if not reached:
                self.replica.send()
            entry.mirrored = False
        self._disk.records.append(encode(Forgotten(entry.slot, id_ if reached else "", reached)))

    def write(self) -> None:
        """See Journal."""

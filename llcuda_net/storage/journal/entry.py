"""One open generation's place in the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import (
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Level,
    Logprobs,
    Spliced,
    encode,
)


class Owner(Protocol):
    """What a log needs of its journal."""

    refusal: StorageError | None
    failed: StorageError | None
    appended: dict[Log, int]

    def add(self, log: Log, body: bytes) -> None:
        """Buffer a record."""

    def forget(self, log: Log) -> None:
        """Let go of a log."""


class Log:
    """Appends a generation's records to its journal.

    Attributes:
        count: entries appended so far.
        dispatches: how often an upstream was asked so far.
        durable: of these entries, how many a power cut cannot take away.
        on_durable: called with `durable` after it has grown; must not raise.
    """

    __slots__ = (
        "_journal",
        "bytes",
        "count",
        "dispatches",
        "durable",
        "level",
        "oldest",
        "on_durable",
        "slot",
    )

    def __init__(self, journal: Owner, slot: int, level: Level, oldest: int) -> None:
        self._journal = journal
        self.slot = slot
        self.level = level
        self.oldest = oldest
        self.bytes = 0
        self.count = 0
        self.dispatches = 0
        self.durable = 0
        self.on_durable: Callable[[int], None] | None = None

    def append(
        self,
        pieces: list[str],
        ids: list[int | None],
        logprobs: Logprobs | None = None,
        counts: list[int] | None = None,
    ) -> None:
        """Buffer the log's next entries.

        Raises:
            StorageError: the journal has failed, or its disk is full.
        """
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        counts = unless_ones(counts)
        journal.add(self, encode(Appended(self.slot, self.count, pieces, ids, logprobs, counts)))
        self.count += len(pieces)
        if self.level.synced:
            journal.appended[self] = self.count

    def splice(self, upstream: str, epoch: int) -> None:
        """Buffer that the next entries come from another run; raises as `append`."""
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        journal.add(self, encode(Spliced(self.slot, self.count, upstream, epoch)))

    def dispatch(self, dispatched: Dispatched) -> None:
        """Buffer that an upstream is asked; raises as `append`."""
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        dispatched.slot = self.slot
        dispatched.number = self.dispatches
        journal.add(self, encode(dispatched))
        self.dispatches += 1

    def conclude(self, concluded: Concluded) -> None:
        """Buffer that the upstream has said the end; raises as `append`."""
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        concluded.slot = self.slot
        concluded.count = self.count
        journal.add(self, encode(concluded))
        if self.level.synced:
            journal.appended[self] = self.count

    def end(self, ended: Ended) -> None:
        """Buffer how the generation ended; on a full disk too, since its end makes room.

        Raises:
            StorageError: the journal has failed.
        """
        journal = self._journal
        if journal.failed is not None:
            raise journal.failed
        ended.slot = self.slot
        ended.count = self.count
        journal.add(self, encode(ended))
        if self.level.synced:
            journal.appended[self] = self.count

    def forget(self) -> None:
        """The store has the result: the journal need not keep the generation. Never raises."""
        self._journal.forget(self)


def unless_ones(counts: list[int] | None) -> list[int] | None:
    """Token counts as they are written: None where each is one."""
    return None if counts is None or counts.count(1) == len(counts) else counts

"""The entries of open generations: what is appended to the journal.

A record is encoded and framed once, into the journal's buffer; see appender. The way of a token
needs one `JournalEntry.append` per generation and one `Appender.write` per batch.
"""

from __future__ import annotations

from typing import Any

from llcuda_net.storage.journal.appender import Appender
from llcuda_net.storage.records import (
    ENCODE_ERRORS,
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Level,
    Logprobs,
    Opened,
    Splice,
    Spliced,
    Switch,
    Switched,
    encode,
    encoder,
    unstorable,
)

_encode = encoder.encode


class JournalEntry:
    """One open generation in the journal.

    Attributes:
        opened: how it began.
        splices: its continuations so far.
        switches: where its log changes between channels, so far.
        slot: its short number in the journal.
        count: pieces appended so far.
        dispatches: how often an upstream was asked so far.
        ends: how often its end was recorded so far.
        durable: of these pieces, how many a power cut cannot take away.
        followed: whether `Journal.progressed` is to tell of `durable`; see `follow`.
        synced: whether its level asks for the disk.
        mirrored: whether the replica gets its records, too.
        awaited: whether its readers wait for the replica.
        acceptance_awaited: whether its acceptance does.
        accepted_at: position of its acceptance in the replica.
        taken: another generation, which has its idempotency key; it is not accepted then.
        oldest: number of the segment with its oldest record.
        bytes: of its records.
    """

    __slots__ = (
        "_journal",
        "acceptance_awaited",
        "accepted_at",
        "awaited",
        "bytes",
        "count",
        "dispatches",
        "durable",
        "ends",
        "followed",
        "level",
        "mirrored",
        "oldest",
        "opened",
        "slot",
        "splices",
        "switches",
        "synced",
        "taken",
    )

    def __init__(self, journal: Appender, opened: Opened, slot: int, oldest: int) -> None:
        self._journal = journal
        self.opened = opened
        self.splices: list[Splice] = []
        self.switches: list[Switch] = []
        self.slot = slot
        self.level = Level(opened.level)
        self.synced = self.level.synced
        self.oldest = oldest
        self.bytes = 0
        self.count = 0
        self.dispatches = 0
        self.ends = 0
        self.durable = 0
        self.followed = False
        self.mirrored = self.awaited = self.acceptance_awaited = False
        self.accepted_at = 0
        self.taken: str | None = None

    def __repr__(self) -> str:
        return (
            f"<JournalEntry {self.opened.generation} slot={self.slot} {self.level}"
            f" pieces={self.count} durable={self.durable}>"
        )

    def follow(self) -> None:
        """Have `Journal.progressed` tell when `durable` grows."""
        if not self.followed:
            self.followed = True
            self._journal.follow(self)

    def mirror(self) -> None:
        """Have the replica get what is appended from now on; it has what was before."""
        self.mirrored = True
        self.awaited = self.level.replicated
        self.acceptance_awaited = self.awaited or self.opened.key is not None

    def append(
        self,
        pieces: list[str],
        ids: list[int | None],
        logprobs: Logprobs | None = None,
        counts: list[int] | None = None,
    ) -> None:
        """Buffer the next pieces, until `write`; see TokenLog.

        Raises:
            StorageError: the journal has failed, or its disk is full.
        """
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        if counts is not None and counts.count(1) == len(counts):
            counts = None  # as it is written where each is one
        try:
            switches = len(self.switches)
            body = _encode(Appended(self.slot, self.count, pieces, ids, logprobs, counts, switches))
        except ENCODE_ERRORS as error:
            raise unstorable(error) from error
        journal.add(self, body)
        self.count += len(pieces)
        if self.synced:
            journal.appended[self] = self.count

    def splice(self, position: int, upstream: str, epoch: int = 0) -> None:
        """Buffer that pieces from `position`, the next one, come from another run.

        Args:
            epoch: names that run.

        Raises:
            StorageError: as `append`.
        """
        self._add(Spliced(self.slot, self.count, upstream, epoch))
        self.splices.append(Splice(position, upstream, epoch))

    def switch(self, switch: Switch) -> None:
        """Buffer that the log is of another channel from a piece on that was not appended yet.

        Raises:
            StorageError: as `append`.
        """
        self._add(Switched(self.slot, *switch))
        self.switches.append(switch)

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
        record = Dispatched(upstream=upstream, model=model, prompt=prompt)
        record.slot, record.number = self.slot, self.dispatches
        self._add(record)
        self.dispatches += 1

    def conclude(self, reason: str, stop: str | None, usage: dict[str, int]) -> None:
        """Buffer that the upstream sent the end, in one batch with the last pieces.

        Raises:
            StorageError: as `append`.
        """
        record = Concluded(reason=reason, stop=stop, usage=usage)
        record.slot, record.count = self.slot, self.count
        self._add(record)
        if self.synced:
            self._journal.appended[self] = self.count

    def end(self, ended: Ended) -> None:
        """Buffer how the generation ended; on a full disk too, since its end makes room.

        Raises:
            StorageError: the journal has failed.
        """
        journal = self._journal
        if journal.failed is not None:
            raise journal.failed
        journal.add(self, self.encoded(ended))
        if self.synced:
            journal.appended[self] = self.count

    def encoded(self, ended: Ended) -> bytes:
        """The bytes of a further end."""
        ended.slot, ended.count, ended.number = self.slot, self.count, self.ends
        self.ends += 1
        return encode(ended)

    def _add(self, record: Any) -> None:
        journal = self._journal
        if journal.refusal is not None:
            raise journal.refusal
        journal.add(self, encode(record))

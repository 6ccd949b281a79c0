"""What a server may do, by what it knows: decisions without a clock, a socket or a database.

Theory. Two things keep a server that was replaced from doing harm. The *fence* is in the database:
once a server is fenced, nothing that it writes is committed, whatever its clock says. The *lease*
is in the server: it stops by itself a second before the others may fence it. What is shown after
its commit needs the fence alone; what is shown before (the level `disk`) needs the lease, too.

Times are seconds of one clock of the machine that goes on while it is suspended. All values here
are immutable, so that tests can go through every order of events.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

_Record = TypeVar("_Record")
#: Seconds from a renewal until others may fence the server, by the database's clock.
LEASE = 5.0
#: Seconds between renewals; and after which the server stops by itself, since it has sent the last
#: renewal that was answered. Clocks may differ in speed by LEASE / STOP.
RENEW, STOP = 1.0, 4.0
#: Seconds after which a server that does nothing any more renews its lease no longer: its process
#: lives, and its event loop hangs.
WEDGED = 20.0


def suspended_clock() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Standing(StrEnum):
    """What a server is for the others, as far as it knows."""

    #: It has what it has.
    MEMBER = "member"
    #: It was not heard for so long that others may take over: it stops, and may come back.
    STOPPED = "stopped"
    #: Others have taken over: it must begin a new life.
    FENCED = "fenced"


@dataclass(frozen=True)
class OwnLease:
    """A server's own view of its lease.

    Attributes:
        good_until: by the server's clock.
        renew_at: when the next renewal is to be sent.
        since: when it was sent since which it was good without a gap.
    """

    good_until: float
    renew_at: float
    fenced: bool = False
    since: float = 0.0

    @classmethod
    def taken(cls, sent: float) -> OwnLease:
        """The lease of a server that joined by a request sent at this time."""
        return cls(sent + STOP, sent + RENEW, since=sent)

    def asked(self, now: float) -> OwnLease:
        """A renewal is being sent."""
        return replace(self, renew_at=now + RENEW)

    def answered(self, sent: float, renewed: bool) -> OwnLease:
        """A renewal that was sent then was answered; answers may come in any order."""
        if not renewed:
            return replace(self, fenced=True)
        since = sent if sent > self.good_until else self.since
        return replace(self, good_until=max(self.good_until, sent + STOP), since=since)

    def refused(self) -> OwnLease:
        """Something that was written was refused: only fencing does that."""
        return replace(self, fenced=True)

    def standing(self, now: float) -> Standing:
        """What the server is at this time."""
        if self.fenced:
            return Standing.FENCED
        return Standing.MEMBER if now < self.good_until else Standing.STOPPED

    def may_begin(self, now: float) -> bool:
        """Whether it may ask an upstream, accept a request, or show what is not committed."""
        return self.standing(now) is Standing.MEMBER

    def may_take_over(self, now: float) -> bool:
        """Whether it may take over from others.

        Not before it was heard for as long as a lease: when the database comes back to all servers
        at once, the first one must not fence the others, which are about to renew, too.
        """
        return self.may_begin(now) and now - self.since >= LEASE


@dataclass(frozen=True)
class Batch(Generic[_Record]):
    """What one write adds to a server's journal.

    Attributes:
        number: its place in the journal; the same each time that it is sent.
    """

    number: int
    records: tuple[_Record, ...]


@dataclass(frozen=True)
class Outbox(Generic[_Record]):
    """Records on their way into the database, a batch at a time.

    A batch whose answer was lost is sent again, the same under the same number: the database may
    have it, or may still be about to. The next one goes only after its answer.

    Attributes:
        waiting: records that no batch has yet.
        sent: the batch whose answer is awaited.
        number: of the next batch.
    """

    waiting: tuple[_Record, ...] = ()
    sent: Batch[_Record] | None = None
    number: int = 1

    def add(self, *records: _Record) -> Outbox[_Record]:
        """With more records that wait."""
        return replace(self, waiting=self.waiting + records)

    def send(self) -> tuple[Outbox[_Record], Batch[_Record] | None]:
        """The batch to send now, new or again; None: there is nothing to send."""
        if self.sent is not None:
            return self, self.sent
        if not self.waiting:
            return self, None
        batch = Batch(self.number, self.waiting)
        return Outbox((), batch, self.number + 1), batch

    def committed(self, number: int) -> tuple[Outbox[_Record], tuple[_Record, ...]]:
        """The records that may be shown now, since this batch is in the database."""
        if self.sent is None or self.sent.number != number:
            return self, ()  # the answer to an earlier attempt
        return replace(self, sent=None), self.sent.records

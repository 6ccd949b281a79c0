"""The membership of a server: its life in the cluster, its lease, and who else there is.

One thread with one connection renews the lease and looks at the others, each second and whenever
the database tells of a server that came or went. Nothing else uses that connection, since a renewal
must not wait for a write. What the server may do meanwhile it asks the clock, not the database.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import structlog

from llcuda_net.cluster import leases
from llcuda_net.cluster.leases import Member
from llcuda_net.cluster.lives import Lives
from llcuda_net.cluster.standing import LEASE, WEDGED, OwnLease, Standing, suspended_clock
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.migrations import migrate

log = structlog.get_logger(__name__)

#: libpq's settings of the connection that renews: an answer that is later than this is no use.
_HASTE = {"connect_timeout": 2, "tcp_user_timeout": 3000}
#: Seconds between two looks at whether who has a name renews its lease.
_GLANCE = 0.2
#: The longest wait between two looks at whether the thread is to end.
_LONGEST = 1.0


class Membership:
    """One life after the other of a server; see standing.py for what each allows.

    Args:
        url: of the database.
        name: what people call the server.
        address: HOST:PORT at which the others reach it.
        folder: its data directory, where its lives are noted; nobody else has it.
        clock: goes on while the machine is suspended.
        seconds: of a lease, by the database's clock.

    Attributes:
        number: of this life; 0 before the first. It changes with each `join`.
        secret: by which the servers of the cluster know each other; known once it has joined.
        former: lives of this directory that `join` has fenced, and that are this server's to adopt.
        members: the servers whose leases hold, this one among them, as of the last renewal.
        due: servers that are to be taken over, as of then.
        trouble: why the last renewal failed; None: it did not.
        on_news: called, in the thread, whenever one of these has changed, or the standing may have.
    """

    def __init__(
        self,
        url: str,
        name: str,
        address: str,
        folder: Path,
        *,
        clock: Callable[[], float] = suspended_clock,
        seconds: float = LEASE,
    ) -> None:
        self.name = name
        self.address = address
        self.number = 0
        self.secret = b""
        self.former: tuple[int, ...] = ()
        self.members: tuple[Member, ...] = ()
        self.due: tuple[int, ...] = ()
        self.trouble: str | None = None
        self.on_news: Callable[[], None] = _nothing
        self._session = Session(url, write=True, **_HASTE)
        self._lives = Lives(folder)
        self._clock = clock
        self._seconds = seconds
        self._using = threading.Lock()  # around uses of the session
        self._lock = threading.Lock()  # around changes of the next one
        self._own = OwnLease(0.0, 0.0)
        self._heard: float | None = None  # when the server was last known to do anything
        self._listening: Connection | None = None
        self._stopping = False
        self._waker: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<Membership {self.name} {self.number} {self.standing()}>"

    # -- what the server may do ---------------------------------------------------------------

    def standing(self) -> Standing:
        """What this server is, by what it knows; asks the clock."""
        return self._own.standing(self._clock())

    def may_begin(self) -> bool:
        """Whether it may ask upstreams, accept requests, and show what is not committed."""
        return self._own.may_begin(self._clock())

    def may_take_over(self) -> bool:
        """Whether it was a member for long enough to take over from others."""
        return self._own.may_take_over(self._clock())

    def refused(self, number: int) -> None:
        """A write of that life was refused, which only a fence does; one of an earlier life is
        known to be fenced.
        """
        with self._lock:
            if number != self.number:
                return
            self._own = self._own.refused()
        self.on_news()

    def alive(self) -> None:
        """The server does something; from the first call on, it renews only while it is called."""
        before, self._heard = self._heard, self._clock()
        if before is not None and self._heard - before > WEDGED:
            self.wake()

    def report(self) -> dict[str, Any]:
        """Who it is, and who else there is, as the status document has it."""
        return {
            "name": self.name,
            "number": self.number,
            "address": self.address,
            "members": [
                {
                    "name": one.name,
                    "number": one.number,
                    "address": one.address,
                    "started": round(one.started, 3),
                    "lease": round(one.seconds, 3),
                }
                for one in self.members
            ],
        }

    # -- its lives ----------------------------------------------------------------------------

    def check_name(self) -> None:
        """Return if no other server that lives has this one's name. Blocks: for a thread.

        One that was killed is waited for, until its lease is over; one that renews it lives. A
        former life of this directory is over.

        Raises:
            StorageError: one has it, or the database cannot be used.
        """
        what = "the servers' names cannot be read"
        with self._using:
            migrate(self._session)
            former = self._lives.known(self._session.ask(what, leases.identity))
            before: dict[int, float] = {}
            while True:
                members = self._session.ask(what, leases.members)
                others = {one.number: one for one in members if one.number not in former}
                left = {
                    number: one.seconds
                    for number, one in others.items()
                    if one.name == self.name and one.seconds > 0
                }
                for number, seconds in left.items():
                    if seconds > before.get(number, seconds):
                        raise StorageError(
                            f"a server named {self.name} runs already, at "
                            f"{others[number].address}: give this one another --name"
                        )
                if not left:
                    return
                before = left
                time.sleep(_GLANCE)

    def join(self) -> int:
        """Begin a life: its number. Blocks: for a thread.

        All former lives of the directory are fenced: it is this server's alone, so they are over.

        Raises:
            StorageError: the database cannot be used, or the life not be noted.
        """
        with self._using:
            migrate(self._session)
            store = self._session.ask("the store's name cannot be read", leases.identity)
            self.secret = self._session.ask("the cluster's secret cannot be read", leases.secret)
            sent = self._clock()

            def begin(db: Connection) -> int:
                return leases.join(db, self.name, self.address, self._seconds)

            number = self._session.change("the server cannot join the cluster", begin)
            # Before the fences: a start that is cut off must not forget whom it has fenced.
            former = self._lives.begin(store, number)

            def fence(db: Connection) -> tuple[int, ...]:
                # The last one first: it may adopt from those before it.
                return tuple(one for one in former[::-1] if leases.fence_former(db, number, one))

            fenced = self._session.change("the former life cannot be ended", fence)[::-1]
        with self._lock:
            self.number, self.former, self._own = number, fenced, OwnLease.taken(sent)
            self.members = self.due = ()
        log.info("cluster_joined", name=self.name, number=number, former=list(fenced))
        self.wake()
        return number

    def settled(self) -> None:
        """Nothing is left of former lives."""
        self._lives.settled(self.number)
        self.former = ()

    def leave(self) -> None:
        """End this life, so that the others need not wait for its lease. Blocks: for a thread.

        Raises:
            StorageError: the database does not answer; the lease ends by itself.
        """
        number = self.number
        with self._lock:
            self._own = self._own.refused()
        with self._using:
            self._session.change("the server cannot leave", lambda db: leases.leave(db, number))
        log.info("cluster_left", number=number)

    # -- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Renew and look until `stop`. Blocks: for a thread of its own."""
        self._waker = os.pipe()
        try:
            while not self._stopping:
                self._renew()
                self._wait()
        finally:
            for end in self._waker:
                os.close(end)
            self._waker = None

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Have it look now; from any thread."""
        with contextlib.suppress(OSError, TypeError):
            os.write(self._waker[1], b".")  # type: ignore[index]

    def close(self) -> None:
        """Close the connection; after `run` has returned."""
        self._session.close()

    def _renew(self) -> None:
        with self._using:
            self._ask()
        self.on_news()

    def _ask(self) -> None:
        sent = self._clock()
        with self._lock:
            number = self.number
            if not number or self._own.fenced:  # until the next life
                return
            if self._heard is not None and sent - self._heard > WEDGED:
                self._own = self._own.asked(sent)
                log.error("server_hangs", number=number, seconds=round(sent - self._heard))
                return
            self._own = self._own.asked(sent)

        def look(db: Connection) -> tuple[bool, tuple[Member, ...], tuple[int, ...]]:
            self._listen(db)
            renewed = leases.renew(db, number, self._seconds)
            return renewed, tuple(leases.members(db)), tuple(leases.expired(db, number))

        try:
            renewed, members, due = self._session.ask("the lease cannot be renewed", look)
        except StorageError as error:
            if self.trouble is None:
                log.warning("lease_not_renewed", number=number, reason=error.message)
            self.trouble = error.message
        else:
            if self.trouble is not None:
                log.info("lease_renewed", number=number)
            self.trouble = None
            with self._lock:
                if number == self.number:
                    self._own = self._own.answered(sent, renewed)
                    self.members, self.due = members, due

    def _listen(self, db: Connection) -> None:
        if self._listening is not db:
            db.execute(f"LISTEN {leases.CHANNEL}")
            self._listening = db

    def _wait(self) -> None:
        """Return when the next renewal is due, or there is news."""
        assert self._waker is not None
        own = self._own
        until = max(own.renew_at - self._clock(), 0.0)
        seconds = _LONGEST if own.fenced else min(until, _LONGEST)
        db = self._listening
        sources: list[int] = [self._waker[0]]
        if db is not None and not db.closed:
            sources.append(db.fileno())
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._waker[0] in ready:
            os.read(self._waker[0], 4096)
        if db is not None and len(ready) > (self._waker[0] in ready):
            # What has come may be the answer that a `join` waits for: not beside that.
            with self._using, contextlib.suppress(psycopg.Error):  # what comes next finds it broken
                db.pgconn.consume_input()
                while db.pgconn.notifies() is not None:
                    pass


def _nothing() -> None:
    pass

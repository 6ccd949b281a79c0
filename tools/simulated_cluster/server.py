"""A server of the simulation: the product's membership and mirror, and what it does with them.

What the product does with trio (life.py, takeover.py, the runner) is here in short: it looks at its
standing, generates tokens, has them committed before they are shown, stores results, takes over.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llcuda_net.cluster import committer, leases, recovery
from llcuda_net.cluster.membership import Membership
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.cluster.owners import handing
from llcuda_net.cluster.standing import Standing
from llcuda_net.cluster.trimming import Trimming
from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.segments import restated
from llcuda_net.storage.records import Appended, Level, Opened, encode
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted
from tools.simulated_cluster.database import Database
from tools.simulated_cluster.network import Network, Session
from tools.simulated_cluster.scheduler import Flag, Machine, Queue, Scheduler

#: Seconds between two looks at the clock, as in server/cluster/life.py; and between two tokens.
_LOOK, _TOKEN = 0.25, 0.05
#: How often at such a look a generation is handed over to another server.
_HANDS = 0.1
#: Bytes of journal that are kept, and that are written again at a time.
_SMALL = 3000, 800
#: Seconds from one attempt at the database to the next.
_RETRY = 0.5
#: Where a life's own database would be; nothing connects to it.
_URL = "postgresql:///simulated"


@dataclass(eq=False)
class Running:
    """A generation that a server has.

    Attributes:
        pieces: all that were generated; `shown` of them are committed, or at the level `disk`
            were shown at once.
        accepted: its acceptance is committed.
        slot, accepted_at, taken: as of an Entry.
    """

    id: str
    owner: str
    key: str | None
    wanted: int
    slot: int
    level: Level
    epoch: int = 1
    pieces: list[str] = field(default_factory=list)
    shown: int = 0
    accepted: bool = False
    accepted_at: int = 0
    taken: str | None = None
    ending: bool = False


class _Lives:
    """As cluster.lives.Lives, on the disk of a machine."""

    def __init__(self, disk: list[int]) -> None:
        self._disk = disk

    def begin(self, store: str, number: int) -> list[int]:
        former = [one for one in self._disk if one != number]
        self._disk[:] = [*former, number]
        return former

    def settled(self, number: int) -> None:
        self._disk[:] = [number]


class _Membership(Membership):
    """Without a pipe: the thread sleeps, or is woken."""

    def __init__(self, session: Session, lives: _Lives, scheduler: Scheduler, name: str) -> None:
        super().__init__(_URL, name, name, Path(), clock=lambda: scheduler.now)
        self._session: Any = session
        self._lives: Any = lives
        self._using: Any = _Lock(scheduler)
        self._news = Queue(scheduler)

    def run(self) -> None:
        while True:
            self._renew()
            until = max(self._own.renew_at - self._clock(), 0.0)
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=1.0 if self._own.fenced else min(until, 1.0))

    def wake(self) -> None:
        self._news.put(None)

    def _listen(self, db: Any) -> None:
        pass


class _Lock:
    """As threading.Lock, between greenlets that are switched only at known places."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._scheduler.sleep(0.01)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


class Server:
    """One process, on a machine of its own.

    Args:
        disk: the lives that its data directory has had.
        begun: told of each generation that it has adopted, its epoch, and its pieces.
        committed_late: it is broken: what it shows is committed later.

    Attributes:
        running: the generations that it has.
        over: what it has told of those that have ended here.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        rng: random.Random,
        disk: list[int],
        begun: Callable[[str, int, int], object],
        *,
        committed_late: bool = False,
    ) -> None:
        self.machine = Machine(name)
        self.running: dict[str, Running] = {}
        self.over: dict[str, tuple[str, ...]] = {}
        self.accepts = False
        self._leaving = False
        self._begun = begun
        self._rng = rng
        self._network = network
        self._scheduler = network.scheduler
        self._slots = itertools.count(1)
        self._tokens = itertools.count()
        self.membership = _Membership(self._session(), _Lives(disk), self._scheduler, name)
        self.mirror = Mirror(_URL)
        rewire(self.mirror, self._session(), self._scheduler, committed_late=committed_late)
        self.mirror.claim_keys = lambda db, me, accepts: Database.claim_keys(db, me, accepts)  # type: ignore[arg-type]
        self.mirror.on_fenced = self.membership.refused

    def __repr__(self) -> str:
        return f"<Server {self.machine!r} {self.membership!r}>"

    def _session(self) -> Session:
        return Session(self._network, self.machine, self._rng)

    def start(self) -> None:
        """Begin to run."""
        self._scheduler.start(self.machine, self._main)

    # -- its life -----------------------------------------------------------------------------

    def _main(self) -> None:
        scheduler, membership = self._scheduler, self.membership
        scheduler.start(self.machine, self.mirror._serve)
        self._begin()
        scheduler.start(self.machine, membership.run)
        scheduler.start(self.machine, self._take_over)
        while not self._leaving:
            standing = membership.standing()
            if standing is Standing.FENCED:
                self.accepts = False
                self._begin()
            elif standing is Standing.STOPPED:
                self.accepts = False
            else:
                self.accepts = True
                self._generate()
            scheduler.sleep(_TOKEN if self.accepts else _LOOK)

    def _begin(self) -> None:
        """A new life, and what is left of those before."""
        while True:
            self.running.clear()
            self.over.clear()
            try:
                number = self.membership.join()
                former = self.membership.former
                self.mirror.begin(number, former, self.membership.settled)
                # So small that what is live is written again and again.
                self.mirror._life.trimming = Trimming(*_SMALL)
                for found in [self._ordered(partial(self._read, one)) for one in former]:
                    self._adopt(found.number, found.generations)
                for one in former:
                    self._ordered(
                        partial(self.mirror._change, partial(leases.adopted, me=number, other=one))
                    )
                self.membership.settled()
            except StorageError:
                self._scheduler.sleep(_RETRY)
            else:
                return

    def _read(self, server: int) -> Any:
        return self.mirror._ask(partial(recovery.read, server=server))

    def _ordered(self, work: Callable[[], Any]) -> Any:
        """As Mirror._ordered."""
        done: list[tuple[Any, StorageError | None]] = []
        flag = Flag(self._scheduler)

        def order() -> None:
            try:
                done.append((work(), None))
            except StorageError as error:
                done.append((None, error))
            flag.set()

        self.mirror._orders.put(order)
        flag.wait()
        found, error = done[0]
        if error is not None:
            raise StorageError(error.message, error.code)
        return found

    def _take_over(self) -> None:
        session = self._session()
        while True:
            self._scheduler.sleep(_LOOK * (1 + self._rng.random()))
            if self._rng.random() < _HANDS:
                self._hand_over(session)
            for other in self.membership.due:
                if not self.membership.may_take_over():
                    break
                try:
                    self._take(session, self.membership.number, other)
                except StorageError:
                    continue

    def _take(self, session: Session, me: int, other: int) -> None:
        what = "a server cannot be taken over"
        if not session.change(what, partial(leases.fence, me=me, other=other)):
            return
        found = session.change(what, partial(recovery.read, server=other))
        if found.generations and self.mirror.number == me:
            self._adopt(other, found.generations)
        session.change(what, partial(leases.adopted, me=me, other=other))

    def _hand_over(self, session: Session) -> None:
        """Give a generation to another server, as where that has its upstream."""
        me, mirror = self.membership.number, self.mirror
        others = [one.number for one in self.membership.members if one.number != me]
        found = [one for one in self.running.values() if one.accepted and not one.ending]
        if not (others and found and self.accepts):
            return
        one, to = self._rng.choice(found), self._rng.choice(others)
        one.ending = True  # it is set aside
        try:
            self._until(mirror.position)
            change = partial(
                handing.hand_over, me=me, to=to, ids=[one.id], data=joined(self._records(one))
            )
            while True:
                try:
                    gone = session.change("generations cannot be handed over", change)
                except StorageError:
                    if self.running.get(one.id) is not one:
                        return
                    self._scheduler.sleep(_RETRY)
                else:
                    break
        except StorageError:
            return
        if gone and self.running.get(one.id) is one:
            del self.running[one.id]
            mirror.forget(one.slot, one.id, stored=True)
            mirror.send()
        one.ending = False

    def _until(self, position: int) -> None:
        """Wait for a commit, as Replica.until."""
        flag, failed = Flag(self._scheduler), []

        def then(error: StorageError | None) -> None:
            failed.append(error)
            flag.set()

        self._when(position, then)
        flag.wait()
        if failed[0] is not None:
            raise StorageError(failed[0].message, failed[0].code)

    def _records(self, one: Running) -> list[bytes]:
        found = [encode(self._opened(one))]
        ids = [None] * len(one.pieces)
        return [*found, encode(Appended(one.slot, 0, [*one.pieces], [*ids]))]

    def _opened(self, one: Running) -> Opened:
        return Opened(
            slot=one.slot,
            generation=one.id,
            request={"tokens": one.wanted},
            level=one.level,
            key=one.key,
            owner=one.owner,
        )

    def _adopt(self, other: int, generations: Sequence[OpenGeneration]) -> None:
        slots = {one.id: next(self._slots) for one in generations}
        life = self.mirror._life
        for portion in (generations[:3], generations[3:]):
            adopted = [
                Adopted(one.id, [*restated(one, slots[one.id])], slots[one.id]) for one in portion
            ]
            epochs = self._ordered(partial(self.mirror._adopt, life, other, adopted))
            if self.mirror._life is not life:
                return
            for one in portion:
                if one.id in epochs:
                    self._resume(one, slots[one.id], epochs[one.id])

    def _resume(self, one: OpenGeneration, slot: int, epoch: int) -> None:
        opened, pieces = one.opened, one.log.pieces
        self.running[one.id] = Running(
            one.id,
            opened.owner,
            opened.key,
            opened.request["tokens"],
            slot,
            opened.level,
            epoch,
            [*pieces],
            len(pieces),
            True,
        )
        self._begun(one.id, epoch, len(pieces))

    def leave(self, gone: Callable[[], object]) -> None:
        """End as on SIGTERM: others need not wait for the lease."""
        self.accepts = False
        self._leaving = True

        def work() -> None:
            with contextlib.suppress(StorageError):
                self.membership.leave()
            self._scheduler.after(0.0, gone)

        self._scheduler.start(self.machine, work)

    # -- what it does -------------------------------------------------------------------------

    def submit(self, id_: str, owner: str, key: str, tokens: int, level: Level) -> bool:
        """Take a request; whether it does."""
        if not self.accepts or not self.membership.may_begin() or self.mirror.failed:
            return False
        one = Running(id_, owner, key, tokens, next(self._slots), level)
        self.running[id_] = one
        self.mirror.add(one.slot, encode(self._opened(one)), True)
        self.mirror.accept(one, Accept(id_, owner, key), True)
        self.mirror.send()

        def committed(error: StorageError | None) -> None:
            if error is not None or one.taken is not None:
                self.running.pop(id_, None)
            else:
                one.accepted = True

        self._when(self.mirror.position, committed)
        return True

    def _when(self, position: int, then: Callable[[StorageError | None], None]) -> None:
        try:
            if self.mirror.when(position, then):
                then(None)
        except StorageError as error:
            then(error)

    def _generate(self) -> None:
        """One decode step."""
        if not self.membership.may_begin() or self.mirror.failed is not None:
            return
        for one in [*self.running.values()]:
            if not one.accepted or one.ending:
                continue
            if len(one.pieces) < one.wanted:
                self._token(one)
            elif one.shown == one.wanted:
                one.ending = True
                self._scheduler.start(self.machine, partial(self._store, one))
        self.mirror.send()

    def _token(self, one: Running) -> None:
        # No two servers, and no two lives of one, ever make the same token.
        piece = f"{self.membership.number}.{next(self._tokens)}"
        body = encode(Appended(one.slot, len(one.pieces), [piece], [None]))
        one.pieces.append(piece)
        count = len(one.pieces)
        self.mirror.add(one.slot, body, one.level.replicated)
        if not one.level.replicated:
            one.shown = count
            return

        def committed(error: StorageError | None) -> None:
            if error is None:
                one.shown = max(one.shown, count)

        self._when(self.mirror.position, committed)

    def _store(self, one: Running) -> None:
        """Store its result, as the thread that commits results does."""
        session, me = self._session(), self.membership.number

        def put(db: Any) -> None:
            if not leases.release(db, me, [one.id]):
                raise committer.fenced()
            db.put(one.id, tuple(one.pieces))

        while self.running.get(one.id) is one:
            try:
                session.change("results cannot be stored", put)
            except StorageError as error:
                if error.code == StorageError.FENCED:
                    self.membership.refused(me)
                    return
                self._scheduler.sleep(_RETRY)
            else:
                if self.running.get(one.id) is one:
                    del self.running[one.id]
                    self.over[one.id] = tuple(one.pieces)
                    self.mirror.forget(one.slot, one.id, stored=True)
                    self.mirror.send()
                return


def rewire(
    one: Mirror, session: Session, scheduler: Scheduler, *, committed_late: bool = False
) -> None:
    """Have a mirror run under virtual time."""
    parts: Any = one
    parts._session = session
    parts._orders = Queue(scheduler)
    parts._stopping, parts._giving_up = Flag(scheduler), Flag(scheduler)
    parts._soon = lambda call: scheduler.after(0.0, call)
    if committed_late:
        commit, committed = parts._commit, parts._committed

        def early(life: Any) -> None:
            batch = life.batch()
            if batch is not None:
                one.committed = max(one.committed, life.taken)
                parts._soon(one._collect)
                scheduler.sleep(0.3)
            commit(life)

        parts._commit = early
        del committed


def clock_of(scheduler: Scheduler) -> Any:
    """What stands for the module `time` in the mirror."""
    return SimpleNamespace(monotonic=lambda: scheduler.now)

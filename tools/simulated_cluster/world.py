"""One run: servers, readers, faults, and what must hold."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from llcuda_net.cluster import committer, leases, membership, recovery
from llcuda_net.cluster.owners import handing
from llcuda_net.storage.records import Level
from tools.simulated_cluster.database import STATEMENTS, Database
from tools.simulated_cluster.network import Network
from tools.simulated_cluster.scheduler import Machine, Scheduler
from tools.simulated_cluster.server import Server, clock_of

#: Seconds of faults, and then until everything must be over.
FAULTS, REST = 20.0, 60.0
#: Seconds between two looks of a reader.
_LOOK = 0.1
#: What goes wrong, with shares.
KINDS = {
    "stop": 4,
    "kill": 3,
    "restart": 2,
    "leave": 1,
    "cut": 4,
    "lossy": 2,
    "slow": 1,
    "database": 1,
}


@dataclass(frozen=True)
class Plan:
    """What a run has.

    Attributes:
        broken: "", or one of BROKEN.
        servers, clients: how many.
        tokens: most tokens of an answer.
        peace: mean seconds from one fault to the next.
    """

    seed: int
    broken: str = ""
    servers: int = 3
    clients: int = 8
    tokens: int = 200
    peace: float = 1.2


#: How a run may be broken on purpose: it must be noticed, in one of few seeds.
BROKEN = ("no-fencing", "acknowledge-before-commit", "reads-before-fence")


@dataclass
class Run:
    """What came of one."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Reader:
    """A client with one request, which it asks for until it is accepted, and then reads.

    Attributes:
        id: of the generation that has its key; "": not known yet.
        seen: the tokens that it was shown, the last ones in this epoch.
    """

    number: int
    key: str
    tokens: int
    level: Level
    id: str = ""
    epoch: int = 1
    seen: tuple[str, ...] = ()
    at: Server | None = None
    attempts: int = 0
    done: bool = False


class World:
    """All of one run."""

    def __init__(self, plan: Plan) -> None:
        self.run = Run(plan)
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._scheduler = Scheduler()
        self._database = Database(lambda: self._scheduler.now, fencing=plan.broken != "no-fencing")
        self._network = Network(self._scheduler, self._database, self._rng)
        self._outside = Machine("outside")
        self._servers: list[Server] = []
        self._disks: list[list[int]] = []
        self._readers: list[Reader] = []
        #: Pieces of a generation when an epoch of it began.
        self._bases: dict[tuple[str, int], int] = {}
        self._calm = False

    def go(self) -> Run:
        """Run it to its end."""
        with _patched(self._scheduler, self._say, self._plan.broken):
            for number in range(self._plan.servers):
                self._disks.append([])
                self._servers.append(self._server(number))
            for number in range(self._plan.clients):
                # Some have a key in common: they must get one generation.
                key = f"key {number // 2 if number < 4 else number}"
                tokens = self._rng.randint(1, self._plan.tokens)
                level = self._rng.choice([Level.CLUSTER, Level.CLUSTER, Level.DISK])
                if number in (1, 3):
                    tokens, level = self._readers[-1].tokens, self._readers[-1].level
                self._readers.append(Reader(number, key, tokens, level))
                self._scheduler.start(self._outside, partial(self._read, self._readers[-1]))
            self._scheduler.after(3.0, self._fault)
            self._scheduler.run(FAULTS)
            self._heal()
            until = FAULTS
            while until < FAULTS + REST and not self._is_over():
                until += 1.0
                self._scheduler.run(until)
            self._check()
            for server in self._servers:
                self._scheduler.kill(server.machine)
            self._scheduler.kill(self._outside)
        self.run.counts["events"] = self._scheduler.steps
        self.run.counts["requests"] = self._network.requests
        self.run.counts["unanswered"] = self._network.lost
        return self.run

    def _server(self, number: int) -> Server:
        late = self._plan.broken == "acknowledge-before-commit"
        name = f"s{number}"
        disk = self._disks[number]
        server = Server(name, self._network, self._rng, disk, self._begun, committed_late=late)
        server.start()
        return server

    def _begun(self, id_: str, epoch: int, pieces: int) -> None:
        self._bases[id_, epoch] = pieces

    def _say(self, what: str) -> None:
        self.run.told.append(f"{self._scheduler.now:7.3f} {what}")

    def _violation(self, what: str) -> None:
        self.run.violations.append(what)
        self._say(f"WRONG: {what}")

    # -- faults -------------------------------------------------------------------------------

    def _fault(self) -> None:
        if self._calm:
            return
        rng = self._rng
        self._scheduler.after(rng.expovariate(1 / self._plan.peace), self._fault)
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        number = rng.randrange(len(self._servers))
        machine = self._servers[number].machine
        if not machine.alive:
            return
        seconds = rng.uniform(0.2, 9.0)
        self.run.counts[kind] += 1
        self._say(f"{kind} {machine.name} {seconds:.2f}")
        trouble = self._network.trouble(machine)
        if kind == "stop":
            self._scheduler.stop(machine)
            self._scheduler.after(seconds, lambda: self._scheduler.go_on(machine))
        elif kind in ("kill", "restart"):
            if kind == "kill":
                self._disks[number] = []
            self._scheduler.kill(machine)
            self._scheduler.after(seconds / 3, lambda: self._replace(number))
        elif kind == "leave":
            self._leave(number, seconds / 3)
        elif kind == "cut":
            trouble.cut = True
            self._scheduler.after(seconds, lambda: setattr(trouble, "cut", False))
        elif kind == "lossy":
            trouble.loses = rng.uniform(0.05, 0.6)
            self._scheduler.after(seconds, lambda: setattr(trouble, "loses", 0.0))
        elif kind == "slow":
            trouble.slow = rng.uniform(0.05, 1.5)
            self._scheduler.after(seconds, lambda: setattr(trouble, "slow", 0.0))
        else:
            self._network.down = True
            self._scheduler.after(seconds / 2, self._database_is_back)

    def _leave(self, number: int, seconds: float) -> None:
        server = self._servers[number]
        self._disks[number] = []

        def gone() -> None:
            if server.machine.alive:
                self._scheduler.kill(server.machine)
                self._scheduler.after(seconds, lambda: self._replace(number))

        server.leave(gone)

    def _replace(self, number: int) -> None:
        self._say(f"s{number} comes")
        self._servers[number] = self._server(number)

    def _database_is_back(self) -> None:
        if self._network.down:
            self._network.down = False
            self._database.started = self._scheduler.now

    def _heal(self) -> None:
        self._calm = True
        self._say("calm")
        self._database_is_back()
        for server in self._servers:
            trouble = self._network.trouble(server.machine)
            trouble.cut, trouble.slow, trouble.loses = False, 0.0, 0.0
            self._scheduler.go_on(server.machine)

    # -- readers ------------------------------------------------------------------------------

    def _read(self, one: Reader) -> None:
        rng, database = self._rng, self._database
        self._scheduler.sleep(rng.uniform(0.0, FAULTS * 0.8))
        while not one.id:
            self._ask(one)
            self._scheduler.sleep(rng.uniform(0.05, 2.0))
            one.id = database.keys.get(("ann", one.key), "")
        while not one.done:
            result = database.results.get(one.id)
            if result is not None and rng.random() < 0.2:
                self._look(one, result, "the store", self._epoch_in_store(one))
                one.done = True
                return
            there = [s for s in self._servers if s.machine.alive and not s.machine.stopped]
            if one.at not in there or rng.random() < 0.03:
                one.at = rng.choice(there) if there else None
            found = None if one.at is None else one.at.running.get(one.id)
            over = None if one.at is None else one.at.over.get(one.id)
            if over is not None:
                if result != over:
                    self._violation(f"{one.id}: {one.at} says that it is over, not so the store")
                self._look(one, over, "its end", self._epoch_in_store(one))
                one.done = True
            elif found is not None and found.accepted:
                assert one.at is not None
                shown = tuple(found.pieces[: found.shown])
                self._look(one, shown, one.at.machine.name, found.epoch)
            else:
                one.at = None
            self._scheduler.sleep(_LOOK * rng.random())

    def _ask(self, one: Reader) -> None:
        there = [s for s in self._servers if s.machine.alive and not s.machine.stopped]
        if there:
            one.attempts += 1
            id_ = f"{one.number}.{one.attempts}"
            if self._rng.choice(there).submit(id_, "ann", one.key, one.tokens, one.level):
                self.run.counts["submitted"] += 1

    def _epoch_in_store(self, one: Reader) -> int:
        """The last epoch of a generation that is over."""
        return max((epoch for id_, epoch in self._bases if id_ == one.id), default=1)

    def _is_ahead(self, one: Reader, epoch: int) -> bool:
        """Whether a reader had more than there was when an epoch began after its own."""
        later = [(one.id, number) for number in range(one.epoch + 1, epoch + 1)]
        # Of an epoch in which nobody had it to the end of its adoption, nobody saw anything.
        return any(len(one.seen) > self._bases[key] for key in later if key in self._bases)

    def _look(self, one: Reader, pieces: tuple[str, ...], where: str, epoch: int) -> None:
        """A reader sees what somebody has: it must go on with what it has, or be behind it."""
        if self._is_ahead(one, epoch):
            if one.level is Level.CLUSTER:
                self._violation(f"{one.id}: {where} has lost what a reader was shown")
            self.run.counts["ahead"] += 1
            one.seen, one.done = (), True
            return
        common = min(len(pieces), len(one.seen))
        if pieces[:common] != one.seen[:common]:
            at = next(n for n in range(common) if pieces[n] != one.seen[n])
            self._violation(
                f"{one.id}: piece {at} is {pieces[at]} at {where}, a reader had {one.seen[at]}"
            )
            one.done = True
        one.epoch = max(one.epoch, epoch)
        if len(pieces) > len(one.seen):
            self.run.counts["tokens"] += len(pieces) - len(one.seen)
            one.seen = pieces

    # -- what must hold -----------------------------------------------------------------------

    def _is_over(self) -> bool:
        return all(one.done for one in self._readers) and not self._database.generations

    def _check(self) -> None:
        database = self._database
        for one in self._readers:
            result = database.results.get(one.id)
            if result is None:
                self._violation(f"{one.number} {one.id!r}: it is not over, {len(one.seen)} seen")
            elif result[: len(one.seen)] != one.seen:
                self._violation(f"{one.id}: a reader had {len(one.seen)}, the store differs")
            elif len(result) != one.tokens:
                self._violation(f"{one.id}: {len(result)} of {one.tokens} pieces are stored")
            elif len({*result}) != len(result):
                self._violation(f"{one.id}: a piece is doubled")
            else:
                self.run.counts["owners"] += len({piece.split(".")[0] for piece in result})
                self.run.counts["results"] += 1
        known = {one.id for one in self._readers}
        for id_ in database.results.keys() - known:
            self._violation(f"{id_}: stored, and nobody asked for it")
        for id_ in database.generations:
            self._violation(f"{id_}: it is still open")


@contextlib.contextmanager
def _patched(scheduler: Scheduler, say: Any, broken: str) -> Iterator[None]:
    """Around a run: the database is the model, and the time is virtual."""

    def statement(name: str) -> Any:
        method = getattr(Database, name)
        return lambda db, *values, **named: method(db, *values, **named)

    def tell(event: str, **more: Any) -> None:
        say(f"{event} {more}")

    log = SimpleNamespace(debug=tell, info=tell, warning=tell, error=tell)
    with contextlib.ExitStack() as stack:
        for name in STATEMENTS:
            stack.enter_context(mock.patch.object(leases, name, statement(name)))
        hand_over = statement("hand_over")
        stack.enter_context(mock.patch.object(handing, "hand_over", hand_over))
        if broken == "reads-before-fence":
            stack.enter_context(mock.patch.object(Database, "_fence", _unfenced))
        stack.enter_context(mock.patch.object(committer, "time", clock_of(scheduler)))
        stack.enter_context(mock.patch.object(membership, "migrate"))
        for module in (committer, membership, recovery):
            stack.enter_context(mock.patch.object(module, "log", log))
        yield


def _unfenced(self: Database, me: int, other: int) -> bool:
    """Adopt from a server that is not fenced yet: its fence comes with the last step."""
    its = self.servers[other]
    if its.adopted or self.servers[me].fenced:
        return False
    its.adopter = me
    return True

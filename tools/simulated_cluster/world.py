"""One run: servers, clients, faults, and what must hold."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

from llcuda_net.cluster import committer, membership, mirror, recovery, takeover
from llcuda_net.cluster.standing import LEASE, STOP, OwnLease, Standing
from llcuda_net.server.cluster import handing, life, owners, placing, routing
from tools.simulated_cluster.clock.scheduler import Machine, Scheduler
from tools.simulated_cluster.clock.waiting import Waiting
from tools.simulated_cluster.database.results import Stored
from tools.simulated_cluster.database.tables import STATEMENTS, Database
from tools.simulated_cluster.journal import Disk
from tools.simulated_cluster.members import clock_of
from tools.simulated_cluster.network import Autocommit, Network
from tools.simulated_cluster.outside import Outside
from tools.simulated_cluster.readers import Reader, Readers
from tools.simulated_cluster.server import Server, silent

#: Seconds of faults, and then until everything must be over.
FAULTS, REST = 20.0, 90.0
#: How fast the clocks of machines go, at least and at most: well within LEASE / STOP.
_RATES = 0.9, 1.1
assert min(_RATES) > STOP / LEASE
#: What goes wrong, with shares.
KINDS = {
    "stop": 4,
    "kill": 3,
    "restart": 3,
    "leave": 1,
    "cut": 4,
    "lossy": 2,
    "slow": 1,
    "database": 1,
    "upstream": 4,
}
#: Rules that do not hold: each must be noticed, in one of few seeds.
BROKEN = {
    "no-fencing": "who is fenced can write",
    "acknowledge-before-commit": "tokens are shown, and requests accepted, before the commit",
    "never-fences": "who takes over does not fence",
    "same-epoch": "an adopter goes on in the epoch of the one before",
    "never-stops": "a server whose lease is over goes on until it is fenced",
    "claims-early": "an upstream is claimed before its server is fenced",
    "keys-of-the-living": "a key is taken from a generation that runs",
    "keys-unchecked": "who wants a key does not look who has it",
}


@dataclass(frozen=True)
class Plan:
    """What a run has.

    Attributes:
        broken: "", or one of BROKEN.
        servers, clients, upstreams: how many.
        tokens: most tokens of an answer.
        peace: mean seconds from one fault to the next.
    """

    seed: int
    broken: str = ""
    servers: int = 3
    clients: int = 8
    upstreams: int = 4
    tokens: int = 200
    peace: float = 1.2


@dataclass
class Run:
    """What came of one."""

    plan: Plan
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)


class World(Outside):
    """All of one run."""

    def __init__(self, plan: Plan) -> None:
        self.run = Run(plan)
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._scheduler = Scheduler()
        self._waiting = Waiting(self._scheduler)
        self._database = Database(lambda: self._scheduler.now, plan.broken)
        urls = tuple(f"http://u{number}:80" for number in range(plan.upstreams))
        self._network = Network(self._scheduler, self._database, self._rng, urls)
        self._outside = Machine("outside")
        self._servers: list[Server] = []
        self._disks: list[Disk] = []
        self._rates: list[float] = []
        self._readers = Readers(
            self._scheduler,
            self._rng,
            lambda: self._servers,
            self._database_result,
            self._violation,
        )
        self._epochs = 0
        #: What clients may have been told is accepted, with the key of each.
        self._ids = 0
        self._keys: dict[str, str] = {}
        self._accepted: set[str] = set()
        self._moved: dict[str, set[int]] = {}
        #: By upstream, who asked it last: the epoch of the claim, and the life.
        self._asked: dict[str, tuple[int, int]] = {}
        self._calm = False

    def _database_result(self, id_: str) -> Any:
        return self._database.results.get(id_)

    def go(self) -> Run:
        """Run it to its end."""
        with _patched(self._scheduler, self._waiting, self._say, self.new_id, self._plan.broken):
            for number in range(self._plan.servers):
                self._disks.append(Disk())
                self._rates.append(self._rng.uniform(*_RATES))
                self._servers.append(self._server(number))
            self._readers.plan(self._plan.clients, self._plan.tokens, FAULTS * 0.8)
            for one in self._readers.all:
                self._scheduler.start(self._outside, partial(self._readers.read, one))
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
        self.run.counts.update(self._readers.counts)
        self.run.counts["events"] = self._scheduler.steps
        self.run.counts["requests"] = self._network.requests
        self.run.counts["unanswered"] = self._network.lost
        return self.run

    def _server(self, number: int) -> Server:
        server = Server(
            Machine(f"s{number}"),
            self._network,
            self._waiting,
            self._rng,
            self._disks[number],
            self,
            rate=self._rates[number],
            broken=self._plan.broken,
        )
        server.start()
        return server

    # -- what servers tell --------------------------------------------------------------------

    def next_epoch(self, last: int) -> int:
        """See Outside: clocks of machines are wrong by seconds, so that it need not grow."""
        self._epochs += 1
        wrong = self._rng.randint(0, 5)
        return max(int(self._scheduler.now + wrong) << 20 | self._epochs, last + 1)

    def new_id(self) -> str:
        """See Outside."""
        self._ids += 1
        return f"g{self._ids}"

    def servers(self) -> list[Server]:
        """See Outside."""
        return [one for one in self._servers if one.machine.alive]

    def begun(self, id_: str, key: str) -> None:
        """See Outside."""
        self._keys[id_] = key

    def moved(self, id_: str, pieces: int) -> None:
        """See Outside."""
        self._moved.setdefault(id_, set()).add(pieces)

    def accepted(self, id_: str) -> None:
        """See Outside."""
        self._accepted.add(id_)

    def asked(self, url: str, server: int, epoch: int) -> None:
        """See Outside: an upstream has one owner at a time."""
        last = self._asked.get(url, (0, 0))
        if epoch < last[0] or (epoch == last[0] and server != last[1]):
            self._violation(
                f"{url}: {server} asks it by claim {epoch}, after {last[1]} did by claim {last[0]}"
            )
        self._asked[url] = epoch, server

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
                self._disks[number] = Disk()
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
        elif kind == "upstream":
            cut = self._network.upstreams(machine).cut
            one = rng.choice(self._network.urls)
            cut.add(one)
            self._scheduler.after(seconds, lambda: cut.discard(one))
        else:
            self._network.down = True
            self._scheduler.after(seconds / 2, self._database_is_back)

    def _leave(self, number: int, seconds: float) -> None:
        server = self._servers[number]
        self._disks[number] = Disk()

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
            self._network.upstreams(server.machine).cut.clear()
            self._scheduler.go_on(server.machine)

    # -- what must hold -----------------------------------------------------------------------

    def _is_over(self) -> bool:
        return all(one.done for one in self._readers.all) and not self._database.generations

    def _check(self) -> None:
        database = self._database
        for one in self._readers.all:
            self._check_reader(one)
        # What a client was told is accepted comes to its end, and of a key one generation does.
        for id_ in sorted(self._accepted - database.results.keys()):
            self._violation(f"{id_}: it was accepted, and is lost")
        of_keys: dict[str, str] = {}
        for id_ in database.results:
            key = self._keys[id_]
            if key in of_keys:
                self._violation(f"{key!r}: {of_keys[key]} and {id_} are its generations")
            of_keys[key] = id_
        for id_ in database.generations:
            self._violation(f"{id_}: it is still open")
        self.run.counts["owned"] = len(database.upstreams)

    def _check_reader(self, one: Reader) -> None:
        result = self._database.results.get(one.id)
        if result is None:
            self._violation(f"{one.number} {one.id!r}: it is not over, {len(one.seen)} seen")
        elif result.pieces[: len(one.seen)] != one.seen:
            self._violation(f"{one.id}: a reader had {len(one.seen)}, the store differs")
        elif len(result.pieces) != one.tokens:
            self._violation(f"{one.id}: {len(result.pieces)} of {one.tokens} pieces are stored")
        elif len({*result.pieces}) != len(result.pieces):
            self._violation(f"{one.id}: a piece is doubled")
        elif not one_owner_after_the_other(result, self._moved.get(one.id, set())):
            self._violation(f"{one.id}: owners are mixed: {result.splices}")
        else:
            self.run.counts["owners"] += len({piece.split(".")[0] for piece in result.pieces})
            self.run.counts["results"] += 1


def one_owner_after_the_other(result: Stored, moved: set[int]) -> bool:
    """Whether epochs grow, and each has the pieces of one life only.

    Args:
        moved: so many pieces it had when a live server handed it over: then its epoch goes on.
    """
    epochs = [epoch for _, epoch in result.splices]
    positions = [position for position, _ in result.splices]
    if epochs != sorted({*epochs}) or positions != sorted(positions):
        return False
    lives = [piece.split(".")[0] for piece in result.pieces]
    changes = {n for n in range(1, len(lives)) if lives[n] != lives[n - 1]}
    return changes <= {*positions} | moved


@contextlib.contextmanager
def _patched(
    scheduler: Scheduler, waiting: Waiting, say: Any, new_id: Callable[[], str], broken: str
) -> Iterator[None]:
    """Around a run: the database is the model, and the time is virtual."""

    def statement(name: str) -> Any:
        method = getattr(Database, name)

        def execute(db: Any, *values: Any, **named: Any) -> Any:
            if isinstance(db, Autocommit):
                return db.do(lambda database: method(database, *values, **named))
            return method(db, *values, **named)

        return execute

    def tell(event: str, **more: Any) -> None:
        say(f"{event} {more}")

    with contextlib.ExitStack() as stack:

        def patch(where: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(where, name, value))

        for name, function in STATEMENTS.items():
            patch(sys.modules[function.__module__], function.__name__, statement(name))
        # This one takes its statements by name.
        for name in ("hand_over", "epoch_of"):
            patch(handing, name, statement(name))
        patch(committer, "time", clock_of(scheduler))
        patch(membership, "migrate", lambda session: None)
        for module in (mirror, takeover, life, owners, routing, handing, placing):
            patch(module, "trio", waiting)
        patch(placing, "uuid7", new_id)
        for module in (committer, membership, recovery, takeover, life, owners, handing):
            patch(module, "log", silent(tell))
        if broken == "never-stops":
            patch(OwnLease, "standing", _never_stopped)
        yield


def _never_stopped(self: OwnLease, now: float) -> Standing:
    return Standing.FENCED if self.fenced else Standing.MEMBER

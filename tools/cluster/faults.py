"""What goes wrong: at random moments, of a seed, each fault by itself, so that several overlap."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from tools.cluster.database import Database
from tools.cluster.links import Network, State
from tools.cluster.member import Member

#: What goes wrong, with shares of a hundred.
KINDS = {
    "kill": 14,  # kill -9 for good; a new server with an empty disk comes
    "restart": 6,  # kill -9, and the same disk again
    "leave": 4,  # SIGTERM, and a new server with an empty disk
    "stop": 14,  # SIGSTOP, for longer than the lease or not
    "part-servers": 12,  # two servers cannot reach each other
    "part-database": 12,  # a server cannot reach the database
    "part-upstream": 8,  # a server cannot reach some upstreams
    "part-clients": 8,  # clients cannot reach a server
    "isolate": 6,  # a server reaches nobody
    "database-restart": 4,
    "database-kill": 4,
    "database-slow": 5,
    "database-full": 3,
}
#: Kinds that need several servers.
OF_SEVERAL = frozenset({"kill", "part-servers", "leave", "isolate"})
CLIENTS, DATABASE = "clients", "database"


@dataclass(frozen=True)
class Timing:
    """How often something goes wrong, and for how long; all in seconds.

    Attributes:
        peace: mean time from the begin of one fault to that of the next.
        lasts: the shortest and the longest of a fault: both sides of the lease of 5 s.
        away: the longest that the database is away.
        most: servers that are in trouble at once, at most.
    """

    peace: float = 3.0
    lasts: tuple[float, float] = (0.5, 12.0)
    away: float = 6.0
    most: int = 2


class Faults:
    """Harms and heals.

    Attributes:
        counts: faults by kind.
        told: what happened, and when, in words.
    """

    def __init__(
        self,
        members: Sequence[Member],
        upstreams: Sequence[str],
        database: Database,
        network: Network,
        rng: random.Random,
        timing: Timing,
        kinds: Sequence[str],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self._members = members
        self._upstreams = upstreams
        self._database = database
        self._network = network
        self._rng = rng
        self._timing = timing
        self._shares = {kind: KINDS[kind] for kind in kinds}
        if not database.disk:
            self._shares.pop("database-full", None)
        self._busy: set[str] = set()
        self._began = trio.current_time()

    async def run(self, seconds: float) -> None:
        """Harm for so long, then heal everything.

        Raises:
            ServerError: a server ended by itself, or does not start.
            StartError: the database does not start.
        """
        self._began = trio.current_time()
        self.told.append(f"   0.00 begins at {datetime.now(UTC):%H:%M:%S.%f}")
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(seconds):
                while True:
                    await trio.sleep(self._rng.expovariate(1 / self._timing.peace))
                    self._draw(nursery)
        self._network.heal()

    def _draw(self, nursery: trio.Nursery) -> None:
        """Begin one fault, if there is somebody whom it may meet."""
        rng = self._rng
        kind = rng.choices(list(self._shares), list(self._shares.values()))[0]
        seconds = rng.uniform(*self._timing.lasts)
        if kind.startswith(DATABASE):
            if DATABASE not in self._busy:
                nursery.start_soon(self._of_database, kind, rng.uniform(0.1, self._timing.away))
            return
        well = [one for one in self._members if one.name not in self._busy]
        if len(self._busy - {DATABASE}) >= self._timing.most or not well:
            return
        member = rng.choice(well)
        others = [one for one in well if one is not member]
        if kind == "part-servers":
            if others:
                nursery.start_soon(self._part, member, [rng.choice(others).name], kind, seconds)
            return
        if kind == "part-upstream":
            some = rng.sample(self._upstreams, rng.randint(1, max(1, len(self._upstreams) // 2)))
            nursery.start_soon(self._part, member, some, kind, seconds)
        elif kind == "part-clients":
            nursery.start_soon(self._part, member, [CLIENTS], kind, seconds)
        elif kind == "part-database":
            nursery.start_soon(self._part, member, [DATABASE], kind, seconds)
        elif kind == "isolate":
            names = [one.name for one in self._members if one is not member]
            all_ = [CLIENTS, DATABASE, *names, *self._upstreams]
            nursery.start_soon(self._part, member, all_, kind, seconds)
        else:
            nursery.start_soon(self._of_server, member, kind, seconds)

    # -- the kinds ----------------------------------------------------------------------------

    async def _of_server(self, member: Member, kind: str, seconds: float) -> None:
        async with self._meeting(kind, member.name, f"{seconds:.1f} s"):
            if kind == "stop":
                member.pause(True)
                member.trouble = kind
                await trio.sleep(seconds)
                member.pause(False)
                return
            member.trouble = kind
            with trio.CancelScope(shield=True):
                if kind == "leave":
                    await member.stop()
                else:
                    await member.kill(for_good=kind == "kill")
            await trio.sleep(seconds / 2)
            with trio.CancelScope(shield=True):
                await (member.start() if kind == "restart" else member.begin())

    async def _part(self, member: Member, others: list[str], kind: str, seconds: float) -> None:
        state = self._rng.choice([State.SILENT, State.SILENT, State.CUT])
        what = f"{' '.join(others) if kind != 'isolate' else 'all'}, {state}, {seconds:.1f} s"
        links = [self._network.link(member.name, other) for other in others]
        async with self._meeting(kind, member.name, what):
            member.trouble = kind
            for link in links:
                link.set(state)
            await trio.sleep(seconds)
            for link in links:
                if state is State.SILENT and self._rng.random() < 0.5:
                    link.reset()  # what was under way is lost, and not late
                link.set(State.OPEN)

    async def _of_database(self, kind: str, seconds: float) -> None:
        database = self._database
        async with self._meeting(kind, DATABASE, f"{seconds:.1f} s"):
            with trio.CancelScope(shield=True):
                await self._harm_database(kind)
            await trio.sleep(seconds)
            with trio.CancelScope(shield=True):
                for member in self._members:
                    self._network.link(member.name, DATABASE).delay = 0.0
                if kind == "database-full":
                    database.empty()
                if not database.running:
                    await database.start()

    async def _harm_database(self, kind: str) -> None:
        database = self._database
        if kind == "database-slow":
            delay = self._rng.uniform(0.01, 0.5)
            for member in self._members:
                self._network.link(member.name, DATABASE).delay = delay
        elif kind == "database-full":
            await trio.to_thread.run_sync(database.fill)
        elif kind == "database-restart":
            await database.stop()
        else:
            await database.kill()

    @contextlib.asynccontextmanager
    async def _meeting(self, kind: str, whom: str, what: str) -> AsyncIterator[None]:
        """Around a fault: meanwhile nothing else happens to the same one."""
        self.counts[kind] += 1
        self._busy.add(whom)
        began = trio.current_time() - self._began
        self.told.append(f"{began:7.2f} {kind} {whom}: {what}")
        try:
            yield
        finally:
            self._busy.discard(whom)
            for member in self._members:
                if member.name == whom:
                    member.trouble = ""
            ended = trio.current_time() - self._began
            self.told.append(f"{ended:7.2f} {kind} {whom} is over")

"""Clients of the simulated cluster: each asks for one answer, anywhere, and reads it to its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llcuda_net.storage.records import Level
from llcuda_protocol import Generate
from tools.simulated_cluster.clock.scheduler import Scheduler
from tools.simulated_cluster.database.results import Stored
from tools.simulated_cluster.running import Running
from tools.simulated_cluster.server import Server

#: Seconds between two looks of a reader, at most; and for which it looks for what it cannot find
#: before it sends its request again.
LOOK, _PATIENCE = 0.1, 10.0


@dataclass(eq=False)
class Reader:
    """A client.

    Attributes:
        fresh: whether it says that nobody has sent its key before.
        begins: when, in seconds.
        id: of the generation that it was told; "": none yet.
        seen: the pieces that it was shown, the last ones in this epoch.
        at, reading: the server that it reads at, and what it reads there.
        missed: since when it finds it nowhere; 0: it does.
        ids: all that it was told.
    """

    number: int
    key: str
    tokens: int
    level: Level
    fresh: bool
    begins: float
    id: str = ""
    epoch: int | None = None
    seen: tuple[str, ...] = ()
    at: Server | None = None
    reading: Running | None = None
    attempts: int = 0
    missed: float = 0.0
    done: bool = False
    ids: list[str] = field(default_factory=list)

    @property
    def told(self) -> Callable[[str], None]:
        """Called with the id that a server says."""

        def told(id_: str) -> None:
            if not self.id:
                self.id = id_
                self.ids.append(id_)

        return told


class Readers:
    """All of them.

    Args:
        servers: those that there are now.
        stored: the result of a generation; None: there is none.
        violation: told of what must not be.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        rng: random.Random,
        servers: Callable[[], Sequence[Server]],
        stored: Callable[[str], Stored | None],
        violation: Callable[[str], None],
    ) -> None:
        self.all: list[Reader] = []
        self.counts = Counter[str]()
        self._scheduler = scheduler
        self._rng = rng
        self._servers = servers
        self._stored = stored
        self._violation = violation

    def plan(self, count: int, most: int, latest: float) -> None:
        """Make the clients: of the first six, two have a key in common, and the same request.

        Args:
            most: tokens, at most.
            latest: when they begin, in seconds; who has another one's key, soon after that.
        """
        rng = self._rng
        for number in range(count):
            key = f"key {number // 2 if number < 6 else number}"
            tokens = rng.randint(1, most)
            level = rng.choice([Level.CLUSTER, Level.CLUSTER, Level.DISK])
            begins = rng.uniform(0.0, latest)
            if number in (1, 3, 5):
                first = self.all[-1]
                tokens, level = first.tokens, first.level
                begins = first.begins + rng.choice([0.0, 0.005, 0.05, 0.5, 5.0]) * rng.random()
            fresh = number >= 6 and rng.random() < 0.5
            self.all.append(Reader(number, key, tokens, level, fresh, begins))

    def read(self, one: Reader) -> None:
        """Ask, and read until the end; in a greenlet of the world outside."""
        rng, scheduler = self._rng, self._scheduler
        scheduler.sleep(one.begins)
        while not one.done:
            if not one.id:
                self._ask(one)
                scheduler.sleep(rng.uniform(0.05, 2.0))
            else:
                self._look_around(one)
                scheduler.sleep(LOOK * rng.random())

    def _there(self) -> list[Server]:
        return [s for s in self._servers() if s.machine.alive and not s.machine.stopped]

    def _ask(self, one: Reader) -> None:
        if there := self._there():
            one.attempts += 1
            self.counts["requests sent"] += 1
            request = Generate(
                1,
                0,
                prompt=one.key,
                params={"n_predict": one.tokens},
                key=one.key,
                fresh=one.fresh and one.attempts == 1,
                level=one.level,
            )
            self._rng.choice(there).requests.take(request, one.told)

    def _look_around(self, one: Reader) -> None:
        rng, result = self._rng, self._stored(one.id)
        there = self._there()
        if result is not None and rng.random() < 0.2:
            self._look(one, result, "the store", ended=True)
            return
        if one.at not in there or rng.random() < 0.03:
            one.at = rng.choice(there) if there else None
        if one.at is None:
            return
        found, over = one.at.registry.find(one.id, None), one.at.over.get(one.id)
        if over is not None:
            if result != over:
                self._violation(f"{one.id}: {one.at} says that it is over, not so the store")
            self._look(one, over, "its end", ended=True)
        elif found is not None and self._may_read(one, one.at, found):
            one.reading = found
            self._look(one, found.told, one.at.machine.name, ended=False)
        else:
            one.at = None
            self._miss(one, gone=result is None and not self._anywhere(one.id))
            return
        one.missed = 0.0

    def _may_read(self, one: Reader, server: Server, found: Running) -> bool:
        """Whether a server shows it: to who comes new only while it is a member."""
        if not found.accepted or found.suspended:
            return False
        return found is one.reading or server.is_member

    def _anywhere(self, id_: str) -> bool:
        return any(server.registry.find(id_, None) for server in self._servers())

    def _miss(self, one: Reader, gone: bool) -> None:
        """It is nowhere: another one, which had its key, never began; then it asks again."""
        now = self._scheduler.now
        one.missed = one.missed or now
        if gone and not one.seen and now - one.missed > _PATIENCE:
            one.id, one.missed = "", 0.0
            self.counts["asked again"] += 1

    def _look(self, one: Reader, told: Stored, where: str, *, ended: bool) -> None:
        """A reader sees what somebody has: it must go on with what it has, or be behind it."""
        pieces, seen = told.pieces, one.seen
        if one.epoch is not None and len(seen) > _same_since(told, one.epoch):
            # As `ahead` says it.
            if one.level is Level.CLUSTER:
                self._violation(f"{one.id}: {where} has lost what a reader was shown")
            self.counts["ahead"] += 1
            one.seen, one.epoch, one.done = (), None, True
            return
        common = min(len(pieces), len(seen))
        if pieces[:common] != seen[:common]:
            at = next(n for n in range(common) if pieces[n] != seen[n])
            self._violation(
                f"{one.id}: piece {at} is {pieces[at]} at {where}, a reader had {seen[at]}"
            )
            one.done = True
            return
        epoch = told.splices[-1][1] if told.splices else 0
        if len(pieces) >= len(seen):
            self.counts["tokens"] += len(pieces) - len(seen)
            one.seen, one.epoch = pieces, epoch
        if ended:
            if len(pieces) < len(seen):
                self._violation(f"{one.id}: {where} ends before what a reader was shown")
            one.done = True


def _same_since(told: Stored, epoch: int) -> int:
    """As Generation.same_since, of what is shown: what is not is not missed yet."""
    epochs = {0, *(of for _, of in told.splices)}
    later = [position for position, of in told.splices if epoch not in epochs or of > epoch]
    return min([10**9, *later])

"""Sessions over a network in trouble: requests and answers are late, lost, and done twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from llcuda_net.errors import StorageError
from tools.simulated_cluster.clock.scheduler import Machine, Scheduler
from tools.simulated_cluster.database.tables import Database
from tools.simulated_cluster.pool import Upstreams

_T = TypeVar("_T")
#: Seconds that a request, and an answer, take.
_LATENCY = (0.0003, 0.003)
#: Seconds until a client knows that there will be no answer, and until a lost request may still be
#: done.
_SILENCE, _LATEST = 3.0, 9.0


@dataclass
class Trouble:
    """What is wrong between one machine and the database.

    Attributes:
        cut: nothing passes.
        slow: most seconds that a request, or an answer, takes besides.
        loses: share of requests, and of answers, that are lost.
    """

    cut: bool = False
    slow: float = 0.0
    loses: float = 0.0


class Network:
    """Between the machines, the database and the upstreams.

    Args:
        urls: of the upstreams.

    Attributes:
        down: the database does not run.
        urls: see Args.
        requests, lost: how many there were.
    """

    def __init__(
        self, scheduler: Scheduler, database: Database, rng: random.Random, urls: tuple[str, ...]
    ) -> None:
        self.down = False
        self.requests = self.lost = 0
        self.database = database
        self.scheduler = scheduler
        self._rng = rng
        self.urls = urls
        self._troubles: dict[str, Trouble] = {}
        self._upstreams: dict[str, Upstreams] = {}

    def trouble(self, machine: Machine) -> Trouble:
        """What is wrong with a machine's way to the database."""
        return self._troubles.setdefault(machine.name, Trouble())

    def upstreams(self, machine: Machine) -> Upstreams:
        """A machine's ways to the upstreams."""
        return self._upstreams.setdefault(machine.name, Upstreams(self.urls))

    def ask(self, machine: Machine, change: Callable[[Database], _T]) -> _T:
        """Have the database do something; returns, or raises, what that does.

        Raises:
            StorageError: BUSY: there was no answer, and it may be done, or be done later.
        """
        rng, scheduler, trouble = self._rng, self.scheduler, self.trouble(machine)
        self.requests += 1
        answer: list[Any] = []
        ticket = scheduler.ticket()

        def lost() -> bool:
            return trouble.cut or self.down or rng.random() < trouble.loses

        def execute(*, late: bool = False) -> None:
            if self.down:
                return
            try:
                found: Any = (self.database.transaction(change), None)
            except StorageError as error:
                found = (None, error)
            if late or lost():
                return

            def arrive() -> None:
                answer.append(found)
                scheduler.wake(ticket)

            scheduler.after(self._pause(trouble), arrive)

        if self.down and rng.random() < 0.8:  # nobody listens: that is known at once
            scheduler.after(self._pause(trouble), lambda: scheduler.wake(ticket))
        elif lost():
            if rng.random() < 0.5:
                scheduler.after(rng.uniform(0, _LATEST), lambda: execute(late=True))
        else:
            scheduler.after(self._pause(trouble), execute)
        silence = _SILENCE * rng.uniform(0.02, 1.0)
        scheduler.after(silence, lambda: scheduler.wake(ticket))
        scheduler.park()
        if not answer:
            self.lost += 1
            raise StorageError("the database does not answer", StorageError.BUSY)
        found, error = answer[0]
        if error is not None:
            raise StorageError(error.message, error.code)
        return found  # type: ignore[no-any-return]

    def _pause(self, trouble: Trouble) -> float:
        pause = self._rng.uniform(*_LATENCY)
        return pause + self._rng.uniform(0.0, trouble.slow) if trouble.slow else pause


@dataclass(frozen=True)
class Autocommit:
    """A connection on which each statement is a request of its own."""

    network: Network
    machine: Machine

    def do(self, statement: Callable[[Database], _T]) -> _T:
        """Have one done; raises StorageError."""
        return self.network.ask(self.machine, statement)


class Session:
    """As storage.postgres.connection.Session: it repeats once by itself after a lost connection."""

    def __init__(self, network: Network, machine: Machine, rng: random.Random) -> None:
        self._network = network
        self._machine = machine
        self._rng = rng

    def ask(self, what: str, question: Callable[[Any], _T]) -> _T:
        """See there: each statement is a transaction."""
        return self._repeat(lambda: question(Autocommit(self._network, self._machine)))

    def change(self, what: str, change: Callable[[Any], _T]) -> _T:
        """See there."""
        return self._repeat(lambda: self._network.ask(self._machine, change))

    def _repeat(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except StorageError as error:
            if error.code != StorageError.BUSY or self._rng.random() < 0.5:
                raise
        return work()

    def close(self) -> None:
        """See there."""

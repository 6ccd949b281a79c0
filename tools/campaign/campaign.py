"""The base of the campaigns: start the processes, run clients, stop them, and check what is left.

A campaign runs in an empty folder. It starts upstreams and one llcuda-server, disturbs something
while clients work, waits until every client is done, stops the server, and compares its store with
what the clients received. Whatever must not be becomes a violation in the ledger; the first one
ends the campaign. All processes end with it, also when it is cancelled.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import trio

from tools.campaign import store_check
from tools.campaign.clients import PATIENCE, Clients
from tools.campaign.ledger import Ledger
from tools.campaign.server import Server, ServerError, ended
from tools.campaign.upstreams import SYNTHETIC, Upstream, running

#: Shows progress: a few words.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a campaign does.

    Attributes:
        seed: of everything random.
        broken: how the server is broken on purpose; the campaign ends when it notices that.
    """

    seed: int
    broken: str | None = field(default=None, kw_only=True)


_PlanT = TypeVar("_PlanT", bound=Plan)


@dataclass
class Outcome(Generic[_PlanT]):
    """What a campaign found.

    Attributes:
        seconds: how long it took.
    """

    plan: _PlanT
    ledger: Ledger = field(default_factory=Ledger)
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        """What must not be; empty if all is well."""
        return list(self.ledger.violations)

    @property
    def is_well(self) -> bool:
        """Whether the outcome is as expected: violations if and only if the server is broken."""
        return bool(self.violations) is (self.plan.broken is not None)

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        raise NotImplementedError


_OutcomeT = TypeVar("_OutcomeT", bound=Outcome[Any])


class Campaign(ABC, Generic[_OutcomeT]):
    """One campaign.

    Args:
        outcome: filled while the campaign runs.
        folder: an empty one, for data directory and logs.
        say: shows progress.
    """

    def __init__(self, outcome: _OutcomeT, folder: Path, say: Say) -> None:
        self.outcome = outcome
        self.ledger: Ledger = outcome.ledger
        self.rng = random.Random(outcome.plan.seed)
        self.folder = folder
        self.say = say
        self._stack = AsyncExitStack()

    @abstractmethod
    async def work(self) -> None:
        """All of it; may raise ServerError."""

    async def run(self) -> _OutcomeT:
        """Run the campaign to its end.

        Raises:
            StartError: an upstream did not start, or ended by itself; perhaps in a group.
        """
        began = time.monotonic()
        async with self._stack:
            try:
                await self.work()
            except* ServerError as errors:
                for error in leaves(errors):
                    self.ledger.violation(str(error))
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def start_upstreams(
        self, count: int, options: Sequence[str], script: Path = SYNTHETIC
    ) -> list[Upstream]:
        """Start upstreams that do not outlive the campaign."""
        return await self._stack.enter_async_context(running(count, script, options, self.folder))

    async def make_server(
        self,
        options: Sequence[str],
        upstreams: Sequence[Upstream] = (),
        *,
        breaker: Path | None = None,
        name: str = "data",
    ) -> Server:
        """A server that does not outlive the campaign; not started yet.

        Args:
            breaker: the script that runs a broken server, if the plan asks for one.
            name: of its data directory.
        """
        flags = list(options)
        for upstream in upstreams:
            flags += ["--upstream", upstream.url]
        broken = None if breaker is None else self.outcome.plan.broken
        server = Server(self.folder / name, flags, broken, breaker)
        return await self._stack.enter_async_context(ended(server))

    async def with_clients(
        self,
        clients: Clients,
        count: int,
        scenario: Callable[[trio.Nursery], Awaitable[None]],
        last: str,
        patience: float = PATIENCE,
    ) -> None:
        """Run clients during a scenario, and until everything that they began is over.

        Args:
            scenario: gets a nursery whose tasks are cancelled when the clients are done.
            last: how the scenario ends, for the message if the clients never are.
            patience: seconds for the clients to end after that.
        """
        async with trio.open_nursery() as nursery:
            over = trio.Event()

            async def work() -> None:
                await clients.run(count)
                over.set()

            nursery.start_soon(work)
            await scenario(nursery)
            clients.enough = True
            if not self.ledger.violations:
                until = trio.current_time() + patience
                while not (over.is_set() or self.ledger.violations or trio.current_time() > until):
                    with trio.move_on_after(1.0):
                        await over.wait()
                if not (over.is_set() or self.ledger.violations):
                    self.ledger.violation(f"clients not done {patience:g} s after {last}")
            nursery.cancel_scope.cancel()

    async def stop(self, server: Server) -> None:
        """Stop the server as an operator does, and read its log."""
        await server.stop()
        for complaint in server.complaints():
            self.ledger.violation(f"the server's log: {complaint}")

    async def check_new(self, server: Server) -> None:
        """Look for the newly acknowledged results; see store_check."""
        await store_check.check_new(server.folder, self.ledger)

    async def check_all(self, server: Server, unknown: Container[str] = ()) -> None:
        """Look at everything that was stored; see store_check."""
        await store_check.check_all(server.folder, self.ledger, unknown)


def leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """The exceptions of a group and of the groups in it."""
    out: list[BaseException] = []
    for error in group.exceptions:
        out += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return out

"""One campaign: a server with several upstreams that are killed, stopped and made to answer errors.

                             ┌─▶ upstream-1   (killed with -9, and started again)
64 clients ──▶ llcuda-server ┼─▶ upstream-2   (stopped, and continued)
                             └─▶ upstream-3   (answers errors)      … each of them at random
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from tools.chaos import memory, quiet
from tools.chaos.broken import MODES
from tools.chaos.clients import KINDS, ChaosClients
from tools.chaos.troubles import Manners, Troubles
from tools.chaos.upstreams import REAL, SYNTHETIC, Upstream, running, slow_down
from tools.crash import kept
from tools.crash.clients import PATIENCE, Options
from tools.crash.jobs import Jobs, RecordedJobs, SyntheticJobs
from tools.crash.ledger import Ledger
from tools.crash.server import Server, ServerError, ended

BREAKER = Path(__file__).with_name("broken.py")
#: Slots of each upstream: all together fewer than clients, so that some requests wait in the queue.
SLOTS = 12
REAL_SLOTS = 4
#: Seconds after which the server shall give up an upstream that says nothing.
STALL, FIRST_TOKEN = 2.0, 4.0
#: Share of readings that may end with an error, excused or not.
MOST_ERRORS = 0.05
#: Troubles from which on some answer must have gone on elsewhere.
_ENOUGH = 5
#: Seconds between two looks into the store.
_LOOK = 2.0
#: States of results that clients were not told of: they were told of an error.
_UNTOLD = frozenset({"failed", "interrupted"})


@dataclass(frozen=True)
class Plan:
    """What a campaign does.

    Attributes:
        seconds: for which there are troubles, and new work.
        rate: tokens a second on each stream of a synthetic upstream.
        real: llama.cpp's server with the demonstration model, in place of the synthetic upstream.
        broken: how the server is broken on purpose; the campaign then ends when that is noticed.
    """

    seed: int
    seconds: float
    clients: int = 64
    upstreams: int = 3
    rate: float = 40.0
    real: bool = False
    broken: str | None = None
    manners: Manners = field(default_factory=Manners)


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    ledger: Ledger = field(default_factory=Ledger)
    troubles: dict[str, int] = field(default_factory=dict)
    in_trouble: dict[int, float] = field(default_factory=dict)
    excused: list[str] = field(default_factory=list)
    memory: list[memory.Look] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def readings(self) -> int:
        """Readings that came to an end, one way or another."""
        return self.ledger.counts["acknowledged"] + self.ledger.counts["errors"]

    @property
    def violations(self) -> list[str]:
        """What must not be; nothing, if all is well."""
        found, counts = list(self.ledger.violations), self.ledger.counts
        if found or self.plan.broken is not None:
            return found
        if not counts["acknowledged"]:
            found.append("no answer came to its end")
        if counts["errors"] > MOST_ERRORS * self.readings:
            found.append(f"{counts['errors']} of {self.readings} readings ended with an error")
        if sum(self.troubles.values()) >= _ENOUGH and not counts["splices"]:
            found.append("no answer was gone on with on another upstream")
        if (grown := memory.growth(self.memory)) is not None:
            found.append(grown)
        return found

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""
        plan = self.plan
        return {
            "seed": plan.seed,
            "upstream": "llama.cpp" if plan.real else "synthetic",
            "upstreams": plan.upstreams,
            "broken": plan.broken,
            "clients": plan.clients,
            "rate": None if plan.real else plan.rate,
            "seconds": round(self.seconds, 1),
            "troubles": dict(sorted(self.troubles.items())),
            "seconds_in_trouble": {n: round(s, 1) for n, s in sorted(self.in_trouble.items())},
            "excused": self.excused,
            "server_rss": [look.resident for look in self.memory],
            "store_bytes": [look.store for look in self.memory],
            "server_report": self.report,
            "counts": dict(sorted(self.ledger.counts.items())),
            "violations": self.violations,
        }


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run a campaign in an empty folder.

    Args:
        say: told how far it has come, in a few words.

    Raises:
        StartError: an upstream did not start.
    """
    outcome = Outcome(plan)
    began = time.monotonic()
    rng = random.Random(plan.seed)
    if plan.real:
        script, options = REAL, ["--slots", str(REAL_SLOTS)]
    else:
        script, options = SYNTHETIC, ["--slots", str(SLOTS), "--rate", str(plan.rate)]
        options.append("--exit-on-eof")
    async with AsyncExitStack() as stack:
        upstreams = await stack.enter_async_context(
            running(plan.upstreams, script, options, folder)
        )
        flags = ["--stall-timeout", str(STALL), "--first-token-timeout", str(FIRST_TOKEN)]
        for upstream in upstreams:
            flags += ["--upstream", upstream.url]
        server = Server(folder / "data", flags, plan.broken, BREAKER)
        try:
            await stack.enter_async_context(ended(server))
            await server.start()
            await server.ready()
            jobs: Jobs = SyntheticJobs(rng, KINDS)
            if plan.real:
                jobs = await _recorded(server, rng, say)
            await _Campaign(outcome, server, upstreams, jobs, rng, say).run()
        except ServerError as error:
            outcome.ledger.violation(str(error))
    outcome.seconds = time.monotonic() - began
    return outcome


async def _recorded(server: Server, rng: random.Random, say: Callable[[str], None]) -> RecordedJobs:
    """The answers of the real upstreams, with nothing going wrong; not stored."""
    jobs = RecordedJobs(rng, KINDS)
    async with llcuda_net.connect(server.address) as client:
        async for job in jobs.record(client, level="memory"):
            say(f"recorded {len(jobs.known)} answers, the last of {len(job.pieces)} pieces")
    return jobs


class _Campaign:
    def __init__(
        self,
        outcome: Outcome,
        server: Server,
        upstreams: Sequence[Upstream],
        jobs: Jobs,
        rng: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self._outcome = outcome
        self._ledger = outcome.ledger
        self._plan = outcome.plan
        self._server = server
        self._upstreams = upstreams
        self._say = say
        self._troubles = Troubles(upstreams, random.Random(rng.random()), self._plan.manners)
        self._clients = ChaosClients(
            Options(server.address), jobs, self._ledger, random.Random(rng.random()), upstreams
        )

    async def run(self) -> None:
        """Trouble and work for a while; then let everything come to its end, and look."""
        async with trio.open_nursery() as nursery:
            over = trio.Event()
            server, looks = self._server, self._outcome.memory
            nursery.start_soon(memory.watch, server.pid, server.folder, looks)
            nursery.start_soon(self._run_clients, over)
            if self._plan.real:
                for upstream in self._upstreams:
                    nursery.start_soon(slow_down, upstream)
            calm = trio.Event()
            nursery.start_soon(self._trouble, calm)
            while not calm.is_set() and not self._ledger.violations:
                with trio.move_on_after(_LOOK):
                    await calm.wait()
                await kept.check_new(self._server.folder, self._ledger)
                self._tell()
            self._clients.enough = True
            with trio.move_on_after(PATIENCE) as patience:
                if not self._ledger.violations:
                    await over.wait()
            nursery.cancel_scope.cancel()
        self._outcome.troubles = dict(self._troubles.counts)
        self._outcome.excused = self._clients.excused
        self._outcome.in_trouble = dict(self._troubles.seconds)
        if patience.cancelled_caught:
            self._ledger.violation(f"clients not done {PATIENCE:g} s after the last trouble")
        if not self._ledger.violations:
            await self._finish()

    async def _run_clients(self, over: trio.Event) -> None:
        await self._clients.run(self._plan.clients)
        over.set()

    async def _trouble(self, calm: trio.Event) -> None:
        await self._troubles.run(self._plan.seconds)
        calm.set()

    async def _finish(self) -> None:
        """All is quiet: nothing may be held, everything must be usable, and be stored."""
        self._say("all is over: looking at slots, log and store")
        ledger, server = self._ledger, self._server
        for upstream in self._upstreams:
            upstream.check()
        found = await quiet.settled(lambda: quiet.slots_left(self._upstreams))
        async with llcuda_net.connect(server.address) as client:

            async def held() -> list[str]:
                self._outcome.report = await client.status()
                return quiet.slots_held(self._outcome.report)

            found += await quiet.settled(held)
            if not self._plan.real and not found:
                found += await quiet.every_slot(client, self._upstreams)
        for what in found:
            ledger.violation(what)
        await server.stop()
        for complaint in server.complaints():
            ledger.violation(f"the server's log: {complaint}")
        await kept.check_all(server.folder, ledger, _UNTOLD)

    def _tell(self) -> None:
        counts = self._ledger.counts
        now = ", ".join(f"{u.name} {u.trouble or 'well'}" for u in self._upstreams)
        self._say(
            f"{counts['acknowledged']:,} results, {counts['pieces']:,} pieces, "
            f"{counts['errors']:,} errors, {counts['violations']} violations; {now}"
        )


__all__ = ["MODES", "Outcome", "Plan", "run"]

"""One campaign: a server killed at random moments under its clients, and the proof of what is left.

16 clients ──▶ llcuda-server, killed and started ──▶ synthetic upstream, or the built-in engine
                   │
                   └─▶ data directory ◀── looked into while the server is dead
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from tools.crash import kept
from tools.crash.clients import PATIENCE, Clients, Options
from tools.crash.jobs import Jobs, RecordedJobs, SyntheticJobs
from tools.crash.ledger import Ledger
from tools.crash.server import Server, ServerError, ended
from tools.overhead.processes import synthetic_upstream

#: Slots of the synthetic upstream: fewer than clients, so that some requests wait in the queue.
SLOTS = 12
#: Of a hundred kills, how many come while the server starts.
EARLY = 12
#: Share of the engine's kills that wait for a stream under way, and for how many seconds at most:
#: the tiny model's answers take so few milliseconds that chance seldom meets one.
AIMED = 0.5
_AIM = 0.3
#: Seconds for clients to read what a killed server had sent before.
_LAST_WORDS = 0.05
#: Share of kills that must find a stream under way.
LEAST_MID_STREAM = 0.5


@dataclass(frozen=True)
class Plan:
    """What a campaign does.

    Attributes:
        rate: tokens a second on each stream of the synthetic upstream.
        life: fewest and most seconds from when the server is ready to its kill.
        engine: the built-in engine in place of the synthetic upstream.
        broken: how the server is broken on purpose; the campaign then ends when that is noticed.
    """

    seed: int
    kills: int
    clients: int = 16
    rate: float = 60.0
    life: tuple[float, float] = (0.1, 1.3)
    engine: bool = False
    broken: str | None = None


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    ledger: Ledger = field(default_factory=Ledger)
    kills: int = 0
    early: int = 0
    mid_stream: int = 0
    cut: int = 0
    starts: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        """What must not be; nothing, if all is well."""
        found = list(self.ledger.violations)
        if self.plan.broken is None and self.mid_stream < LEAST_MID_STREAM * self.kills:
            found.append(f"only {self.mid_stream} of {self.kills} kills were mid-stream")
        return found

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""
        plan = self.plan
        return {
            "seed": plan.seed,
            "upstream": "built-in engine" if plan.engine else "synthetic",
            "broken": plan.broken,
            "clients": plan.clients,
            "rate": None if plan.engine else plan.rate,
            "kills": self.kills,
            "kills_while_starting": self.early,
            "kills_mid_stream": self.mid_stream,
            "streams_cut": self.cut,
            "start_median_s": sorted(self.starts)[len(self.starts) // 2] if self.starts else None,
            "seconds": round(self.seconds, 1),
            "counts": dict(sorted(self.ledger.counts.items())),
            "violations": self.violations,
        }


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run a campaign in an empty folder.

    Args:
        say: told how far it has come, in a few words.

    Raises:
        StartError: the synthetic upstream did not start.
    """
    outcome = Outcome(plan)
    began = time.monotonic()
    rng = random.Random(plan.seed)
    with ExitStack() as stack:
        options = ["--slots", "4"]
        if not plan.engine:
            upstream = stack.enter_context(
                synthetic_upstream("--rate", str(plan.rate), "--slots", str(SLOTS))
            )
            options = ["--upstream", "http://{}:{}".format(*upstream.address)]
        try:
            jobs = await _jobs(plan, folder, options, rng, say)
            async with ended(Server(folder / "data", options, plan.broken)) as server:
                await _Campaign(outcome, server, jobs, rng, say).run()
        except ServerError as error:
            outcome.ledger.violation(str(error))
    outcome.seconds = time.monotonic() - began
    return outcome


async def _jobs(
    plan: Plan, folder: Path, options: list[str], rng: random.Random, say: Callable[[str], None]
) -> Jobs:
    if not plan.engine:
        return SyntheticJobs(rng)
    jobs = RecordedJobs(rng)
    async with ended(Server(folder / "recorded", options)) as server:
        await server.start()
        await server.ready()
        async with llcuda_net.connect(server.address) as client:
            async for job in jobs.record(client):
                say(f"recorded {len(jobs.known)} answers, the last of {len(job.pieces)} pieces")
        await server.stop()
    return jobs


class _Campaign:
    def __init__(
        self,
        outcome: Outcome,
        server: Server,
        jobs: Jobs,
        rng: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self._outcome = outcome
        self._ledger = outcome.ledger
        self._plan = outcome.plan
        self._server = server
        self._rng = rng
        self._say = say
        self._clients = Clients(Options(server.address), jobs, self._ledger, rng)

    async def run(self) -> None:
        """Start, kill and look, again and again; then let everything come to its end."""
        async with trio.open_nursery() as nursery:
            over = trio.Event()
            nursery.start_soon(self._run_clients, over)
            for _ in range(self._plan.kills):
                await self._one_life()
                if self._ledger.violations:
                    break
            if not self._ledger.violations:
                await self._finish(over)
            nursery.cancel_scope.cancel()

    async def _run_clients(self, over: trio.Event) -> None:
        await self._clients.run(self._plan.clients)
        over.set()

    async def _one_life(self) -> None:
        outcome, server, rng = self._outcome, self._server, self._rng
        early = bool(outcome.starts) and rng.random() * 100 < EARLY
        await self._start(wait=not early)
        if early:
            outcome.early += 1
            await trio.sleep(rng.uniform(0.0, 1.2) * outcome.starts[-1])
        else:
            await trio.sleep(rng.uniform(*self._plan.life))
            if self._plan.engine and rng.random() < AIMED:
                await self._under_way()
        cut = self._ledger.mid_stream
        await server.kill()
        outcome.kills += 1
        outcome.cut += cut
        outcome.mid_stream += cut > 0
        await trio.sleep(_LAST_WORDS)
        await kept.check_new(server.folder, self._ledger)
        self._tell()

    async def _under_way(self) -> None:
        """Wait a moment for a stream that has begun, and is not over."""
        with trio.move_on_after(_AIM):
            while not self._ledger.mid_stream:  # noqa: ASYNC110 - set by many tasks
                await trio.sleep(0.001)

    async def _start(self, *, wait: bool = True) -> None:
        self._ledger.life()
        began = trio.current_time()
        await self._server.start()
        if wait:
            await self._server.ready()
            self._outcome.starts.append(trio.current_time() - began)

    async def _finish(self, over: trio.Event) -> None:
        """The last server is not killed: every stream must come to its end."""
        self._clients.enough = True
        await self._start()
        with trio.move_on_after(PATIENCE) as patience:
            await over.wait()
        if patience.cancelled_caught:
            self._ledger.violation(f"clients not done {PATIENCE:g} s after the last restart")
            return
        await self._server.stop()
        for complaint in self._server.complaints():
            self._ledger.violation(f"the server's log: {complaint}")
        self._tell()
        await kept.check_all(self._server.folder, self._ledger)

    def _tell(self) -> None:
        counts = self._ledger.counts
        self._say(
            f"kill {self._outcome.kills}/{self._plan.kills}: {counts['acknowledged']:,} results, "
            f"{counts['pieces']:,} pieces, {counts['violations']} violations"
        )

"""One campaign: a server killed at random moments under its clients, and the proof of what is left.

16 clients ──▶ llcuda-server, killed and started ──▶ synthetic upstream, or the built-in engine
                   │
                   └─▶ data directory ◀── looked into while the server is dead
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from tools.campaign import campaign
from tools.campaign.clients import Clients, Options
from tools.campaign.jobs import Jobs, RecordedJobs, SyntheticJobs
from tools.campaign.server import Server

#: Slots of the synthetic upstream: fewer than clients, so that some requests wait in the queue.
SLOTS = 12
#: Of a hundred kills, how many come while the server starts.
EARLY = 12
#: Seconds for clients to read what a killed server had sent before.
_LAST_WORDS = 0.05
#: Share of kills that must find a stream under way.
LEAST_MID_STREAM = 0.5
BREAKER = Path(__file__).with_name("broken.py")


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """What a crash campaign does.

    Attributes:
        rate: tokens per second on each stream of the synthetic upstream.
        life: fewest and most seconds from when the server is ready to its kill.
        engine: the built-in engine in place of the synthetic upstream.
        aimed: share of kills that wait for a stream under way.
        aim: most seconds that they wait.
    """

    kills: int
    clients: int = 16
    rate: float = 60.0
    life: tuple[float, float] = (0.1, 1.3)
    engine: bool = False
    aimed: float = 0.0
    aim: float = 0.3


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What a crash campaign found.

    Attributes:
        kills, early, mid_stream: kills in all, while the server started, and during a stream.
        cut: streams that kills cut.
        starts: seconds that each start took.
    """

    kills: int = 0
    early: int = 0
    mid_stream: int = 0
    cut: int = 0
    starts: list[float] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """What must not be; empty if all is well."""
        found = super().violations
        if self.plan.broken is None and self.mid_stream < LEAST_MID_STREAM * self.kills:
            found.append(f"only {self.mid_stream} of {self.kills} kills were mid-stream")
        return found

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
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


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run a campaign in an empty folder; see Campaign.run."""
    return await _Campaign(Outcome(plan), folder, say).run()


class _Campaign(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """Start, kill and look, again and again; then let everything come to its end."""
        plan = self.outcome.plan
        upstreams, options = [], ["--slots", "4"]
        if not plan.engine:
            synthetic = ["--rate", str(plan.rate), "--slots", str(SLOTS), "--exit-on-eof"]
            upstreams, options = await self.start_upstreams(1, synthetic), []
        jobs: Jobs = await self._recorded(options) if plan.engine else SyntheticJobs(self.rng)
        server = await self.make_server(options, upstreams, breaker=BREAKER)
        clients = Clients(Options(server.address, http=True), jobs, self.ledger, self.rng)

        async def lives(nursery: trio.Nursery) -> None:
            for _ in range(plan.kills):
                await self._one_life(server)
                if self.ledger.violations:
                    return
            clients.enough = True
            await self._start(server)  # the last server is not killed

        await self.with_clients(clients, plan.clients, lives, "the last restart")
        if not self.ledger.violations:
            await self.stop(server)
            self._show()
            await self.check_all(server)

    async def _recorded(self, options: list[str]) -> RecordedJobs:
        """The engine's answers, recorded with nothing going wrong."""
        server = await self.make_server(options, name="recorded")
        await server.start()
        await server.ready()
        jobs = RecordedJobs(self.rng)
        async with llcuda_net.connect(server.address) as client:
            async for job in jobs.record(client):
                self.say(
                    f"recorded {len(jobs.known)} answers, the last of {len(job.pieces)} pieces"
                )
        await server.stop()
        return jobs

    async def _one_life(self, server: Server) -> None:
        outcome, rng = self.outcome, self.rng
        early = bool(outcome.starts) and rng.random() * 100 < EARLY
        await self._start(server, wait=not early)
        if early:
            outcome.early += 1
            await trio.sleep(rng.uniform(0.0, 1.2) * outcome.starts[-1])
        else:
            await trio.sleep(rng.uniform(*outcome.plan.life))
            if rng.random() < outcome.plan.aimed:
                await self._under_way()
        cut = self.ledger.mid_stream
        await server.kill()
        outcome.kills += 1
        outcome.cut += cut
        outcome.mid_stream += cut > 0
        await trio.sleep(_LAST_WORDS)
        await self.check_new(server)
        self._show()

    async def _under_way(self) -> None:
        """Wait a moment for a stream that has begun and is not over."""
        with trio.move_on_after(self.outcome.plan.aim):
            while not self.ledger.mid_stream:  # noqa: ASYNC110 - set by many tasks
                await trio.sleep(0.001)

    async def _start(self, server: Server, *, wait: bool = True) -> None:
        self.ledger.life()
        began = trio.current_time()
        await server.start()
        if wait:
            await server.ready()
            self.outcome.starts.append(trio.current_time() - began)

    def _show(self) -> None:
        counts = self.ledger.counts
        self.say(
            f"kill {self.outcome.kills}/{self.outcome.plan.kills}: "
            f"{counts['acknowledged']:,} results, {counts['pieces']:,} pieces, "
            f"{counts['violations']} violations"
        )

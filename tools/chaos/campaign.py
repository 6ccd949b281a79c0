"""One campaign: a server with several upstreams that are killed, stopped and made to answer errors.

                             ┌─▶ upstream-1   (killed with -9, and started again)
64 clients ──▶ llcuda-server ┼─▶ upstream-2   (stopped, and continued)
                             └─▶ upstream-3   (answers errors)      … each of them at random
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from tools.campaign import campaign, memory, quiet
from tools.campaign.clients import Options
from tools.campaign.jobs import Jobs, RecordedJobs, SyntheticJobs
from tools.campaign.server import Server
from tools.campaign.upstreams import REAL, SYNTHETIC, Upstream, slow_down
from tools.chaos.clients import KINDS, ChaosClients
from tools.chaos.troubles import Timing, Troubles

BREAKER = Path(__file__).with_name("broken.py")
#: Slots of each upstream: all together fewer than clients, so that some requests wait in the queue.
SLOTS = 12
REAL_SLOTS = 4
#: Seconds after which the server shall give up a silent upstream.
STALL, FIRST_TOKEN = 2.0, 4.0
#: Share of readings that may end with an error, excused or not.
MOST_ERRORS = 0.05
#: Troubles from which on some answer must have continued elsewhere.
_ENOUGH = 5
#: Seconds between two looks into the store.
_LOOK = 2.0
#: States of results that clients did not get: they got an error.
_UNTOLD = frozenset({"failed", "interrupted"})


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """What a chaos campaign does.

    Attributes:
        seconds: for which there are troubles, and clients begin new work.
        rate: tokens per second on each stream of a synthetic upstream.
        real: llama.cpp's server with the demonstration model, in place of the synthetic upstream.
    """

    seconds: float
    clients: int = 64
    upstreams: int = 3
    rate: float = 40.0
    real: bool = False
    timing: Timing = field(default_factory=Timing)


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What a chaos campaign found.

    Attributes:
        troubles: how often each kind happened.
        in_trouble: seconds for which so many upstreams were in trouble at once, by their number.
        excused: the first errors that clients excused.
        memory: samples of the server's memory.
        report: the server's status at the end.
    """

    troubles: dict[str, int] = field(default_factory=dict)
    in_trouble: dict[int, float] = field(default_factory=dict)
    excused: list[str] = field(default_factory=list)
    memory: list[memory.Look] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def readings(self) -> int:
        """Readings that ended, with a result or an error."""
        return self.ledger.counts["acknowledged"] + self.ledger.counts["errors"]

    @property
    def violations(self) -> list[str]:
        """What must not be; empty if all is well."""
        found, counts = super().violations, self.ledger.counts
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
        """Everything, as JSON."""
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


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run a campaign in an empty folder; see Campaign.run."""
    return await _Campaign(Outcome(plan), folder, say).run()


class _Campaign(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """Trouble and work for a while; then let everything come to its end, and look."""
        plan = self.outcome.plan
        script, options = SYNTHETIC, ["--slots", str(SLOTS), "--rate", str(plan.rate)]
        options.append("--exit-on-eof")
        if plan.real:
            script, options = REAL, ["--slots", str(REAL_SLOTS)]
        upstreams = await self.start_upstreams(plan.upstreams, options, script)
        flags = ["--stall-timeout", str(STALL), "--first-token-timeout", str(FIRST_TOKEN)]
        server = await self.make_server(flags, upstreams, breaker=BREAKER)
        await server.start()
        await server.ready()
        jobs: Jobs = SyntheticJobs(self.rng, KINDS)
        if plan.real:
            jobs = await self._recorded(server)
        troubles = Troubles(upstreams, random.Random(self.rng.random()), plan.timing)
        rng = random.Random(self.rng.random())
        clients = ChaosClients(Options(server.address), jobs, self.ledger, rng, upstreams)

        async def scenario(nursery: trio.Nursery) -> None:
            nursery.start_soon(memory.watch, server.pid, server.folder, self.outcome.memory)
            if plan.real:
                for upstream in upstreams:
                    nursery.start_soon(slow_down, upstream)
            await self._trouble(server, upstreams, troubles)

        await self.with_clients(clients, plan.clients, scenario, "the last trouble")
        self.outcome.troubles = dict(troubles.counts)
        self.outcome.excused = clients.excused
        self.outcome.in_trouble = dict(troubles.seconds)
        if not self.ledger.violations:
            await self._finish(server, upstreams)

    async def _recorded(self, server: Server) -> RecordedJobs:
        """The answers of the real upstreams, with nothing going wrong; not stored."""
        jobs = RecordedJobs(self.rng, KINDS)
        async with llcuda_net.connect(server.address) as client:
            async for job in jobs.record(client, level="memory"):
                self.say(
                    f"recorded {len(jobs.known)} answers, the last of {len(job.pieces)} pieces"
                )
        return jobs

    async def _trouble(
        self, server: Server, upstreams: Sequence[Upstream], troubles: Troubles
    ) -> None:
        """Make trouble for a while, or until the first violation; look into the store meanwhile."""
        calm = trio.Event()

        async def trouble() -> None:
            await troubles.run(self.outcome.plan.seconds)
            calm.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trouble)
            while not calm.is_set() and not self.ledger.violations:
                with trio.move_on_after(_LOOK):
                    await calm.wait()
                await self.check_new(server)
                self._show(upstreams)
            nursery.cancel_scope.cancel()

    async def _finish(self, server: Server, upstreams: Sequence[Upstream]) -> None:
        """All is quiet: nothing may be held, everything must be usable, and be stored."""
        self.say("all is over: looking at slots, log and store")
        for upstream in upstreams:
            upstream.check()
        async with llcuda_net.connect(server.address) as client:
            self.outcome.report, found = await quiet.at_rest(client, upstreams)
            if not self.outcome.plan.real and not found:
                found += await quiet.every_slot(client, upstreams)
        for what in found:
            self.ledger.violation(what)
        await self.stop(server)
        await self.check_all(server, _UNTOLD)

    def _show(self, upstreams: Sequence[Upstream]) -> None:
        counts = self.ledger.counts
        now = ", ".join(f"{u.name} {u.trouble or 'well'}" for u in upstreams)
        self.say(
            f"{counts['acknowledged']:,} results, {counts['pieces']:,} pieces, "
            f"{counts['errors']:,} errors, {counts['violations']} violations; {now}"
        )

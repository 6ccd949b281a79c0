"""The soak: one server and some synthetic upstreams under half load, for a long time.

alice, bob, carol ──▶ llcuda-server ──▶ upstream-1 … upstream-3
                          │
                          └─▶ data directory; every few seconds both are looked at
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from tools.campaign import campaign, quiet
from tools.campaign.server import Server
from tools.campaign.upstreams import Upstream
from tools.overhead.stats import percentile
from tools.soak.load import Load
from tools.soak.samples import Sample, Sampler
from tools.soak.trend import Allowance, Trend, trend
from tools.soak.users import MONITOR, arrivals, by_person, capacity, mean_tokens, token_file

#: What must stay flat, and how much it may grow in the time that is judged. The server's memory has
#: limits that it reaches in the first half of an hour only: 24 MiB of SQLite's pages, and the keys
#: of 65,536 requests.
JUDGED: dict[str, tuple[str, Allowance]] = {
    "rss": ("memory", Allowance(0.02, 1 << 20, warm_up=0.5)),
    "descriptors": ("open descriptors", Allowance(0.0, 2.0)),
    "threads": ("threads", Allowance(0.0, 1.0)),
    "first_p50": ("first token, p50", Allowance(0.10, 0.002)),
    "first_p99": ("first token, p99", Allowance(0.25, 0.010)),
    "interval_p50": ("token interval, p50", Allowance(0.05, 0.001)),
    "interval_p99": ("token interval, p99", Allowance(0.25, 0.005)),
}
#: Connections of each user that stay open.
_CONNECTIONS = 4


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """What a soak does.

    Attributes:
        seconds: for which requests come.
        load: as a share of what the slots sustain.
        slots: of each upstream.
        rate: tokens per second on each stream.
        first_token: seconds that an upstream takes for a prompt.
        every: seconds between two samples.
    """

    seconds: float
    load: float = 0.5
    upstreams: int = 3
    slots: int = 40
    rate: float = 40.0
    first_token: float = 0.1
    every: float = 10.0

    @property
    def requests_per_second(self) -> float:
        """The rate of requests."""
        return self.load * capacity(self.upstreams * self.slots, self.rate, self.first_token)


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What a soak found.

    Attributes:
        counts: requests, by how they ended.
        first: seconds to the first token, by user.
        report: the server's status at the end.
    """

    samples: list[Sample] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def trends(self) -> dict[str, Trend]:
        """The trend of everything that is judged."""
        times = [sample.time for sample in self.samples]
        return {
            name: trend(times, [getattr(sample, name) for sample in self.samples], allowance)
            for name, (_, allowance) in JUDGED.items()
        }

    @property
    def slots(self) -> int:
        """Slots of all upstreams."""
        return self.plan.upstreams * self.plan.slots

    @property
    def is_well(self) -> bool:
        """Whether nothing went wrong and all trends are flat."""
        flat = all(trend.verdict == "flat" for trend in self.trends().values())
        return flat and not self.violations

    def people(self) -> dict[str, dict[str, Any]]:
        """The waits of each user for first tokens."""
        return {
            name: {
                "requests": len(self.first[name]),
                "first_p50": percentile(self.first[name], 0.5),
                "first_p99": percentile(self.first[name], 0.99),
            }
            for name in by_person(self.first)
        }

    def mean(self, name: str) -> float:
        """The mean of a field over all samples."""
        return statistics.fmean(getattr(sample, name) for sample in self.samples)

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        plan = asdict(self.plan)
        del plan["broken"]  # no soak breaks the server
        return {
            "plan": {
                **plan,
                "requests_per_second": round(self.plan.requests_per_second, 4),
                "mean_tokens": round(mean_tokens(), 2),
            },
            "seconds": round(self.seconds, 1),
            "counts": dict(sorted(self.counts.items())),
            "trends": {name: trend.document() for name, trend in self.trends().items()},
            "people": self.people(),
            "violations": self.violations,
            "server_report": self.report,
            "samples": [sample.document() for sample in self.samples],
        }


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run a soak in an empty folder; see Campaign.run."""
    return await _Soak(Outcome(plan), folder, say).run()


class _Soak(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """Load the server for a while, then see that it holds nothing any more."""
        plan, outcome = self.outcome.plan, self.outcome
        tokens = self.folder / "tokens"
        tokens.touch(mode=0o600)
        tokens.touch(0o600)
        tokens.write_text(token_file(), "utf-8")
        options = ["--slots", str(plan.slots), "--rate", str(plan.rate), "--spread"]
        options += ["--first-token-delay", str(plan.first_token), "--exit-on-eof"]
        upstreams = await self.start_upstreams(plan.upstreams, options)
        server = await self.make_server(["--auth-token-file", str(tokens)], upstreams)
        await server.start()
        await server.ready()
        load = Load(server.address, _CONNECTIONS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample, server, upstreams, load)
            await load.run(arrivals(self.rng, plan.requests_per_second, plan.seconds))
            outcome.counts = dict(load.counts)
            outcome.first = dict(load.first)
            nursery.cancel_scope.cancel()
        async with llcuda_net.connect(server.address, token=MONITOR) as client:
            outcome.report, found = await quiet.at_rest(client, upstreams)
        for what in [*load.errors, *found]:
            self.ledger.violation(what)
        await self.stop(server)

    async def _sample(self, server: Server, upstreams: Sequence[Upstream], load: Load) -> None:
        plan = self.outcome.plan
        others = [upstream.pid for upstream in upstreams]
        sampler = Sampler(server.pid, others, server.folder, load)
        begun = trio.current_time()
        for number in range(1, int(plan.seconds / plan.every) + 1):
            await trio.sleep_until(begun + number * plan.every)
            for upstream in upstreams:
                upstream.check()
            now = await trio.to_thread.run_sync(sampler.take)
            self.outcome.samples.append(now)
            self.say(
                f"{now.time:,.0f} of {plan.seconds:,.0f} s: {load.counts['requests']:,} requests, "
                f"{load.counts['failed']:,} failed; server {now.rss / (1 << 20):.1f} MiB, "
                f"{now.descriptors} descriptors, "
                f"{now.server_cpu:.2f} of {now.machine_cpu:.2f} cores"
            )

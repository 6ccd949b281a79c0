"""The soak: one server, some synthetic upstreams, half of what their slots sustain, for long.

alice, bob, carol ──▶ llcuda-server ──▶ upstream-1 … upstream-3
                          │
                          └─▶ data directory; every few seconds both are looked at
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_net
from tools.chaos import quiet
from tools.chaos.upstreams import SYNTHETIC, Upstream, running
from tools.crash.server import Server, ServerError, ended
from tools.overhead.stats import percentile
from tools.soak.load import MONITOR, Load, arrivals, by_person, capacity, mean_tokens, token_file
from tools.soak.samples import Sample, Sampler
from tools.soak.trend import Allowance, Trend, trend

#: What must stay flat, and how much it may grow in the time that is judged. The server's memory has
#: limits that it reaches in the first half of an hour only: 32 MiB of SQLite's pages, and the keys
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
class Plan:
    """What a soak does.

    Attributes:
        seconds: for which requests come.
        load: as a share of what the slots sustain.
        slots: of each upstream.
        rate: tokens a second on each stream.
        first_token: seconds that an upstream takes for a prompt.
        every: seconds between two samples.
    """

    seed: int
    seconds: float
    load: float = 0.5
    upstreams: int = 3
    slots: int = 40
    rate: float = 40.0
    first_token: float = 0.1
    every: float = 10.0

    @property
    def requests_per_second(self) -> float:
        """How many requests come."""
        return self.load * capacity(self.upstreams * self.slots, self.rate, self.first_token)


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def trends(self) -> dict[str, Trend]:
        """How all that is judged goes."""
        times = [sample.time for sample in self.samples]
        return {
            name: trend(times, [getattr(sample, name) for sample in self.samples], allowance)
            for name, (_, allowance) in JUDGED.items()
        }

    @property
    def slots(self) -> int:
        """Of all upstreams."""
        return self.plan.upstreams * self.plan.slots

    @property
    def is_well(self) -> bool:
        """Whether nothing went wrong, and all is flat."""
        flat = all(trend.verdict == "flat" for trend in self.trends().values())
        return flat and not self.violations

    def people(self) -> dict[str, dict[str, Any]]:
        """What each user waited for the first token."""
        return {
            name: {
                "requests": len(self.first[name]),
                "first_p50": percentile(self.first[name], 0.5),
                "first_p99": percentile(self.first[name], 0.99),
            }
            for name in by_person(self.first)
        }

    def mean(self, name: str) -> float:
        """Of a figure, over all samples."""
        return statistics.fmean(getattr(sample, name) for sample in self.samples)

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {
            "plan": {
                **asdict(self.plan),
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


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run a soak in an empty folder.

    Args:
        say: told how far it has come, in a few words.

    Raises:
        StartError: an upstream did not start, or ended by itself.
    """
    outcome = Outcome(plan)
    began = time.monotonic()
    tokens = folder / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(token_file(), "utf-8")
    options = ["--slots", str(plan.slots), "--rate", str(plan.rate), "--spread", "--exit-on-eof"]
    options += ["--first-token-delay", str(plan.first_token)]
    async with AsyncExitStack() as stack:
        upstreams = await stack.enter_async_context(
            running(plan.upstreams, SYNTHETIC, options, folder)
        )
        flags = ["--auth-token-file", str(tokens)]
        for upstream in upstreams:
            flags += ["--upstream", upstream.url]
        server = Server(folder / "data", flags)
        try:
            await stack.enter_async_context(ended(server))
            await server.start()
            await server.ready()
            await _soak(outcome, server, upstreams, say)
            found = await quiet.settled(lambda: quiet.slots_left(upstreams))
            async with llcuda_net.connect(server.address, token=MONITOR) as client:

                async def held() -> list[str]:
                    outcome.report = await client.status()
                    return quiet.slots_held(outcome.report)

                found += await quiet.settled(held)
            outcome.violations += found
            await server.stop()
            outcome.violations += [f"the server's log: {line}" for line in server.complaints()]
        except ServerError as error:
            outcome.violations.append(str(error))
    outcome.seconds = time.monotonic() - began
    return outcome


async def _soak(
    outcome: Outcome, server: Server, upstreams: Sequence[Upstream], say: Callable[[str], None]
) -> None:
    plan = outcome.plan
    load = Load(server.address, _CONNECTIONS)
    others = [upstream.pid for upstream in upstreams]
    sampler = Sampler(server.pid, others, server.folder, load)
    rng = random.Random(plan.seed)

    async def look() -> None:
        begun = trio.current_time()
        for number in range(1, int(plan.seconds / plan.every) + 1):
            await trio.sleep_until(begun + number * plan.every)
            for upstream in upstreams:
                upstream.check()
            outcome.samples.append(await trio.to_thread.run_sync(sampler.take))
            say(_progress(outcome, load))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await load.run(arrivals(rng, plan.requests_per_second, plan.seconds))
        outcome.counts = dict(load.counts)
        outcome.first = dict(load.first)
        outcome.violations += load.errors
        nursery.cancel_scope.cancel()


def _progress(outcome: Outcome, load: Load) -> str:
    now, plan = outcome.samples[-1], outcome.plan
    return (
        f"{now.time:,.0f} of {plan.seconds:,.0f} s: {load.counts['requests']:,} requests, "
        f"{load.counts['failed']:,} failed; server {now.rss / (1 << 20):.1f} MiB, "
        f"{now.descriptors} descriptors, {now.server_cpu:.2f} of {now.machine_cpu:.2f} cores"
    )

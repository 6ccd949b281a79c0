"""How much a server does: every load of a sweep, once per round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from llcuda_net.batch.record import SERVER
from llcuda_net.batch.targets.interface import PostProcess, Target
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.bench.report import document
from llcuda_net.bench.runs import steps
from llcuda_net.bench.runs.once import Say, once, self_test, silent
from llcuda_net.bench.runs.settings import Settings
from llcuda_net.bench.runs.steps import Step
from llcuda_net.bench.statistics.estimates import Estimate
from llcuda_net.bench.statistics.knee import knee, saturated
from llcuda_net.bench.statistics.lengths import lengths
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.fitting import Fitted, fit
from llcuda_net.bench.workload.load import Plan
from llcuda_net.bench.workload.validity import Bounds, Ceiling, cautions, shared
from llcuda_net.config.upstreams import without_credentials
from llcuda_net.util.numbers import plain

#: Shares of the capacity that the rates "auto" offer.
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)


@dataclass(frozen=True, slots=True)
class Sweep:
    """How much to ask.

    Attributes:
        concurrency: workers of the closed loops, rising.
        rates: requests/s to offer, rising; "auto": shares of what the closed loops reached.
        seconds, warmup: of each load.
        rounds: over all loads, every second one backwards.
        slo: the objective: bounds in seconds by metric.
    """

    concurrency: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
    rates: Sequence[float] | str = "auto"
    seconds: float = 5.0
    warmup: float = 1.0
    rounds: int = 3
    slo: dict[str, float] | None = None


class ThroughputBench:
    """The whole sweep.

    Args:
        say: takes a line that says how far it has come.

    Attributes:
        concurrency, rates: the loads with their runs, which fill as it goes on.

    Raises:
        ConfigError: the prompts are wrong.
    """

    def __init__(self, settings: Settings, sweep: Sweep, say: Say = silent) -> None:
        self.settings = settings
        self.sweep = sweep
        self.concurrency: list[Step] = [Step(load) for load in sweep.concurrency]
        self.rates: list[Step] = []
        self._say = say
        self._work = Fitted(settings.request.what.work())
        self._runs = 0
        self._ceiling: Ceiling | None = None
        self._about: dict[str, Any] = {}
        self._path = SERVER
        self._post = ""

    def __repr__(self) -> str:
        runs = sum(len(step.runs) for step in [*self.concurrency, *self.rates])
        return f"<ThroughputBench of {len(self.concurrency)} loads, {runs} runs>"

    def as_dict(self) -> dict[str, Any]:
        """For a document: what runs must have in common to be compared."""
        rates = self.sweep.rates
        return {
            "concurrency": list(self.sweep.concurrency),
            "rates": (rates if isinstance(rates, str) else list(rates)) or "none",
            "seconds": self.sweep.seconds,
            "warmup": self.sweep.warmup,
            "slo": self.sweep.slo,
            **self.settings.as_dict(),
        }

    async def run(self) -> None:
        """Connect, test this client, and sweep.

        Raises:
            ConnectError, RequestError: the server is not there.
            LlcudaError: what is to be measured did not start.
        """
        settings = self.settings
        async with (
            settings.running() as stack,
            settings.with_key(stack.api_key).open(stack.server) as target,
        ):
            about = await target.about()
            self._about = {"address": without_credentials(stack.server), **about.as_dict()}
            self._path = about.path
            chat = isinstance(target, OpenAITarget)
            self._work = await fit(self._work.work, [target], about.context, chat=chat)
            after, self._post = settings.kernels.prepare()
            if settings.self_test:
                plan = self._closed(self.concurrency[-1], 0)
                self._ceiling = await self_test(plan, {self._path: target}, self._say)
            await self._over(self.concurrency, self._closed, "concurrency {}", target, after)
            self.rates = [Step(rate) for rate in self._offered()]
            await self._over(self.rates, self._open, "{} requests/s", target, after)

    async def _over(
        self,
        loads: Sequence[Step],
        plan: Callable[[Step, int], Plan],
        words: str,
        target: Target,
        after: PostProcess | None,
    ) -> None:
        """Every load once per round."""
        for number in range(self.sweep.rounds if loads else 0):
            for step in loads if number % 2 == 0 else reversed(loads):
                load = words.format(plain(step.load, 4))
                label = f"round {number + 1} of {self.sweep.rounds}, {load}:"
                step.runs.append(
                    await once(
                        plan(step, number),
                        {self._path: target},
                        after=after,
                        say=self._say,
                        label=label,
                    )
                )
                # What was cut is cancelled on the server: its slots must be free for the next.
                await trio.sleep(0.2)

    def _closed(self, step: Step, number: int) -> Plan:
        """What a closed loop sends in a round."""
        length = self.sweep.warmup + self.sweep.seconds
        return self._plan(schedules.closed(int(step.load), length), number)

    def _open(self, step: Step, number: int) -> Plan:
        """What an offered rate sends in a round."""
        length = self.sweep.warmup + self.sweep.seconds
        seed = self.settings.request.seed + number
        return self._plan(schedules.poisson(step.load, length, seed), number)

    def _plan(self, schedule: schedules.Schedule, number: int) -> Plan:
        request = self.settings.request
        self._runs += 1  # each run of a workload has texts of its own, which no cache knows
        return Plan(
            schedule=schedule,
            prompts=self._work.work.for_run(self._runs),
            params=request.params,
            timeout=request.timeout,
            warmup=self.sweep.warmup,
            seed=request.seed + number,
        )

    def _offered(self) -> Sequence[float]:
        """The rates to offer."""
        if not isinstance(self.sweep.rates, str):
            return self.sweep.rates
        capacity = max(step.rates()["requests_per_s"].value for step in self.concurrency)
        return [float(f"{share * capacity:.3g}") for share in _SHARES] if capacity > 0 else []

    # -- the figures --------------------------------------------------------------------------

    def figures(self, found: dict[str, Any]) -> None:
        """Fill the document with what the sweep gave."""
        found["about"] = self._about
        found["post"] = self._post
        runs = [run for step in [*self.concurrency, *self.rates] for run in step.runs]
        found["workload"] = self._work.as_dict()
        found["lengths"] = lengths([record for run in runs for record in run.measured])
        found["repetitions"] = {}
        bounds = Bounds(lag=self.settings.max_lag)
        for kind, loads in (("concurrency", self.concurrency), ("rates", self.rates)):
            rows = [steps.describe(step, self.sweep.slo, bounds, self._ceiling) for step in loads]
            found[kind] = rows
            for step, row in zip(loads, rows, strict=True):
                if kind == "rates":
                    share = step.carried()
                    row["carried"], row["saturated"] = share.as_dict(), saturated(share)
                else:
                    for name, values in step.repetitions().items():
                        found["repetitions"][f"{name} at {plain(step.load)}"] = values
                found["problems"] += [
                    f"{kind} {plain(step.load)}, round {number}: {text}"
                    for number, text in row["problems"]
                ]
        curve = [Estimate.from_dict(row["tokens_per_s"]) for row in found["concurrency"]]
        bend = knee(self.sweep.concurrency, curve)
        found["knee"] = {"load": bend.load, "tokens_per_s": bend.throughput, "why": bend.why}
        over = [row["load"] for row in found["rates"] if row["saturated"] == "yes"]
        under = [row["load"] for row in found["rates"] if row["saturated"] == "no"]
        found["saturation"] = {
            "from": min(over, default=None),
            "carried": max((r for r in under if not over or r < min(over)), default=None),
        }
        found["cautions"] += [*self._work.notes, *self._cautions()]

    def _cautions(self) -> list[str]:
        found = []
        slots = self._about["slots"]
        if slots is not None and any(step.load > slots for step in self.concurrency):
            found.append(
                f"the upstream has {slots} slots: beyond that concurrency requests wait for one"
            )
        found += shared([self._about["address"]], document.cores())
        everything = [record for step in self.rates for run in step.runs for record in run.measured]
        if everything:
            found += [
                text
                for text in cautions(everything, schedules.constant(1, 1))
                if not text.startswith("latency rose")  # of steps that do not follow each other
            ]
        return found

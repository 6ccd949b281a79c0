"""How much a server does: every load of a sweep, once per round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from llcuda_net.batch.record import SERVER, Record
from llcuda_net.batch.targets.interface import PostProcess, Target
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.batch.targets.tokenizer import learn
from llcuda_net.bench.energy.account import Account
from llcuda_net.bench.report import document
from llcuda_net.bench.runs import steps, warmup
from llcuda_net.bench.runs.once import Say, once, self_test, silent
from llcuda_net.bench.runs.settings import Settings
from llcuda_net.bench.runs.steps import Step
from llcuda_net.bench.statistics.estimates import Estimate
from llcuda_net.bench.statistics.knee import knee
from llcuda_net.bench.statistics.lengths import lengths
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.fitting import Fitted, fit
from llcuda_net.bench.workload.load import Plan
from llcuda_net.bench.workload.validity import Bounds, Ceiling, cautions, shared
from llcuda_net.config.upstreams import without_credentials
from llcuda_net.util.numbers import plain

#: Least seconds of a load, where nothing is said.
LEAST = 5.0
#: Most seconds for the queue of a rate to settle, where it is not measured for longer.
_SETTLE = 10.0
#: Shares of the capacity that the rates "auto" offer.
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)
#: Of which such a rate must bring so many in the time, on average: else there may be none.
_FEW = 5


@dataclass(frozen=True, slots=True)
class Sweep:
    """How much to ask.

    Attributes:
        concurrency: workers of the closed loops, rising.
        rates: requests/s to offer, rising; "auto": shares of what the closed loops reached.
        seconds: of each load; None: LEAST, or twice as long as an answer.
        warmup: seconds before it; None: as long as each load needs, which a pilot run finds.
        drain: seconds after it for what is under way; None: until that has ended.
        rounds: over all loads, every second one backwards, each with a schedule of its own.
        slo: the objective: bounds in seconds by metric.
    """

    concurrency: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
    rates: Sequence[float] | str = "auto"
    seconds: float | None = None
    warmup: float | None = None
    rounds: int = 5
    slo: dict[str, float] | None = None
    drain: float | None = None


class ThroughputBench:
    """The whole sweep.

    Args:
        say: takes a line that says how far it has come.

    Attributes:
        concurrency, rates: the loads with their runs, which fill as it goes on: whatever is
            complete, figures can be had of it.

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
        self._few: list[float] = []
        self._ceiling: Ceiling | None = None
        self._about: dict[str, Any] = {}
        self._energy: Account | None = None
        self._path = SERVER
        self._post = ""
        self._single: list[float] = []

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
            "drain": self.sweep.drain,
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
            settings.energy.account([stack.server]) as self._energy,
        ):
            about = await target.about()
            self._about = {"address": without_credentials(stack.server), **about.as_dict()}
            self._path = about.path
            chat = isinstance(target, OpenAITarget)
            self._work = await fit(self._work.work, [target], about.context, chat=chat)
            after, self._post = settings.kernels.prepare()
            await self._energy.idle()
            if settings.self_test:
                plan = replace(self._closed(self.concurrency[-1], 0), warmup=1.0)
                self._ceiling = await self_test(plan, {self._path: target}, self._say)
            if self.sweep.warmup is None:
                plan = self._closed(self.concurrency[0], 0)
                self._single = await warmup.alone(plan, {self._path: target}, say=self._say)
            await self._over(self.concurrency, self._closed, "concurrency {}", target, after)
            self.rates = [Step(rate) for rate in self._offered()]
            capacity = self._capacity()
            words = f"{{}} {self._work.moment}/s"
            await self._over(self.rates, self._open, words, target, after, capacity)
            await learn(target, self._about, settings.tokenizer)

    async def _over(
        self,
        loads: Sequence[Step],
        plan: Callable[[Step, int, float | None], Plan],
        words: str,
        target: Target,
        after: PostProcess | None,
        capacity: float | None = None,
    ) -> None:
        """Every load once per round; `capacity`: requests/s that the rates are compared with."""
        for number in range(self.sweep.rounds if loads else 0):
            for step in loads if number % 2 == 0 else reversed(loads):
                load = words.format(plain(step.load, 4))
                if number == 0 and self.sweep.warmup is None:
                    await self._settle(step, plan, load, target, capacity)
                label = f"round {number + 1} of {self.sweep.rounds}, {load}:"
                step.runs.append(
                    await once(
                        plan(step, number, None),
                        {self._path: target},
                        after=after,
                        say=self._say,
                        label=label,
                    )
                )
                # What was cut is cancelled on the server: its slots must be free for the next.
                await trio.sleep(warmup.PAUSE)

    async def _settle(
        self,
        step: Step,
        plan: Callable[[Step, int, float | None], Plan],
        load: str,
        target: Target,
        capacity: float | None,
    ) -> None:
        """Find how long a load must run before it is measured."""
        floor = 0.0 if capacity is None else warmup.near_capacity(step.load, capacity)
        step.settled = await warmup.settle(
            lambda seconds: plan(step, self.sweep.rounds, seconds),
            {self._path: target},
            self._single,
            most=max(_SETTLE, 2 * (self.sweep.seconds or LEAST)),
            floor=floor,
            say=self._say,
            label=f"{load}:",
        )

    def _closed(self, step: Step, number: int, seconds: float | None = None) -> Plan:
        """What a closed loop sends in a round: for so many seconds, or with its warm-up."""
        length = self._length(step) if seconds is None else seconds
        return self._plan(step, schedules.closed(int(step.load), length), number)

    def _open(self, step: Step, number: int, seconds: float | None = None) -> Plan:
        """What an offered rate sends in a round."""
        length = self._length(step) if seconds is None else seconds
        seed = self.settings.request.seed + number
        return self._plan(step, schedules.poisson(step.load, length, seed), number)

    def _length(self, step: Step) -> float:
        return self._warmup(step) + self._seconds(step)

    def _seconds(self, step: Step) -> float:
        """Of a load, in seconds: in a window shorter than its answers nothing begins and ends."""
        if self.sweep.seconds is not None:
            return self.sweep.seconds
        return LEAST if step.settled is None else max(LEAST, 2 * step.settled.answer)

    def _warmup(self, step: Step) -> float:
        """Of a load, in seconds."""
        if self.sweep.warmup is not None:
            return self.sweep.warmup
        return step.settled.warmup if step.settled is not None else warmup.LEAST

    def _plan(self, step: Step, schedule: schedules.Schedule, number: int) -> Plan:
        request = self.settings.request
        self._runs += 1  # each run of a workload has texts of its own, which no cache knows
        return Plan(
            schedule=schedule,
            prompts=self._work.work.for_run(self._runs),
            params=request.params,
            timeout=request.timeout,
            warmup=self._warmup(step),
            drain=self.sweep.drain,
            cooldown=self._warmup(step),
            seed=request.seed + number,
        )

    def _capacity(self) -> float | None:
        """The requests/s beyond which more concurrency brought no more; None: it still rises.

        Of sessions their number: a rate of these brings as many requests as they have turns.
        """
        measured = [step for step in self.concurrency if step.runs]
        rates = [step.rates() for step in measured]
        bend = knee([step.load for step in measured], [each["tokens_per_s"] for each in rates])
        if bend.load is None:
            return None
        return max(each["requests_per_s"].value for each in rates) / self._work.turns

    def _reached(self) -> float | None:
        """The requests/s that the closed loops reached for sure."""
        lows = [step.rates()["requests_per_s"].low for step in self.concurrency if step.runs]
        known = [low / self._work.turns for low in lows if low is not None]
        return max(known, default=None)

    def _offered(self) -> Sequence[float]:
        """The rates to offer."""
        if not isinstance(self.sweep.rates, str):
            return self.sweep.rates
        capacity = max(step.rates()["requests_per_s"].value for step in self.concurrency)
        capacity /= self._work.turns
        rates = [float(f"{share * capacity:.3g}") for share in _SHARES] if capacity > 0 else []
        window = max(self._seconds(step) for step in self.concurrency)
        self._few = [rate for rate in rates if rate * window < _FEW]
        return [rate for rate in rates if rate not in self._few]

    # -- the figures --------------------------------------------------------------------------

    def progress(self) -> tuple[int, int | None]:
        """How many runs are complete, of how many; None where the rates are not yet known."""
        loads = [*self.concurrency, *self.rates]
        complete = sum(len(step.runs) for step in loads)
        known = bool(self.rates) or not self.sweep.rates
        return complete, len(loads) * self.sweep.rounds if known else None

    def records(self) -> list[Record]:
        """All requests of the runs that are complete, those of the warm-up, too."""
        return [
            record
            for step in (*self.concurrency, *self.rates)
            for run in step.runs
            for record in run.records
        ]

    def figures(self, found: dict[str, Any]) -> None:
        """Fill the document with what the runs gave that are complete."""
        found["about"] = self._about
        found["post"] = self._post
        runs = [run for step in [*self.concurrency, *self.rates] for run in step.runs]
        found["workload"] = self._work.as_dict()
        found["lengths"] = lengths([record for run in runs for record in run.measured])
        found["repetitions"] = {}
        bounds = Bounds(lag=self.settings.max_lag)
        reached = self._reached()
        for kind, loads in (("concurrency", self.concurrency), ("rates", self.rates)):
            rows: list[dict[str, Any]] = []
            found[kind] = rows
            for step in loads:
                if not step.runs:
                    continue
                row = steps.describe(step, self.sweep.slo, bounds, self._ceiling)
                row["energy"] = self._energy and self._energy.figures(step.runs)
                rows.append(row)
                if kind == "rates":
                    told = step.saturation(reached)
                    row["carried"] = None if told.carried is None else told.carried.as_dict()
                    row["saturated"], row["saturated_why"] = told.answer, told.why
                    row["settled"] = step.settled.settled if step.settled is not None else None
                else:
                    own = self._energy.repetitions(step.runs) if self._energy else {}
                    for name, values in {**step.repetitions(), **own}.items():
                        found["repetitions"][f"{name} at {plain(step.load)}"] = values
                found["problems"] += [
                    f"{kind} {plain(step.load)}, round {number}: {text}"
                    for number, text in row["problems"]
                ]
        found["energy"] = self._energy and self._energy.machine(runs)
        curve = [Estimate.from_dict(row["tokens_per_s"]) for row in found["concurrency"]]
        bend = knee([row["load"] for row in found["concurrency"]], curve)
        found["knee"] = {"load": bend.load, "tokens_per_s": bend.throughput, "why": bend.why}
        over = [row["load"] for row in found["rates"] if row["saturated"] == "yes"]
        under = [row["load"] for row in found["rates"] if row["saturated"] == "no"]
        found["saturation"] = {
            "from": min(over, default=None),
            "carried": max((r for r in under if not over or r < min(over)), default=None),
        }
        before = [run.warmup for step in (*self.concurrency, *self.rates) for run in step.runs]
        found["cautions"] += self._work.cautions(min(before, default=0.0))
        if self._few:
            words = ", ".join(plain(rate, 4) for rate in self._few)
            found["cautions"].append(
                f"{words} {self._work.moment}/s were not offered: of such a rate under {_FEW} come"
                " in the time of a load, and in some runs none (--seconds)"
            )
        found["cautions"] += self._cautions(found)

    def _cautions(self, found: dict[str, Any]) -> list[str]:
        told = []
        slots = self._about["slots"]
        if slots is not None and any(step.load > slots for step in self.concurrency):
            told.append(
                f"the upstream has {slots} slots: beyond that concurrency requests wait for one"
            )
        told += self._warmups(found)
        told += shared([self._about["address"]], document.cores())
        everything = [record for record in self.records() if not record.warmup]
        told += self.settings.request.shorter(everything)
        told += self._about.get("notes", [])
        return told + [
            text
            for text in cautions(everything, schedules.constant(1, 1))
            if not text.startswith("latency rose")  # of steps that do not follow each other
        ]

    def _warmups(self, found: dict[str, Any]) -> list[str]:
        """The loads that were not settled when they were measured, but for saturated ones."""
        short: list[tuple[str, float]] = []
        unsettled: list[str] = []
        over = {row["load"] for row in found["rates"] if row["saturated"] == "yes"}
        for kind, loads in (("concurrency", self.concurrency), ("rate", self.rates)):
            for step in loads:
                if not step.runs or (kind == "rate" and step.load in over):
                    continue
                longest, enough = step.longest(), self._warmup(step)
                if self.sweep.warmup is None:  # of many the slowest is slower than a pilot saw
                    enough *= 2
                if longest is not None and longest > enough:
                    short.append((f"{kind} {plain(step.load)}", longest))
                elif step.settled is not None and not step.settled.settled:
                    unsettled.append(f"{kind} {plain(step.load)}")
        told = []
        if short and self.sweep.warmup is not None:
            worst = max(seconds for _, seconds in short)
            told.append(
                f"the warm-up of {plain(self.sweep.warmup)} s is shorter than an answer (up to"
                f" {worst:.2f} s) at {', '.join(name for name, _ in short)}: fewer end in the"
                " window than come. Without --warmup it is as long as each load needs"
            )
        elif short:
            told.append(
                "some answers took more than twice as long as the warm-up at"
                f" {', '.join(name for name, _ in short)}"
            )
        if unsettled:
            told.append(
                f"the queue had not settled when the measurement began at {', '.join(unsettled)}:"
                " measured for longer, its latencies may be greater"
            )
        return told

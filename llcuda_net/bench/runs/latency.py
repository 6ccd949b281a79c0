"""What a user waits for: the same prompts over one path or two, in several whole runs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from llcuda_net.batch.record import DIRECT, GATEWAY, Record, measured
from llcuda_net.batch.targets.interface import PostProcess, Target
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.batch.targets.opening import Api
from llcuda_net.batch.targets.tokenizer import learn
from llcuda_net.bench.energy.account import Account
from llcuda_net.bench.report import document
from llcuda_net.bench.runs import warmup
from llcuda_net.bench.runs.once import Once, Say, once, self_test, silent
from llcuda_net.bench.runs.settings import Settings
from llcuda_net.bench.runs.warmup import Settled
from llcuda_net.bench.statistics.censored import longest
from llcuda_net.bench.statistics.estimates import student
from llcuda_net.bench.statistics.lengths import lengths, sessions
from llcuda_net.bench.statistics.objective import reached
from llcuda_net.bench.statistics.samples import of_records
from llcuda_net.bench.statistics.summary import (
    difference,
    distribution,
    headline,
    over_runs,
    summarise,
)
from llcuda_net.bench.workload import replays, schedules
from llcuda_net.bench.workload.fitting import Fitted, fit
from llcuda_net.bench.workload.generator import Generated
from llcuda_net.bench.workload.load import Plan
from llcuda_net.bench.workload.replays import Replay
from llcuda_net.bench.workload.schedules import Schedule
from llcuda_net.bench.workload.validity import Bounds, Ceiling, cautions, shared
from llcuda_net.config.upstreams import without_credentials
from llcuda_net.errors import ConfigError
from llcuda_net.util.numbers import plain

#: Added to the seed of a rehearsal: its moments are no measured run's.
_REHEARSAL = 1_000_003
#: Seconds at the start of a rehearsal in which its queue may grow.
_BEFORE = 2.0
#: Numbers of different repetitions must differ, so that pairs are not mixed up.
_APART = 10_000_000
#: The word for the upstream that was started, in place of an address.
STARTED = "started"


@dataclass(frozen=True, slots=True)
class Direct:
    """The second path: another server that gets the same prompts.

    Attributes:
        server: its address, or STARTED.
        api, model: see `open_target`.
        api_key: of it alone, where it asks for one.
    """

    server: str
    api: Api = "auto"
    model: str | None = None
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """When to ask.

    Attributes:
        rate: requests/s; None: a closed loop.
        arrivals: one of `schedules.KINDS`; None: poisson with a rate, else closed.
        concurrency: workers of a closed loop.
        seconds: of measuring.
        warmup: seconds before it; None: as long as the load needs to settle, see `runs.warmup`.
        requests: end after so many.
        repeats: of the whole run, each with a schedule of its own. With two or more, another run
            goes before them, a rehearsal that is not measured: it tells how long the server's
            queue remembers, see `statistics.repeats`.
        slo: the objective: bounds in seconds by metric.
    """

    rate: float | None = None
    arrivals: str | None = None
    concurrency: int = 1
    seconds: float = 20.0
    warmup: float | None = None
    requests: int | None = None
    repeats: int = 5
    slo: dict[str, float] | None = None

    def schedule(self, seed: int, warmup: float) -> Schedule:
        """The moments of one repetition, with so many seconds of warm-up.

        Raises:
            ConfigError: there is no such schedule.
        """
        found = schedules.parse(
            self.arrivals or ("poisson" if self.rate is not None else "closed"),
            rate=self.rate,
            concurrency=self.concurrency,
            seconds=warmup + self.seconds,
            seed=seed,
        )
        return self.checked(found, warmup)

    def checked(self, found: Schedule, warmup: float) -> Schedule:
        """The schedule, if any of it is measured.

        Raises:
            ConfigError: none is.
        """
        if found.moments is not None and found.moments[-1] < warmup:
            raise ConfigError(
                f"all {len(found.moments)} requests fall into the warm-up of {plain(warmup)}"
                " s: give more time, or a higher rate"
            )
        return found


class LatencyBench:
    """The whole measurement.

    Args:
        say: takes a line that says how far it has come.

    Attributes:
        runs: the complete ones; fills as it goes on.
        rehearsal: the run before them; None: there is none yet, or one repeat only.

    Raises:
        ConfigError: the prompts or the schedule are wrong.
    """

    def __init__(
        self, settings: Settings, load: Load, direct: Direct | None = None, say: Say = silent
    ) -> None:
        self.settings = settings
        self.load = load
        self.runs: list[Once] = []
        self.rehearsal: Once | None = None
        self._direct = direct
        self._say = say
        self._work = Fitted(settings.request.what.work())
        self._settled = Settled(0.0 if load.warmup is None else load.warmup)
        self._schedule = self._moments(settings.request.seed)
        self._about: dict[str, dict[str, Any]] = {}
        self._ceiling: Ceiling | None = None
        self._chat = False
        self._post = ""
        self._energy: Account | None = None

    def __repr__(self) -> str:
        return (
            f"<LatencyBench of {list(self._about)}, {len(self.runs)} of {self.load.repeats} runs>"
        )

    def as_dict(self) -> dict[str, Any]:
        """For a document: what runs must have in common to be compared."""
        return {
            "schedule": self._schedule.as_dict(),
            "warmup": self.load.warmup,
            "iters": self.load.requests,
            "direct": self._direct is not None,
            "slo": self.load.slo,
            **self.settings.as_dict(),
        }

    async def run(self) -> None:
        """Connect, test this client, and measure.

        Raises:
            ConnectError, RequestError: a server is not there.
            LlcudaError: what is to be measured did not start.
        """
        settings, direct = self.settings, self._direct
        async with AsyncExitStack() as cleanup:
            stack = await cleanup.enter_async_context(settings.running())
            targets: dict[str, Target] = {}
            access = settings.with_key(stack.api_key)
            server = await cleanup.enter_async_context(access.open(stack.server))
            targets[await self._introduce(stack.server, server)] = server
            if direct is not None:
                # The key of what was started is for it, and for no other server.
                access = replace(settings.access, api_key=direct.api_key)
                address = direct.server
                if direct.server == STARTED and stack.upstream is not None:
                    access, address = settings.with_key(stack.api_key), stack.upstream
                access = replace(access, api=direct.api, model=direct.model)
                targets[DIRECT] = await cleanup.enter_async_context(access.open(address))
                await self._introduce(address, targets[DIRECT], DIRECT)
            # A chat API knows nothing but chats: then both paths get the same chat.
            self._chat = any(isinstance(each, OpenAITarget) for each in targets.values())
            contexts = [about["context"] for about in self._about.values() if about["context"]]
            self._work = await fit(
                self._work.work, targets.values(), min(contexts, default=None), chat=self._chat
            )
            after, self._post = settings.kernels.prepare()
            addresses = [about["address"] for about in self._about.values()]
            self._energy = await cleanup.enter_async_context(settings.energy.account(addresses))
            await self._energy.idle()
            if settings.self_test:
                self._ceiling = await self_test(self._plan(0), targets, self._say)
            await self._rehearse(targets, after)
            for repeat in range(self.load.repeats):
                label = f"run {repeat + 1} of {self.load.repeats}:"
                plan = self._plan(repeat)
                found = await once(plan, targets, after=after, say=self._say, label=label)
                for record in found.records:
                    record.number += repeat * _APART
                    record.session = None if record.session is None else record.number
                self.runs.append(found)
            for path, target in targets.items():
                await learn(target, self._about[path], settings.tokenizer)

    async def _introduce(self, address: str, target: Target, path: str = "") -> str:
        """Note what a server says of itself; returns what the way to it is called."""
        about = await target.about()
        path = path or about.path
        self._about[path] = {"address": without_credentials(address), **about.as_dict()}
        return path

    def _moments(self, seed: int) -> Schedule:
        """When a repetition asks; a trace is the same for all of them."""
        work, window = self._work.work, self.settings.request.trace
        if not isinstance(work, Replay) or window is None:
            return self.load.schedule(seed, self._settled.warmup)
        whole = None if window.seconds is None else window.seconds / window.speed
        found = replays.schedule(
            work.trace, window.speed, whole or self._settled.warmup + self.load.seconds
        )
        return self.load.checked(found, self._settled.warmup)

    async def _rehearse(self, targets: dict[str, Target], after: PostProcess | None) -> None:
        """A run that is not measured: how long the load needs to settle, and what it remembers."""
        load, single = self.load, list[float]()
        if load.warmup is None:
            single = await warmup.alone(self._plan(_REHEARSAL), targets, say=self._say)
            if load.repeats == 1:
                self._settled = await warmup.settle(
                    self._pilot, targets, single, most=self._most, say=self._say
                )
            else:
                self._settled = Settled(min(_BEFORE, load.seconds / 4))
        if load.repeats > 1:
            plan = self._plan(_REHEARSAL)
            self.rehearsal = run = await once(
                plan, targets, after=after, say=self._say, label="rehearsal:"
            )
            if load.warmup is None:
                self._settled = warmup.rehearsed(run.records, single, run.end, most=self._most)
        self._schedule = self._moments(self.settings.request.seed)

    @property
    def _most(self) -> float:
        """Seconds of warm-up for a queue to settle: more than are measured are too many."""
        return max(warmup.LEAST, min(warmup.MOST, self.load.seconds))

    def _pilot(self, seconds: float) -> Plan:
        plan = replace(self._plan(_REHEARSAL), warmup=0.0)
        if self.settings.request.trace is not None:
            return plan
        moments = replace(self.load, seconds=seconds).schedule(plan.seed, 0.0)
        return replace(plan, schedule=moments)

    def _plan(self, repeat: int) -> Plan:
        """What a repetition sends: the same prompts, at moments of its own."""
        request = self.settings.request
        schedule = self._moments(request.seed + repeat)
        return Plan(
            schedule=schedule,
            prompts=self._work.work.for_run(repeat),
            params=request.params,
            timeout=request.timeout,
            warmup=self._settled.warmup,
            cooldown=max(self._settled.warmup, self._settled.answer) if schedule.steady else 0.0,
            requests=self.load.requests,
            seed=request.seed + repeat,
            chat=self._chat,
        )

    def records(self) -> list[Record]:
        """Every request of the complete runs, those of their warm-up, too."""
        return [record for run in self.runs for record in run.records]

    # -- the figures --------------------------------------------------------------------------

    def figures(self, found: dict[str, Any]) -> None:
        """Fill the document with what the runs gave."""
        both = DIRECT in self._about
        repeats = [run.measured for run in self.runs]
        before = [] if self.rehearsal is None else self.rehearsal.measured
        found["schedule"] = self._schedule.describe(sessions=self._work.turns > 1)
        if self._work.as_dict() is not None:
            found["schedule"] += f" of {self._work.work.described}"
        if both:
            found["schedule"] += " over both ways together"
        found["paths"] = {
            path: {
                "about": about,
                **summarise(
                    [measured(repeat, path) for repeat in repeats],
                    rehearsal=measured(before, path),
                ),
            }
            for path, about in self._about.items()
        }
        found["repetitions"] = self._repetitions()
        found["workload"] = self._work.as_dict()
        found["lengths"] = lengths([record for repeat in repeats for record in repeat])
        found["sessions"] = sessions(self.records(), repeats)
        if both:
            found["cost"] = {
                metric: difference(repeats, metric)
                for metric in ("service_ttft", "tpot", "service")
            }
        found["warmup"] = self._settled.warmup
        found["settled"] = None if self.load.warmup is not None else self._settled.settled
        found["rates"] = [run.rates() for run in self.runs]
        found["texts_per_s"] = self._texts(found["rates"])
        found["carried"] = over_runs(found["rates"])
        found["timeline"] = [
            [round(record.intended, 4), round(record.latency * 1e3, 3), record.path, number]
            for number, run in enumerate(self.runs)
            for record in run.measured
            if record.done
        ]
        ceiling = self._ceiling
        found["client"] = {
            "lag": distribution([of_records(repeat, "lag") for repeat in repeats]),
            "cpu_share": [run.cpu_share for run in self.runs],
            "self_test": None if ceiling is None else ceiling.as_dict(),
        }
        found["post"] = self._post
        found["slo"] = self._objective()
        found["energy"] = None
        if self._energy is not None and (machine := self._energy.machine(self.runs)) is not None:
            found["energy"] = {**machine, "figures": self._energy.figures(self.runs)}
            found["repetitions"].update(self._energy.repetitions(self.runs))
        self._judge(found)

    def _texts(self, runs: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Texts embedded per second, by the runs; None where answers are generated."""
        work = self._work.work
        if not isinstance(work, Generated) or work.workload.answer is not None:
            return None
        each = [run["requests_per_s"]["value"] * work.workload.texts for run in runs]
        found = student(each)
        return None if found is None else found.as_dict()

    def _objective(self) -> dict[str, Any] | None:
        """How far the objective was reached, over the server itself."""
        slo = self.load.slo
        if not slo:
            return None
        runs = [
            ([record for record in run.records if record.path != DIRECT], run.begin, run.end)
            for run in self.runs
        ]
        return {"bounds": slo, **reached(runs, slo)}

    def _repetitions(self) -> dict[str, list[float]]:
        """One value per run of each figure that all runs have."""
        repetitions: dict[str, list[float]] = {}
        for path in self._about:
            for run in self.runs:
                own = measured(run.records, path)
                for name, value in headline(own).items():
                    key = f"{name}, direct" if path == DIRECT else name
                    repetitions.setdefault(key, []).append(value)
        return {k: values for k, values in repetitions.items() if len(values) == len(self.runs)}

    def _judge(self, found: dict[str, Any]) -> None:
        """What makes the figures invalid, and what their reader must know."""
        bounds = Bounds(lag=self.settings.max_lag)
        everything = [record for run in self.runs for record in run.measured]
        for number, run in enumerate(self.runs, 1):
            found["problems"] += [
                f"run {number}: {text}" for text in run.problems(bounds, self._ceiling)
            ]
        addresses = [about["address"] for about in self._about.values()]
        found["cautions"] += shared(addresses, document.cores())
        found["cautions"] += cautions(everything, self._schedule)
        found["cautions"] += self._work.cautions(self._settled.warmup)
        for path, about in self._about.items():
            own = [record for record in everything if record.path == path]
            notes = self.settings.request.shorter(own) + about.get("notes", [])
            found["cautions"] += [f"{path}: {text}" for text in notes]
        slow, before = longest(everything), self.load.warmup
        if slow is not None and before is not None and slow > before:
            found["cautions"].append(
                f"the warm-up of {plain(before)} s is shorter than an answer (up to {slow:.2f} s):"
                " the first of them come from a server that was idle. Without --warmup it is as"
                " long as the load needs"
            )
        if not self._settled.settled:
            found["cautions"].append(
                f"the load had not settled after {plain(self._settled.warmup, 1)} s of warm-up: its"
                " queue grows while it is measured, and a longer run gives more"
            )
        if not self.settings.request.cache_prompt:
            found["cautions"] += [
                f"{path}: {summary['cached_tokens']:,} of {summary['prompt_tokens']:,} tokens of"
                " prompts came from the server's cache; those of --prompts synthetic share nothing"
                for path, summary in found["paths"].items()
                if summary["cached_tokens"]
            ]
        if {GATEWAY, DIRECT} <= self._about.keys() and self.load.rate is not None:
            found["cautions"].append(
                "direct requests take slots that llcuda-server does not know to be taken:"
                " compare the two ways at a rate that leaves slots free"
            )

"""One run of a plan with everything that judges it, and the client's self-test."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import trio

from llcuda_net.batch.record import Record, measured
from llcuda_net.batch.targets.interface import PostProcess, Target
from llcuda_net.batch.targets.llama import LlamaTarget
from llcuda_net.batch.targets.openai import OpenAITarget
from llcuda_net.batch.targets.opening import open_target
from llcuda_net.bench.noop.server import COMMAND
from llcuda_net.bench.runs.stack import listening
from llcuda_net.bench.statistics.summary import rates
from llcuda_net.bench.workload.load import LEAD, Plan, Run
from llcuda_net.bench.workload.prompts import Prompts
from llcuda_net.bench.workload.schedules import Schedule, closed
from llcuda_net.bench.workload.validity import Bounds, Ceiling, lag_p99, problems

#: Seconds of each part of the self-test, and its workers where it goes as fast as it can.
SELF_TEST = 1.5
SELF_TEST_WORKERS = 32


#: Takes a line that says how far a run has come.
Say = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


@dataclass(slots=True)
class Once:
    """What one run gave.

    Attributes:
        cpu_share: of a core, that this process took in the window.
        begin, end: of the measuring window, seconds since the run's start.
        started: the trio time of the first moment.
    """

    records: list[Record]
    schedule: Schedule
    warmup: float
    seconds: float
    cpu_share: float
    begin: float
    end: float
    started: float = 0.0

    @property
    def measured(self) -> list[Record]:
        """The records after the warm-up."""
        return measured(self.records)

    def rates(self) -> dict[str, Any]:
        """Tokens/s and requests/s of the window: see `summary.rates`."""
        return rates(self.records, self.begin, self.end, closed=self.schedule.closed)

    def problems(self, bounds: Bounds, ceiling: Ceiling | None) -> list[str]:
        """Why it does not count."""
        tokens = None
        if self.end > self.begin:
            tokens = self.rates()["tokens_per_s"]["value"]
        return problems(
            self.records,
            self.schedule,
            warmup=self.warmup,
            cpu_share=self.cpu_share,
            bounds=bounds,
            ceiling=ceiling,
            tokens_per_s=tokens,
        )


async def once(
    plan: Plan,
    targets: dict[str, Target],
    *,
    after: PostProcess | None = None,
    say: Say = silent,
    label: str = "",
    start: float | None = None,
) -> Once:
    """Run a plan.

    Args:
        say: called a few times per second with how far it has come.
        start: the trio time of its first moment; None: at once.
    """
    run = Run(plan, targets, after=after)
    started = trio.current_time() + LEAD if start is None else start
    #: Processor and wall clock at the window's begin; then, of what is between, its end.
    clocks: list[tuple[float, float]] = []

    async def watch() -> None:
        for moment in (plan.warmup, plan.schedule.seconds):
            await trio.sleep_until(started + moment)
            clocks.append((time.process_time(), time.monotonic()))

    async def report() -> None:
        while True:
            say(f"{label} {_state(run)}")
            await trio.sleep(0.25)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(report)
        await run.run(started)
        nursery.cancel_scope.cancel()
    ended = (time.process_time(), time.monotonic())
    (cpu, wall), (cpu_end, wall_end) = [*clocks, ended, ended][:2]
    share = (cpu_end - cpu) / max(1e-9, wall_end - wall)
    return Once(
        run.records,
        plan.schedule,
        plan.warmup,
        run.seconds,
        share,
        plan.warmup,
        run.until,
        started,
    )


def _state(run: Run) -> str:
    """How far a run has come, in words."""
    at, plan = run.now(), run.plan
    text = f"{min(max(0.0, at), plan.schedule.seconds):.0f} of {plan.schedule.seconds:.0f} s,"
    if at < plan.warmup:
        return f"{text} warm-up"
    text = f"{text} {sum(record.done for record in run.records)} answers"
    if at < plan.schedule.seconds:
        return text
    return f"{text}, waiting for {sum(math.isnan(record.ended) for record in run.records)} more"


async def self_test(
    plan: Plan, targets: dict[str, Target], say: Say = silent, *, paced: bool = True
) -> Ceiling:
    """What this client can do against a server that does nothing, and speaks as the targets do.

    First as fast as it can, then as the plan will have it, for a moment.

    Args:
        targets: what is measured, by path; the server that does nothing stands in for each.
        paced: False: the second part is left out, and `ttft` and `lag` are not measured.

    Raises:
        LlcudaError: that server did not start.
    """
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(COMMAND, "the no-op server"))
        paths: dict[str, Target] = {}
        for path, target in targets.items():
            paths[path] = await stack.enter_async_context(_alike(target, address))
        prompts = Prompts(["nothing"], "nothing")
        fast = replace(
            plan,
            schedule=closed(SELF_TEST_WORKERS, SELF_TEST),
            prompts=prompts,
            warmup=SELF_TEST / 3,
            requests=None,
            drain=0.0,
        )
        full = await once(fast, paths, say=say, label="self-test, saturated:")
        found = full.rates()
        firsts: list[float] = []
        lag = None
        if paced:
            calm = replace(
                plan, schedule=_briefly(plan), prompts=prompts, warmup=0.1, requests=None
            )
            slow = await once(calm, paths, say=say, label="self-test, paced:")
            lag = lag_p99(slow.measured)
            firsts = [r.service_ttft for r in slow.records if r.done and r.service_ttft is not None]
    return Ceiling(
        requests=found["requests_per_s"]["value"],
        tokens=found["tokens_per_s"]["value"],
        ttft=statistics.median(firsts) if firsts else None,
        lag=lag,
        cpu_share=full.cpu_share,
    )


def _alike(target: Target, address: str) -> AbstractAsyncContextManager[Target]:
    """The server that does nothing, asked by the same protocol."""
    if isinstance(target, OpenAITarget):
        return open_target(f"http://{address}", api="openai")
    if isinstance(target, LlamaTarget):
        return open_target(f"http://{address}", api="llama")
    return open_target(address)


def _briefly(plan: Plan) -> Schedule:
    """The beginning of a plan's schedule."""
    schedule = plan.schedule
    if schedule.moments is None:
        return closed(1, SELF_TEST)
    until = plan.warmup + 2 * SELF_TEST
    moments = tuple(m for m in schedule.moments if m < until)
    return replace(schedule, moments=moments, seconds=min(schedule.seconds, until))

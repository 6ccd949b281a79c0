"""Whole records of servers of which every time is known, without waiting for any."""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer, Target
from llcuda_net.bench.record.requests import Part, parts_of
from llcuda_net.bench.record.sent import sent
from llcuda_net.bench.report import document
from llcuda_net.bench.runs.latency import LatencyBench, Load
from llcuda_net.bench.runs.once import Once
from llcuda_net.bench.runs.settings import Access, Kernels, Request, Settings
from llcuda_net.bench.runs.throughput import Sweep, ThroughputBench
from llcuda_net.cli.bench.tool import finish
from tests.support.bench_targets import Fake


class Noisy(Fake):
    """Its times are not the same each time, and slower in all by `factor`."""

    def __init__(self, seed: int, factor: float = 1.0) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._factor = factor

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Callable[[], float],
        **more: Any,
    ) -> Answer:
        self.first = self._factor * 0.010 * self._random.lognormvariate(0, 0.2)
        self.step = self._factor * 0.001 * self._random.lognormvariate(0, 0.2)
        return await super().ask(prompt, params, record, now, **more)


class _Access(Access):
    """Opens the one server there is."""

    target: Fake

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Target]:
        await trio.lowlevel.checkpoint()
        yield self.target

    def open(self, server: str, **more: Any) -> Any:
        return self._open()


def settings(target: Fake, server: str = "127.0.0.1:1") -> Settings:
    """What a measurement of it is asked to do."""
    access = _Access()
    _Access.target = target
    return Settings(server, access, None, Request(max_tokens=5), Kernels(), 30.0, self_test=False)


def latency(
    folder: Path, name: str, *, seed: int = 1, factor: float = 1.0, repeats: int = 5, **more: Any
) -> Path:
    """A record of a latency, and FILE.jsonl beside it."""
    target = Noisy(seed, factor)
    load = Load(rate=40.0, seconds=3.0, warmup=0.5, repeats=repeats)
    bench = LatencyBench(settings(target, more.pop("server", "127.0.0.1:1")), load)
    trio.run(bench.run, clock=MockClock(autojump_threshold=0))
    before = [] if bench.rehearsal is None else [bench.rehearsal]
    parts = [*parts_of("rehearsal", None, before), *parts_of("run", None, bench.runs)]
    return write(bench, "latency", parts, folder / name, **more)


def throughput(folder: Path, name: str, *, seed: int = 1, factor: float = 1.0) -> Path:
    """A record of a throughput, and FILE.jsonl beside it."""
    sweep = Sweep((1, 2, 4, 8), (20.0, 40.0), 1.0, 0.2, 3, {"ttft": 0.05})
    bench = ThroughputBench(settings(Noisy(seed, factor)), sweep)
    trio.run(bench.run, clock=MockClock(autojump_threshold=0))
    parts = [
        part
        for kind, steps in (("concurrency", bench.concurrency), ("rates", bench.rates))
        for step in steps
        for part in parts_of(kind, step.load, step.runs)
    ]
    return write(bench, "throughput", parts, folder / name)


def _runs(bench: LatencyBench | ThroughputBench) -> list[Once]:
    if isinstance(bench, LatencyBench):
        return bench.runs
    return [run for step in (*bench.concurrency, *bench.rates) for run in step.runs]


def write(
    bench: LatencyBench | ThroughputBench,
    kind: str,
    parts: list[Part],
    file: Path,
    *,
    argv: tuple[str, ...] = (),
    requests: str = ".jsonl",
    note: str | None = None,
) -> Path:
    """What a command does at its end, without a table."""
    what = sent(bench.settings.request)
    found = document.begin(f"llcuda bench {kind}", argv, 1, bench.as_dict(), sent=what)
    found["machine"]["processor"] = "a processor"
    # With a clock that jumps, the share is of no time: any is right but one that is out of bounds.
    for run in _runs(bench):
        run.cpu_share = 0.1
    found["source"] = {"commit": "0" * 40, "modified": False, "unknown": {}}
    bench.figures(found)
    args = Namespace(
        json=file, html=None, requests=file.with_suffix(requests), note=note, max_lag=30.0
    )
    finish(found, [], str, args, None, parts)
    return file

"""Whole documents of measurements on a clock of their own: of servers, meters and prices known."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
from trio.testing import MockClock

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import About, Answer, Target
from llcuda_net.bench.energy.account import Account, Wanted
from llcuda_net.bench.energy.meters import Missing
from llcuda_net.bench.energy.money import Prices
from llcuda_net.bench.energy.sampler import Sampler, reading
from llcuda_net.bench.report import document
from llcuda_net.bench.runs.latency import Direct, LatencyBench, Load
from llcuda_net.bench.runs.settings import Access, Kernels, Request, Settings
from llcuda_net.bench.runs.throughput import Sweep, ThroughputBench
from tests.support.bench_targets import Fake


class Lively(Fake):
    """Eight slots; answers of 8 to 40 tokens, slower the more are served at once."""

    def __init__(self, seed: int = 1, first: float = 0.030, step: float = 0.004) -> None:
        super().__init__(first)
        self._random = random.Random(seed)
        self._slots = trio.CapacityLimiter(8)
        self._step = step

    async def about(self) -> About:
        await trio.lowlevel.checkpoint()
        return About("model-7b.gguf", 8, "llcuda-server 1.0")

    async def ask(self, prompt: Any, params: Any, record: Record, now: Any, **more: Any) -> Answer:
        record.sent = now()
        async with self._slots:
            self.active += 1
            try:
                await trio.sleep(self.first * self._random.uniform(0.8, 1.6))
                for _ in range(self._random.randint(8, 40)):
                    record.chunks.append(now())
                    await trio.sleep(self._step * (1 + 0.12 * self.active))
            finally:
                self.active -= 1
        record.tokens = len(record.chunks)
        record.prompt_tokens = self._random.randint(20, 400)
        record.wanted_prompt, record.wanted_tokens = record.prompt_tokens, 24
        record.phases = {"queue": 1.0, "prompt": 12.0, "first_token": 30.0, "generation": 120.0}
        return Answer("text", "length", "fake", f"g{record.number}")


class Lamp:
    """A GPU that takes 80 W, and 25 W for each request that is served."""

    name, kind, method, blocks = "GPU 0, NVIDIA Test", "gpu", "energy counter", False

    def __init__(self, *servers: Fake) -> None:
        self._servers = servers
        self._last, self._sum = trio.current_time(), 0.0

    def joules(self, now: float) -> float:
        watts = 80 + 25 * sum(server.active for server in self._servers)
        self._sum += watts * (now - self._last)
        self._last = now
        return self._sum


@dataclass(frozen=True, slots=True)
class Asked(Wanted):
    """Reads a Lamp."""

    servers: Sequence[Fake] = ()

    @asynccontextmanager
    async def account(self, addresses: Sequence[str]) -> AsyncIterator[Account]:
        sampler = Sampler([Lamp(*self.servers)], [Missing("cpu", "no counter")])
        async with reading(sampler):
            yield Account(sampler, self.prices)


@dataclass(frozen=True, slots=True)
class Given(Access):
    """Opens one of the servers that it was given, by address."""

    servers: Any = None

    @asynccontextmanager
    async def _open(self, server: str) -> AsyncIterator[Target]:
        await trio.lowlevel.checkpoint()
        yield self.servers[server]

    def open(self, server: str) -> Any:
        return self._open(server)


def settings(seed: int, **servers: Fake) -> Settings:
    """Of a measurement of the servers; the first is `a`."""
    prices = Prices.parse("0.30 EUR/kWh", "2.50 EUR")
    asked = Asked(True, prices, tuple(servers.values()))
    access = Given(servers=servers)
    request = Request(max_tokens=24, seed=seed)
    return Settings("a", access, None, request, Kernels(), 30.0, self_test=False, energy=asked)


def throughput(seed: int = 1, *, first: float = 0.030, rounds: int = 5) -> dict[str, Any]:
    """A sweep over concurrency and rates."""

    async def measure() -> dict[str, Any]:
        slo = {"ttft": 0.080, "tpot": 0.007}
        sweep = Sweep((1, 2, 4, 8, 16), (10.0, 25.0, 40.0), 5.0, 1.0, rounds=rounds, slo=slo)
        bench = ThroughputBench(settings(seed, a=Lively(seed, first)), sweep)
        await bench.run()
        return _document("throughput", bench)

    return trio.run(measure, clock=MockClock(autojump_threshold=0))


def latency(seed: int = 1, *, first: float = 0.030, direct: bool = True) -> dict[str, Any]:
    """Of one server, and of another beside it."""

    async def measure() -> dict[str, Any]:
        slo = {"ttft": 0.080, "latency": 0.5}
        load = Load(rate=10.0, seconds=30.0, warmup=2.0, repeats=5, slo=slo)
        servers = {"a": Lively(seed, first), "b": Lively(seed + 1, 0.02)}
        other = Direct("b") if direct else None
        bench = LatencyBench(settings(seed, **servers), load, other)
        await bench.run()
        return _document("latency", bench)

    return trio.run(measure, clock=MockClock(autojump_threshold=0))


def _document(name: str, bench: Any) -> dict[str, Any]:
    argv = ["--target", "127.0.0.1:9000", "--slo", "ttft=80ms"]
    found = document.begin(f"llcuda bench {name}", argv, 1, bench.as_dict())
    found["when"] = "2026-11-28T12:00:00+00:00"
    bench.figures(found)
    return found

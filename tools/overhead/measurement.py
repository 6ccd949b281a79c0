"""One measurement: N streams through one path, at a rate or saturated, and what that cost."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tools.load.loop import LoadLoop
from tools.load.streams import Connection, LoadError, Recorder, Request

from .processes import Child
from .stats import percentile
from .usage import Usage, machine_cpu

#: Tokens of a stream: more than can arrive. Streams end with their connections.
ENDLESS = 1_000_000_000
#: Seconds for all streams to flow, and for the last probe to be answered.
PATIENCE = 30.0
#: Cores that other processes may take, above which a run is not of a quiet machine.
QUIET = 0.25
#: Longest pause between two probes in seconds; random, so that they meet every phase of the ticks.
PROBE_PAUSE = 0.02
#: Most of a core that the load or the upstream may take where the server is to be measured, and
#: most that both may take together where they share one.
BUSY = 0.85
#: Least share of the requested rate that must arrive.
DELIVERED = 0.97


@dataclass(frozen=True, slots=True)
class Path:
    """A way to the upstream: `proxy` is the process in between, None for the direct way."""

    name: str
    address: tuple[str, int]
    client: type[Connection]
    upstream: Child
    proxy: Child | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much. Times in seconds, rate in tokens/s per stream.

    Attributes:
        shared: the load and the upstream share one core.
    """

    streams: int
    rate: float
    seconds: float
    warmup: float
    probing: float
    seed: int
    shared: bool = False


@dataclass(slots=True)
class Run:
    """The findings of one measurement; problems make it invalid.

    Attributes:
        path: the way's name.
        busy: others took the machine's time, so that it is worth another try.
    """

    path: str
    arrivals: str
    repeat: int
    figures: dict[str, float | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    busy: bool = False
    delays_ms: list[float] = field(default_factory=list)
    ttft_ms: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the samples."""
        return {
            "path": self.path,
            "arrivals": self.arrivals,
            "repeat": self.repeat,
            **self.figures,
            "samples": {"delays": len(self.delays_ms), "ttft": len(self.ttft_ms)},
            "problems": self.problems,
        }


class _Window:
    """CPU and tokens between two moments."""

    def __init__(self, path: Path, recorder: Recorder) -> None:
        self._path, self._recorder = path, recorder
        self._begin = self._now()

    def _now(self) -> tuple[float, float, float, Usage, Usage, int, int]:
        none = Usage()
        proxy = self._path.proxy.usage() if self._path.proxy else none
        upstream = self._path.upstream.usage()
        counts = (self._recorder.tokens, self._recorder.reads)
        own = time.process_time()
        return (time.monotonic(), own, machine_cpu(), proxy, upstream, *counts)

    def figures(self) -> dict[str, float | None]:
        """Rates and shares of a core since the beginning."""
        t0, own0, all0, proxy0, upstream0, tokens0, reads0 = self._begin
        t1, own1, all1, proxy1, upstream1, tokens1, reads1 = self._now()
        seconds, tokens = t1 - t0, tokens1 - tokens0
        ours = own1 - own0 + upstream1.cpu - upstream0.cpu + proxy1.cpu - proxy0.cpu
        figures: dict[str, float | None] = {
            "seconds": seconds,
            "tokens": tokens,
            "tokens_per_s": tokens / seconds,
            "tokens_per_read": tokens / max(1, reads1 - reads0),
            "load_cpu_share": (own1 - own0) / seconds,
            "upstream_cpu_share": (upstream1.cpu - upstream0.cpu) / seconds,
            "others_cpu_share": max(0.0, (all1 - all0 - ours) / seconds),
        }
        if self._path.proxy is not None:
            cpu = proxy1.cpu - proxy0.cpu
            figures["cpu_share"] = cpu / seconds
            main = proxy1.main_cpu - proxy0.main_cpu
            figures["cpu_us_per_token"] = cpu * 1e6 / tokens if tokens else None
            figures["main_cpu_us_per_token"] = main * 1e6 / tokens if tokens else None
            figures["wakeups_per_s"] = proxy1.wakeups(proxy0) / seconds
            figures["main_wakeups_per_s"] = proxy1.wakeups(proxy0, main=True) / seconds
            figures["peak_memory_mib"] = proxy1.peak_bytes / 2**20
        return figures


@contextmanager
def _connections(
    path: Path, count: int, recorder: Recorder, paced: bool
) -> Iterator[tuple[LoadLoop, list[Connection]]]:
    """So many connections in a loop, all closed at the end; no garbage collection meanwhile."""
    loop = LoadLoop()
    connections: list[Connection] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            connections.append(path.client(path.address, recorder, paced))
            loop.add(connections[-1])
        yield loop, connections
    except OSError as error:
        raise LoadError(f"{path.name}: {error}") from None
    finally:
        loop.close()
        gc.enable()


def paced(path: Path, plan: Plan, arrivals: str, repeat: int) -> Run:
    """Every stream at the plan's rate: CPU and delays first, then, under that load, probes.

    The probes have a window of their own, because a request costs the server more than a token.
    """
    run, recorder = Run(path.name, arrivals, repeat), Recorder()
    try:
        with _connections(path, plan.streams + 1, recorder, True) as (loop, (probe, *others)):
            idle = _Window(path, recorder)
            loop.run(min(1.0, plan.warmup))
            idle_share = idle.figures().get("cpu_share")
            _flow(loop, others, plan, repeat)
            window = _Window(path, recorder)
            recorder.recording = True
            loop.run(plan.seconds)
            recorder.recording = False
            run.figures = window.figures()
            run.figures["idle_cpu_share"] = idle_share
            last = _probe(loop, probe, run, plan)
            loop.run(PATIENCE, lambda: -1 if last.ended else 0.1)
            if not last.ended:
                run.problems.append("the last probe was not answered")
    except LoadError as error:
        run.problems.append(str(error))
    run.delays_ms = [delay / 1e6 for delay in recorder.delays_ns]
    run.figures["delay_ms_p50"] = percentile(run.delays_ms, 0.5)
    run.figures["delay_ms_p99"] = percentile(run.delays_ms, 0.99)
    run.figures["ttft_ms_p50"] = percentile(run.ttft_ms, 0.5)
    for name in ("wakeups", "main_wakeups"):
        # A decode step is a token of every stream at once; spread, each token is a step.
        steps = plan.rate * (1 if arrivals == "synchronised" else plan.streams)
        if (wakeups := run.figures.pop(f"{name}_per_s", None)) is not None:
            run.figures[f"{name}_per_step"] = wakeups / steps
    _judge(run, plan)
    return run


def _flow(loop: LoadLoop, connections: list[Connection], plan: Plan, repeat: int) -> list[Request]:
    """Begin an endless stream on each connection; back when all flow and the warm-up is over.

    Raises:
        LoadError: not all began in time.
    """
    requests = [
        connection.ask(f"stream {number} of run {repeat}", ENDLESS)
        for number, connection in enumerate(connections)
    ]
    # A chat begins with a request for its prompt, which may meet a busy upstream.
    loop.run(PATIENCE, lambda: -1 if all(request.count for request in requests) else 0.02)
    if missing := sum(not request.count for request in requests):
        raise LoadError(f"{missing} streams got no token in {PATIENCE:g} s")
    loop.run(plan.warmup)
    return requests


def _probe(loop: LoadLoop, connection: Connection, run: Run, plan: Plan) -> Request:
    """Ask for one token again and again, each time at a random moment; the last request."""
    chance = random.Random(f"{plan.seed} {run.repeat}")
    number = 1
    due = 0.0
    request: Request | None = connection.ask(f"probe 1 of run {run.repeat}", 1)
    last = request

    def step() -> float | None:
        nonlocal number, due, request, last
        now = time.monotonic()
        if request is not None:
            if not request.ended:
                return None
            run.ttft_ms.append((request.first_ns - request.started_ns) / 1e6)
            request = None
            due = now + chance.random() * PROBE_PAUSE
        if now < due:
            return due - now
        number += 1
        request = last = connection.ask(f"probe {number} of run {run.repeat}", 1)
        return None

    loop.run(plan.probing, step)
    assert last is not None
    return last


def saturated(path: Path, plan: Plan, repeat: int) -> Run:
    """Every stream as fast as it is read; the connections are closed in the middle of it."""
    run, recorder = Run(path.name, "saturated", repeat), Recorder()
    try:
        with _connections(path, plan.streams, recorder, False) as (loop, connections):
            requests = _flow(loop, connections, plan, repeat)
            window = _Window(path, recorder)
            loop.run(plan.seconds)
            run.figures = window.figures()
            if any(request.ended for request in requests):
                run.problems.append("a stream ended before the measurement did")
    except LoadError as error:
        run.problems.append(str(error))
    if not run.figures.get("tokens"):
        run.problems.append("no token arrived")
    _judge_quiet(run)
    return run


def _judge_quiet(run: Run) -> None:
    """Note whether others took the machine's time."""
    others = run.figures.get("others_cpu_share") or 0.0
    if others > QUIET:
        run.busy = True
        run.problems.append(f"a busy machine: other processes took {others:.2f} cores")


def _judge(run: Run, plan: Plan) -> None:
    """Note whether something else than the proxy limited a paced run, which makes it invalid."""
    asked = plan.streams * plan.rate
    if (got := run.figures.get("tokens_per_s") or 0.0) < DELIVERED * asked:
        run.problems.append(f"{got:.0f} tokens/s arrived of {asked:.0f}")
    shares = {who: run.figures.get(f"{who}_cpu_share") or 0.0 for who in ("load", "upstream")}
    if plan.shared:
        shares = {"load and the upstream": sum(shares.values())}
    for who, share in shares.items():
        if share > BUSY:
            run.problems.append(f"the {who} took {share:.0%} of a core and could not keep up")
    _judge_quiet(run)

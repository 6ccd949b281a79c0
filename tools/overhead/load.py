"""One measurement: N streams through one path, at a rate or saturated, and what that cost."""

from __future__ import annotations

import gc
import random
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .clients import LoadError, LoadStream, Recorder
from .processes import Child, Usage, machine_cpu
from .stats import percentile

Progress = Callable[[str], None]
#: Seconds for streams to end after the last measurement.
END_TIMEOUT = 30.0
#: Longest pause between two probes in seconds; random, so that they meet every phase of the ticks.
PROBE_PAUSE = 0.02
#: Most of a core that the load or the upstream may take where the server is to be measured.
BUSY = 0.85
#: Least share of the asked rate that must arrive.
DELIVERED = 0.97


@dataclass(frozen=True, slots=True)
class Path:
    """A way to the upstream: `proxy` is the process in between, None for the direct way."""

    name: str
    address: tuple[str, int]
    client: type[LoadStream]
    upstream: Child
    proxy: Child | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much. Times in seconds, rate in tokens/s a stream."""

    streams: int
    rate: float
    seconds: float
    warmup: float
    probing: float
    seed: int


@dataclass(slots=True)
class Run:
    """What one measurement found; problems make it invalid."""

    path: str
    arrivals: str
    repeat: int
    figures: dict[str, float | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
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
            figures["cpu_us_per_token"] = cpu * 1e6 / tokens if tokens else None
            figures["wakeups_per_s"] = (proxy1.wakeups - proxy0.wakeups) / seconds
            figures["peak_memory_mib"] = proxy1.peak_bytes / 2**20
        return figures


class _Load:
    """The loop over all sockets of a run."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, stream: LoadStream) -> None:
        self._selector.register(stream.sock, selectors.EVENT_READ, stream)

    def run(self, seconds: float, step: Callable[[], float | None] = lambda: None) -> None:
        """Receive for so long; `step` runs after each pass.

        `step` returns the longest time in seconds until it wants to run again, None for any, and
        ends the loop by a negative time.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = step()
            if pause is not None:
                if pause < 0:
                    return
                left = min(left, pause)
            for key, _ in self._selector.select(left):
                key.data.ready()

    def close(self) -> None:
        self._selector.close()


@contextmanager
def _streams(path: Path, count: int, recorder: Recorder, paced: bool) -> Iterator[list[LoadStream]]:
    """So many connections, all closed at the end; no pauses by the garbage collector meanwhile."""
    streams: list[LoadStream] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            streams.append(path.client(path.address, recorder, paced))
        yield streams
    except OSError as error:
        raise LoadError(f"{path.name}: {error}") from None
    finally:
        for stream in streams:
            stream.close()
        gc.enable()


def paced(path: Path, plan: Plan, arrivals: str, repeat: int) -> Run:
    """Every stream at the plan's rate: CPU and delays first, then, under that load, probes.

    The probes have a window of their own, because a request costs the server more than a token.
    """
    run, recorder, load = Run(path.name, arrivals, repeat), Recorder(), _Load()
    total = plan.warmup + plan.seconds + plan.probing + 0.1
    try:
        with _streams(path, plan.streams + 1, recorder, True) as (probe, *streams):
            for stream in (probe, *streams):
                load.add(stream)
            idle = _Window(path, recorder)
            load.run(min(1.0, plan.warmup))
            idle_share = idle.figures().get("cpu_share")
            for number, stream in enumerate(streams):
                stream.begin(f"stream {number} of run {repeat}", round(total * plan.rate))
            load.run(plan.warmup)
            window = _Window(path, recorder)
            recorder.recording = True
            load.run(plan.seconds)
            recorder.recording = False
            run.figures = window.figures()
            run.figures["idle_cpu_share"] = idle_share
            _probe(load, probe, run, plan)
            # The probe's last answer is waited for as well.
            load.run(END_TIMEOUT, lambda: -1 if all(s.ended for s in (probe, *streams)) else 0.1)
            if not all(stream.ended for stream in (probe, *streams)):
                run.problems.append("streams did not end")
    except LoadError as error:
        run.problems.append(str(error))
    finally:
        load.close()
    run.delays_ms = [delay / 1e6 for delay in recorder.delays_ns]
    run.figures["delay_ms_p50"] = percentile(run.delays_ms, 0.5)
    run.figures["delay_ms_p99"] = percentile(run.delays_ms, 0.99)
    run.figures["ttft_ms_p50"] = percentile(run.ttft_ms, 0.5)
    _judge(run, plan)
    return run


def _probe(load: _Load, probe: LoadStream, run: Run, plan: Plan) -> None:
    """Ask for one token again and again, each time at a random moment."""
    chance = random.Random(f"{plan.seed} {run.repeat}")
    number = 0
    due = 0.0
    waiting = False

    def step() -> float | None:
        nonlocal number, due, waiting
        if not probe.ended:
            return None
        now = time.monotonic()
        if waiting:
            run.ttft_ms.append((probe.first_ns - probe.started_ns) / 1e6)
            waiting = False
            due = now + chance.random() * PROBE_PAUSE
        if now < due:
            return due - now
        number += 1
        waiting = True
        probe.begin(f"probe {number} of run {run.repeat}", 1)
        return None

    load.run(plan.probing, step)


def saturated(path: Path, plan: Plan, repeat: int, most_tokens: int) -> Run:
    """Every stream as fast as it is read; the connections are closed in the middle of it."""
    run, recorder, load = Run(path.name, "saturated", repeat), Recorder(), _Load()
    try:
        with _streams(path, plan.streams, recorder, False) as streams:
            for number, stream in enumerate(streams):
                load.add(stream)
                stream.begin(f"stream {number} of run {repeat}", most_tokens)
            load.run(plan.warmup)
            window = _Window(path, recorder)
            load.run(plan.seconds)
            run.figures = window.figures()
            if any(stream.ended for stream in streams):
                run.problems.append("a stream ended before the measurement did")
            if not all(stream.count for stream in streams):
                run.problems.append("a stream got no token")
    except LoadError as error:
        run.problems.append(str(error))
    finally:
        load.close()
    if not run.figures.get("tokens"):
        run.problems.append("no token arrived")
    return run


def _judge(run: Run, plan: Plan) -> None:
    """A paced run in which something else than the proxy was the limit says nothing about it."""
    asked = plan.streams * plan.rate
    if (got := run.figures.get("tokens_per_s") or 0.0) < DELIVERED * asked:
        run.problems.append(f"{got:.0f} tokens/s arrived of {asked:.0f}")
    for who in ("load", "upstream"):
        share = run.figures.get(f"{who}_cpu_share") or 0.0
        if share > BUSY:
            run.problems.append(f"the {who} took {share:.0%} of a core and could not keep up")

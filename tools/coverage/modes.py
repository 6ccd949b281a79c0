"""What is simulated: each mode gives the records of a rehearsal and of the repeats, and the truth.

Latencies that come from no queue are asked for at a steady rate. Where the level differs between
repeats, the truth is that of the average level; where it moves in a known way, that of the runs.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtri

from llcuda_net.batch.record import DIRECT, GATEWAY, Outcome, Record
from llcuda_net.bench.runs.warmup import rehearsed
from tools.coverage.queues import Array, Closed, Open, Trace

#: Seconds of a rehearsal's start that are not looked at, and how often a server is asked alone.
_BEFORE, _ALONE = 2.0, 20
#: Shared by all records that have none: to make one for each takes half of all the time.
_NO_CHUNKS, _NO_PHASES = array("d"), dict[str, float]()
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(slots=True)
class Runs:
    """What one measurement gave.

    Attributes:
        window: seconds since each run's start in which rates are counted.
    """

    rehearsal: list[Record]
    repeats: list[list[Record]]
    window: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Mode:
    """A process of known truth.

    Attributes:
        name, load: its row of the table.
        metric: "latency", "ttft" or "gap"; "cost": the difference of two ways; "rate": requests/s.
        truth: by figure, in the unit of the product: ms, or 1/s.
        draw: one measurement of so many repeats.
    """

    name: str
    load: str
    metric: str
    truth: dict[str, float]
    draw: Callable[[np.random.Generator, int], Runs]


def _times(values: dict[str, float]) -> dict[str, float]:
    return {name: value * 1e3 for name, value in values.items()}


def queue(
    name: str, load: str, model: Open | Closed, seconds: float, truth: dict[str, float]
) -> Mode:
    """The latency of a queue that begins empty; its warm-up is the product's own."""

    def draw(rng: np.random.Generator, repeats: int) -> Runs:
        warmup, rehearsal = _rehearse(model, rng, seconds)
        trace = model.run(rng, repeats, warmup + seconds)
        return Runs(rehearsal, [_latencies(trace, i, warmup, seconds) for i in range(repeats)])

    return Mode(name, load, "latency", truth, draw)


def rate(load: str, model: Open | Closed, seconds: float) -> Mode:
    """The requests/s of a queue."""

    def draw(rng: np.random.Generator, repeats: int) -> Runs:
        warmup, rehearsal = _rehearse(model, rng, seconds)
        trace = model.run(rng, repeats, warmup + seconds)
        whole = [_latencies(trace, i, 0.0, warmup + seconds) for i in range(repeats)]
        return Runs(rehearsal, whole, (warmup, warmup + seconds))

    kind = "closed loop" if isinstance(model, Closed) else "M/M/1"
    return Mode(kind, load, "rate", {"requests/s": model.rate}, draw)


def _rehearse(
    model: Open | Closed, rng: np.random.Generator, seconds: float
) -> tuple[float, list[Record]]:
    """The warm-up that a rehearsal asks for, and its records."""
    length = _BEFORE + seconds
    trace = model.run(rng, 1, length)
    single = rng.exponential(model.service, _ALONE).tolist()
    if isinstance(model, Open) and model.fixed:
        single = [model.service] * _ALONE
    found = rehearsed(_latencies(trace, 0, 0.0, length), single, length)
    return found.warmup, _latencies(trace, 0, _BEFORE, seconds)


def _latencies(trace: Trace, run: int, begin: float, seconds: float) -> list[Record]:
    arrived = trace.arrived[run]
    inside = (arrived >= begin) & (arrived < begin + seconds)
    pairs = zip(arrived[inside].tolist(), trace.ended[run][inside].tolist(), strict=True)
    return [_record(number, at, end) for number, (at, end) in enumerate(pairs)]


def _record(number: int, at: float, end: float) -> Record:
    """A request that was answered."""
    return Record(
        number,
        at,
        sent=at,
        chunks=_NO_CHUNKS,
        ended=end,
        outcome=Outcome.DONE,
        phases=_NO_PHASES,
    )


def first_tokens(load: float, seconds: float, prompt: float = 0.05) -> Mode:
    """TTFT: the wait of M/M/1, and a prompt's fixed time. P(wait > t) = load exp(-t/mean)."""
    model = Open(load)
    mean = model.service / (1 - load)
    truth = {"mean": prompt + load * mean}
    for name, share in QUANTILES.items():
        truth[name] = prompt + max(0.0, mean * math.log(load / (1 - share)))

    def records(trace: Trace, run: int, begin: float) -> list[Record]:
        found = _latencies(trace, run, begin, seconds)
        inside = trace.arrived[run] >= begin
        for record, at in zip(found, trace.began[run][inside].tolist(), strict=False):
            record.chunks = array("d", [at + prompt])
        return found

    def draw(rng: np.random.Generator, repeats: int) -> Runs:
        warmup, _ = _rehearse(model, rng, seconds)
        trace = model.run(rng, repeats + 1, warmup + seconds)
        each = [records(trace, i, warmup) for i in range(repeats + 1)]
        return Runs(each[0], each[1:])

    return Mode("M/M/1", f"{load:.2f}", "ttft", _times(truth), draw)


def _lognormal(spread: float) -> dict[str, float]:
    found = {"mean": math.exp(spread**2 / 2)}
    return found | {n: math.exp(spread * float(ndtri(q))) for n, q in QUANTILES.items()}


def _of(latencies: Array) -> list[Record]:
    """Requests of 0.1 s and more, each sent 20 ms after the one before."""
    return [
        _record(n, 0.02 * n, 0.02 * n + 0.1 * value) for n, value in enumerate(latencies.tolist())
    ]


def noise(
    name: str,
    load: str,
    answers: int,
    *,
    spread: float = 0.3,
    memory: float = 0.0,
    levels: float = 0.0,
    rise: float = 0.0,
    drift: float = 0.0,
) -> Mode:
    """Lognormal latencies.

    Args:
        spread: standard deviation of the logarithm.
        memory: correlation of neighbours: first-order autoregression.
        levels: coefficient of variation of the repeats' own levels.
        rise: by what share the level rises, in a line, while a repeat runs.
        drift: by what share of the first each repeat is slower than the one before.
    """

    def values(rng: np.random.Generator) -> Array:
        before = math.ceil(12 / (1 - memory))
        white = rng.normal(0, math.sqrt(1 - memory**2), answers + before)
        red = lfilter([1.0], [1.0, -memory], white)[before:] if memory else white[before:]
        return np.asarray(np.exp(spread * red) * (1 + rise * np.arange(answers) / answers))

    def draw(rng: np.random.Generator, repeats: int) -> Runs:
        def level() -> float:
            return max(0.1, float(rng.normal(1, levels))) if levels else 1.0

        own = [level() * (1 + drift * i) * values(rng) for i in range(repeats)]
        return Runs(_of(level() * values(rng)), [_of(each) for each in own])

    truth = _lognormal(spread)
    if rise:  # of the mixture over the line, by a fine grid of it
        truth["mean"] *= 1 + rise / 2
        grid = 1 + rise * (np.arange(4000) + 0.5) / 4000
        for key, share in QUANTILES.items():
            truth[key] = _solve(grid, spread, share)
    factor = 0.1 * (1 + 2 * drift)  # of five repeats
    return Mode(name, load, "latency", _times({k: v * factor for k, v in truth.items()}), draw)


def _solve(scales: Array, spread: float, share: float) -> float:
    """A quantile of a mixture of lognormals, by bisection."""
    from scipy.special import ndtr

    low, high = 0.0, 1e3
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        below = float(ndtr(np.log(middle / scales) / spread).mean())
        low, high = (middle, high) if below < share else (low, middle)
    return high


def gaps(load: str, answers: int, between: float, within: float, chunks: int = 32) -> Mode:
    """Gaps of 10 ms, lognormal, with a level of its own in each answer."""
    spread = math.hypot(between, within)
    truth = {name: 0.01 * value for name, value in _lognormal(spread).items()}

    def records(rng: np.random.Generator) -> list[Record]:
        logs = rng.normal(0, between, (answers, 1)) + rng.normal(0, within, (answers, chunks))
        moments = np.cumsum(0.01 * np.exp(logs), axis=1)
        found = _of(np.ones(answers))
        for record, row in zip(found, moments, strict=True):
            record.chunks = array("d", [record.sent, *(record.sent + row).tolist()])
        return found

    def draw(rng: np.random.Generator, repeats: int) -> Runs:
        return Runs(records(rng), [records(rng) for _ in range(repeats)])

    return Mode("gaps of answers", load, "gap", _times(truth), draw)


def cost(load: str, pairs: int, levels: float) -> Mode:
    """What a gateway adds: 3 ms, exponential, beside prompts that differ by far more.

    Args:
        levels: standard deviation in ms of what a repeat adds of its own.
    """

    def records(rng: np.random.Generator) -> list[Record]:
        base = rng.lognormal(0, 0.5, pairs)
        more = 0.01 * (rng.exponential(3.0, pairs) + rng.normal(0, levels)) if levels else None
        more = 0.01 * rng.exponential(3.0, pairs) if more is None else more
        found = _of(base)
        for record in found:
            record.path = DIRECT
        slower = _of(base + more)
        for record in slower:
            record.path = GATEWAY
        return [*found, *slower]

    def draw(rng: np.random.Generator, repeats: int) -> Runs:
        return Runs([], [records(rng) for _ in range(repeats)])

    return Mode("paired difference", load, "cost", {"median": 3 * math.log(2), "mean": 3.0}, draw)


def exact(model: Open | Closed) -> dict[str, float]:
    """Mean and percentiles in ms, by formula."""
    law = model.law()
    return _times({"mean": law.mean, **{n: law.quantile(q) for n, q in QUANTILES.items()}})


def simulated(model: Open, seed: int = 1, seconds: float = 60_000.0) -> dict[str, float]:
    """The same where there is no formula, from one run of millions of requests."""
    trace = model.run(np.random.default_rng(seed), 1, seconds)
    times = (trace.ended - trace.arrived)[0, 10_000:]
    return _times(
        {
            "mean": float(times.mean()),
            **{n: float(np.quantile(times, q)) for n, q in QUANTILES.items()},
        }
    )


def modes() -> list[Mode]:
    """All of them, in the table's order."""
    found = []
    for load, seconds in (
        *((0.3, 20), (0.5, 20), (0.7, 20), (0.8, 20), (0.9, 20), (0.95, 20)),
        *((0.8, 60), (0.9, 60), (0.95, 60), (0.9, 120)),
    ):
        model = Open(load)
        found.append(queue("M/M/1", f"{load:.2f}, {seconds} s", model, seconds, exact(model)))
    four, steady = Open(0.8, servers=4, service=0.04), Open(0.8, fixed=True)
    found += [
        queue("M/M/4", "0.80, 20 s", four, 20.0, exact(four)),
        queue("M/D/1", "0.80, 20 s", steady, 20.0, simulated(steady)),
        queue("closed loop", "8 workers, 4 slots, 20 s", Closed(), 20.0, exact(Closed())),
        first_tokens(0.5, 20.0),
        first_tokens(0.8, 20.0),
        rate("0.50, 20 s", Open(0.5), 20.0),
        rate("0.90, 20 s", Open(0.9), 20.0),
        rate("8 workers, 4 slots, 20 s", Closed(), 20.0),
    ]
    found += [
        noise("independent", "1,000 answers", 1000),
        noise("independent", "250 answers", 250),
        noise("independent", "20 answers", 20),
        noise("heavy tail, sigma 1", "250 answers", 250, spread=1.0),
        noise("heavy tail, sigma 2", "1,000 answers", 1000, spread=2.0),
        noise("correlated 0.9", "1,500 answers", 1500, memory=0.9),
        noise("correlated 0.9", "300 answers", 300, memory=0.9),
        noise("correlated 0.98", "1,500 answers", 1500, memory=0.98),
        noise("correlated 0.995", "1,500 answers", 1500, memory=0.995),
        noise("levels of repeats, 10 %", "300 answers", 300, levels=0.1),
        noise("levels of repeats, 30 %", "1,000 answers", 1000, levels=0.3),
        noise("rising 10 % in a repeat", "1,000 answers", 1000, rise=0.1),
        noise("doubling in a repeat", "1,000 answers", 1000, rise=1.0),
        noise("each repeat 3 % slower", "1,000 answers", 1000, drift=0.03),
        noise("each repeat 20 % slower", "1,000 answers", 1000, drift=0.2),
        gaps("4 answers", 4, 0.3, 0.2),
        gaps("60 answers", 60, 0.3, 0.2),
        gaps("400 answers", 400, 0.3, 0.2),
        gaps("60 answers alike", 60, 0.0, 0.3),
        cost("60 pairs", 60, 0.0),
        cost("60 pairs, levels of repeats", 60, 1.0),
    ]
    return found

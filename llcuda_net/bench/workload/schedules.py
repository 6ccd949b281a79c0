"""When each request is meant to be sent, decided before the first of them is: seeded, repeatable.

An open schedule has a moment for every request, whatever the server does; users do not wait for
each other. A closed loop has none: each worker sends when its last answer has come, so a server
that stalls is asked less just then, and the measurement hides the stall ("coordinated omission":
G. Tene, "How NOT to Measure Latency", 2013). Latency is therefore counted from the intended moment.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llcuda_net.errors import ConfigError
from llcuda_net.util.numbers import plain
from llcuda_net.util.text_files import read_text

#: Most requests that one schedule may hold: a rate or a time typed wrongly is not an hour's wait.
MOST = 5_000_000
KINDS = "closed, constant, poisson, gamma:CV, ramp:RATE, trace:FILE"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What was decided: either a concurrency, or a moment for each request.

    Attributes:
        kind: as it was asked for, "poisson" say.
        seconds: how long requests are sent.
        moments: seconds from the start, rising; None for a closed loop.
        concurrency: workers of a closed loop; 0 for an open schedule.
        rate: requests per second, on average; None for a closed loop.
    """

    kind: str
    seconds: float
    moments: tuple[float, ...] | None
    concurrency: int = 0
    rate: float | None = None

    @property
    def closed(self) -> bool:
        """Whether each request waits for another's answer."""
        return self.moments is None

    @property
    def steady(self) -> bool:
        """Whether it could begin again at its end: a ramp and a trace are no such load."""
        return self.kind.partition(":")[0] in ("closed", "constant", "poisson", "gamma")

    def describe(self, *, sessions: bool = False) -> str:
        """In words, for a report.

        Args:
            sessions: each moment starts a session, and each worker is a user.
        """
        if self.closed:
            plural = "" if self.concurrency == 1 else "s"
            return f"closed loop, {self.concurrency} {'user' if sessions else 'worker'}{plural}"
        what = "sessions" if sessions else "requests"
        return f"{self.kind} arrivals, {plain(self.rate or 0.0, 4)} {what}/s"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: how to make it again, not its moments."""
        return {
            "kind": self.kind,
            "seconds": self.seconds,
            "concurrency": self.concurrency or None,
            "rate": self.rate,
        }


def closed(concurrency: int, seconds: float) -> Schedule:
    """`concurrency` workers, each of which sends when its last answer has come."""
    if concurrency < 1:
        raise ConfigError(f"the concurrency must be at least 1, not {concurrency}")
    return Schedule("closed", seconds, None, concurrency)


def constant(rate: float, seconds: float) -> Schedule:
    """One request every 1/rate seconds."""
    count = _count(rate, seconds)
    return _open("constant", seconds, np.arange(count) / rate)


def poisson(rate: float, seconds: float, seed: int) -> Schedule:
    """Independent users: exponential pauses with the mean 1/rate."""
    return gamma(rate, seconds, 1.0, seed, kind="poisson")


def gamma(rate: float, seconds: float, cv: float, seed: int, *, kind: str = "") -> Schedule:
    """Pauses of a gamma distribution: mean 1/rate, coefficient of variation `cv`.

    Above 1 the arrivals come in bursts, below 1 they are more regular than independent users'.
    """
    if not 0 < cv <= 100:
        raise ConfigError(f"a coefficient of variation must be above 0 and at most 100, not {cv}")
    _count(rate, seconds)
    rng = np.random.default_rng(seed)
    shape = 1 / cv**2
    moments: list[np.ndarray[Any, Any]] = []
    last = 0.0
    while last < seconds:  # drawn in batches until the time is full, so that no count is fixed
        pauses = rng.gamma(shape, 1 / (rate * shape), size=max(16, math.ceil(rate * seconds / 4)))
        moments.append(last + np.cumsum(pauses))
        last = float(moments[-1][-1])
    whole = np.concatenate(moments)
    return _open(kind or f"gamma:{plain(cv)}", seconds, whole[whole < seconds], rate)


def ramp(first: float, last: float, seconds: float, seed: int) -> Schedule:
    """Independent users, ever more (or fewer) of them: a Poisson process of rising rate.

    Made by stretching a unit-rate process by the inverse of the expected count,
    N(t) = first t + (last - first) t² / (2 seconds) (Çinlar 1975, "Introduction to Stochastic
    Processes", on time changes).
    """
    mean = (first + last) / 2
    _count(mean, seconds)
    if min(first, last) < 0:
        raise ConfigError("the rates of a ramp must not be negative")
    rng = np.random.default_rng(seed)
    total = mean * seconds
    counts: list[float] = []
    at = float(rng.exponential())
    while at < total:
        counts.append(at)
        at += float(rng.exponential())
    slope = (last - first) / seconds
    n = np.asarray(counts)
    # Solved so that a slope of nothing divides by nothing: t = 2n / (first + √(first² + 2 slope n))
    root = np.sqrt(np.maximum(0.0, first**2 + 2 * slope * n))
    return _open(f"ramp:{plain(last)}", seconds, 2 * n / (first + root), mean)


def trace(path: Path, seconds: float | None = None) -> Schedule:
    """Moments that were recorded: a number of seconds a line, or JSON with `at`; the first is 0.

    Raises:
        ConfigError: the file cannot be read, or a line is neither.
    """
    moments = []
    for number, line in enumerate(read_text(path, "the trace").split("\n"), 1):
        if line.strip():
            try:
                found = json.loads(line)
                at = float(found["at"] if isinstance(found, dict) else found)
                if not math.isfinite(at):
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{path}, line {number}: neither seconds nor JSON with a number `at`"
                ) from None
            moments.append(at)
    if not moments:
        raise ConfigError(f"the trace {path} is empty")
    ordered = np.sort(np.asarray(moments))
    ordered -= ordered[0]
    length = float(ordered[-1]) or 1.0
    if seconds is not None:
        ordered, length = ordered[ordered < seconds], min(length, seconds)
    return _open("trace", length, ordered, len(ordered) / length)


def parse(
    text: str, *, rate: float | None, concurrency: int, seconds: float, seed: int
) -> Schedule:
    """A schedule as a command line names it: one of KINDS.

    Raises:
        ConfigError: the text is none of them, or lacks its rate.
    """
    kind, _, rest = text.partition(":")
    if kind == "closed" and not rest:
        return closed(concurrency, seconds)
    if kind == "trace" and rest:
        return trace(Path(rest), seconds)
    if kind in ("constant", "poisson", "gamma", "ramp") and rate is None:
        raise ConfigError(f"{kind} arrivals need --rate")
    if rate is not None:
        if kind == "constant" and not rest:
            return constant(rate, seconds)
        if kind == "poisson" and not rest:
            return poisson(rate, seconds, seed)
        if kind in ("gamma", "ramp"):
            try:
                number = float(rest)
            except ValueError:
                number = math.nan
            if math.isfinite(number):
                if kind == "gamma":
                    return gamma(rate, seconds, number, seed)
                return ramp(rate, number, seconds, seed)
    raise ConfigError(f"{text!r} is no kind of arrivals: it must be one of {KINDS}")


def _count(rate: float, seconds: float) -> int:
    """How many requests that makes, if it can be meant."""
    if not (0 < rate < math.inf and 0 < seconds < math.inf):
        raise ConfigError(
            f"rate and time must be above 0, not {plain(rate)}/s for {plain(seconds)} s"
        )
    count = math.ceil(rate * seconds - 1e-9)
    if count > MOST:
        raise ConfigError(
            f"{plain(rate)}/s for {plain(seconds)} s are {count:,} requests: too many"
        )
    return count


def _open(
    kind: str, seconds: float, moments: np.ndarray[Any, Any], rate: float | None = None
) -> Schedule:
    found = tuple(float(moment) for moment in moments)
    if not found:
        raise ConfigError(
            f"no request falls into {plain(seconds)} s of {kind} arrivals: give more time, or a"
            " higher rate"
        )
    return Schedule(kind, seconds, found, 0, rate or len(found) / seconds)

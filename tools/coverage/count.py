"""How often a mode's intervals hold, by the product's own functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llcuda_net.bench.statistics.repeats import figures
from llcuda_net.bench.statistics.samples import of_records
from llcuda_net.bench.statistics.summary import difference, over_runs, rates
from tools.coverage.modes import Mode, Runs

Estimates = dict[str, dict[str, Any] | None]
#: The aim: in so many of 100 an interval is to hold the truth.
AIM = (0.90, 0.97)
#: Where fewer measurements give an interval, how often it holds is not judged.
FEW = 0.05


@dataclass(slots=True)
class Count:
    """One figure of one mode.

    Attributes:
        given, held: measurements with an interval, and those of which it held the truth.
        absent: measurements without even a value.
        width: sum of the intervals' widths, as shares of the truth.
        why: how often each reason was said, without its numbers.
    """

    runs: int = 0
    given: int = 0
    held: int = 0
    absent: int = 0
    width: float = 0.0
    why: dict[str, int] = field(default_factory=dict)

    @property
    def covered(self) -> float | None:
        """Of the intervals that were given, the share that held; None of none."""
        return self.held / self.given if self.given else None

    @property
    def error(self) -> float | None:
        """The standard error of `covered`, at the aim's 95 %."""
        return math.sqrt(0.95 * 0.05 / self.given) if self.given else None

    def verdict(self) -> str:
        """ "ok", or where it misses the aim by more than two standard errors: "low", "high"."""
        covered, error = self.covered, self.error
        if covered is None or error is None or self.given < FEW * self.runs:
            return "none"
        if covered < AIM[0] - 2 * error:
            return "low"
        return "high" if covered > AIM[1] + 2 * error else "ok"

    def add(self, estimate: dict[str, Any] | None, truth: float, missing: str = "") -> None:
        """One more measurement."""
        self.runs += 1
        reason = missing
        if estimate is None:
            self.absent += 1
        elif estimate["low"] is None or estimate["high"] is None:
            reason = estimate.get("why", "")
        else:
            self.given += 1
            self.held += estimate["low"] - 1e-9 <= truth <= estimate["high"] + 1e-9
            self.width += (estimate["high"] - estimate["low"]) / truth
            return
        reason = reason.partition(":")[0]
        self.why[reason] = self.why.get(reason, 0) + 1

    def merge(self, other: Count) -> None:
        """Add another part of the same."""
        self.runs += other.runs
        self.given += other.given
        self.held += other.held
        self.absent += other.absent
        self.width += other.width
        for reason, count in other.why.items():
            self.why[reason] = self.why.get(reason, 0) + count

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "measurements": self.runs,
            "given": self.given,
            "held": self.held,
            "absent": self.absent,
            "covered": self.covered,
            "error": self.error,
            "width": self.width / self.given if self.given else None,
            "why": self.why,
            "verdict": self.verdict(),
        }


def product(mode: Mode, runs: Runs) -> tuple[Estimates, dict[str, str]]:
    """The figures as `llcuda bench` computes them, and why some are missing."""
    if mode.metric == "cost":
        return difference(runs.repeats, "latency") or {}, {}
    if mode.metric == "rate":
        found = over_runs([rates(records, *runs.window) for records in runs.repeats])
        return {"requests/s": found["requests_per_s"]}, {}
    told = figures(
        [of_records(records, mode.metric) for records in runs.repeats],
        rehearsal=of_records(runs.rehearsal, mode.metric),
    )
    each = {"mean": told.mean, **told.quantiles}
    return {
        name: None if estimate is None else estimate.times(1e3).as_dict()
        for name, estimate in each.items()
    }, told.why


def count(
    mode: Mode,
    seeds: Sequence[Sequence[int]],
    repeats: int,
    ask: Callable[[Mode, Runs], tuple[Estimates, dict[str, str]]] = product,
) -> dict[str, Count]:
    """Measure a mode once per seed; by figure.

    Args:
        ask: gives the figures of a measurement.
    """
    found = {name: Count() for name in mode.truth}
    for seed in seeds:
        runs = mode.draw(np.random.default_rng(list(seed)), repeats)
        told, why = ask(mode, runs)
        for name, each in found.items():
            each.add(told.get(name), mode.truth[name], why.get(name, ""))
    return found

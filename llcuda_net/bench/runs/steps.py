"""One load of a sweep: its runs, and what they amount to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llcuda_net.batch.record import outcomes
from llcuda_net.bench.runs.once import Once
from llcuda_net.bench.runs.warmup import Settled
from llcuda_net.bench.statistics.censored import longest
from llcuda_net.bench.statistics.estimates import Estimate
from llcuda_net.bench.statistics.objective import reached
from llcuda_net.bench.statistics.samples import of_records
from llcuda_net.bench.statistics.saturation import Saturation, judge, window
from llcuda_net.bench.statistics.summary import distribution, over_runs, phases
from llcuda_net.bench.workload.validity import Bounds, Ceiling

#: What is reported of each load besides its rates.
_METRICS = ("ttft", "tpot", "latency")


@dataclass(slots=True)
class Step:
    """A load, with one run a round.

    Attributes:
        load: workers of a closed loop, or requests/s.
        runs: those that are complete.
        settled: how long it runs before it is measured; None: that was not looked for.
    """

    load: float
    runs: list[Once] = field(default_factory=list)
    settled: Settled | None = None

    def rates(self) -> dict[str, Estimate]:
        """Tokens/s and requests/s, by the rounds; of one round alone without an interval."""
        each = over_runs([run.rates() for run in self.runs])
        return {name: Estimate.from_dict(found) for name, found in each.items()}

    def saturation(self, reached: float | None) -> Saturation:
        """Whether this rate is more than is carried.

        Args:
            reached: requests/s that the server surely answered otherwise.
        """
        windows = [window(run.records, self.load, run.begin, run.end) for run in self.runs]
        return judge(windows, reached, self.load)

    def longest(self) -> float | None:
        """Seconds of the slowest answers: see `censored.longest`."""
        return longest(record for run in self.runs for record in run.measured)

    def repetitions(self) -> dict[str, list[float]]:
        """One value a round, for comparisons."""
        each = [run.rates() for run in self.runs]
        found = {
            name: [float(one[name]["value"]) for one in each]
            for name in ("tokens_per_s", "requests_per_s")
        }
        return {name: values for name, values in found.items() if min(values, default=0) > 0}


def describe(
    step: Step, slo: dict[str, float] | None, bounds: Bounds, ceiling: Ceiling | None
) -> dict[str, Any]:
    """A load's figures, for JSON."""
    records = [record for run in step.runs for record in run.measured]
    level = slo and reached([(run.records, run.begin, run.end) for run in step.runs], slo)
    found: dict[str, Any] = {
        "load": step.load,
        "warmup": step.runs[0].warmup,
        "seconds": step.runs[0].end - step.runs[0].begin,
        **{name: estimate.as_dict() for name, estimate in step.rates().items()},
        "goodput": level and level["goodput"],
        "slo": level,
        "outcomes": outcomes(records),
        "metrics": {},
        "phases": phases([run.measured for run in step.runs]),
        "cpu_share": max(run.cpu_share for run in step.runs),
        "problems": [
            (number, text)
            for number, run in enumerate(step.runs, 1)
            for text in run.problems(bounds, ceiling)
        ],
    }
    for name in _METRICS:
        metric = distribution([of_records(run.measured, name) for run in step.runs])
        metric.pop("histogram", None)
        found["metrics"][name] = metric
    return found

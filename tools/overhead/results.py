"""From runs to figures: medians over repeats, ratios, what is added to the direct way, and JSON.

A path through an llcuda-server is named after what it is and its durability level: "llcuda-disk",
"http-memory", "older-disk" for a server called "older" that it is measured against.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .measurement import Run
from .processes import nginx_path
from .stats import Spread, added_median, difference, percentile, spread

#: Version of the JSON's layout.
SCHEMA = 2
ARRIVALS = ("synchronised", "spread", "saturated")


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure of a path is to be, at most or, with `least`, at least."""

    path: str
    arrivals: str
    figure: str
    limit: float
    least: bool = False

    def judge(self, value: float | None) -> dict[str, Any]:
        """For JSON: the aim, the value, whether it was reached (None: not measured)."""
        what = f"{self.path}, {self.arrivals}: {self.figure}"
        how = f"{'at least' if self.least else 'at most'} {self.limit:g}"
        reached = None
        if value is not None:
            reached = value >= self.limit if self.least else value <= self.limit
        return {"what": what, "aim": how, "value": value, "reached": reached}


AIMS = (
    Aim("llcuda-disk", "synchronised", "cpu_times_nginx", 2.0),
    Aim("llcuda-disk", "spread", "cpu_times_nginx", 2.5),
    Aim("llcuda-disk", "synchronised", "cpu_us_beyond_memory", 4.0),
    Aim("llcuda-disk", "synchronised", "main_wakeups_per_step", 1.3),
    Aim("llcuda-disk", "synchronised", "added_ttft_ms_p50", 1.0),
    Aim("llcuda-memory", "synchronised", "added_ttft_ms_p50", 0.6),
    Aim("http-disk", "synchronised", "cpu_us_beyond_llcuda", 12.0),
    Aim("responses-disk", "synchronised", "cpu_us_beyond_http", 6.0),
    Aim("llcuda-disk", "saturated", "tokens_per_s", 30_000.0, least=True),
)
#: Kinds of paths to the server itself.
_OURS = ("llcuda", "http", "responses")
_OVER_REPEATS = (
    "cpu_us_per_token",
    "main_cpu_us_per_token",
    "tokens_per_s",
    "tokens_per_read",
    "cpu_share",
    "idle_cpu_share",
    "wakeups_per_step",
    "main_wakeups_per_step",
    "peak_memory_mib",
    "load_cpu_share",
    "upstream_cpu_share",
    "others_cpu_share",
    "delay_ms_p50",
    "delay_ms_p99",
    "ttft_ms_p50",
)


class Summary:
    """The figures of one path and one kind of arrivals, over all its valid repeats."""

    def __init__(self, runs: Sequence[Run], direct: Sequence[Run]) -> None:
        good = [run for run in runs if not run.problems]
        base = {run.repeat: run for run in direct if not run.problems}
        self.spreads: dict[str, Spread] = {}
        for name in _OVER_REPEATS:
            self._keep(name, (run.figures.get(name) for run in good))
        pairs = [(run, base[run.repeat]) for run in good if run.repeat in base]
        pairs = [(run, other) for run, other in pairs if run is not other]
        for name in ("delay_ms_p50", "delay_ms_p99"):
            values = [
                difference(run.figures.get(name), other.figures.get(name)) for run, other in pairs
            ]
            self._keep(f"added_{name}", values)
        added = added_median([(run.ttft_ms, other.ttft_ms) for run, other in pairs])
        if added is not None:
            self.spreads["added_ttft_ms_p50"] = added
        # A p99 of first tokens needs more probes than one repeat makes: all repeats together.
        ttft = [
            percentile(list(chain.from_iterable(run.ttft_ms for run in group)), 0.99)
            for group in (good, list(base.values()))
        ]
        self._keep("added_ttft_ms_p99", [difference(*ttft)] if pairs else [])

    def _keep(self, name: str, values: Iterable[float | None]) -> None:
        found = spread(values)
        if found is not None:
            self.spreads[name] = found

    def get(self, name: str) -> float | None:
        """The median over the repeats."""
        found = self.spreads.get(name)
        return None if found is None else found.median


def summarise(runs: Sequence[Run]) -> dict[str, dict[str, Summary]]:
    """Summaries by arrivals, then by path."""
    found: dict[str, dict[str, Summary]] = {}
    for arrivals in ARRIVALS:
        of = [run for run in runs if run.arrivals == arrivals]
        direct = [run for run in of if run.path == "direct"]
        for path in dict.fromkeys(run.path for run in of):
            mine = [run for run in of if run.path == path]
            found.setdefault(arrivals, {})[path] = Summary(mine, direct)
    return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """A path's CPU per token beside another's, repeat by repeat.

    Attributes:
        name: the figure's name among the path's.
        path, other: what is compared, and with what.
        values: of each repeat that is valid for both.
    """

    arrivals: str
    name: str
    path: str
    other: str
    values: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Over the repeats."""
        found = spread(self.values)
        assert found is not None
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        what = {"arrivals": self.arrivals, "path": self.path, "other": self.other}
        return {**what, "figure": self.name, "repeats": self.values, **self.spread.as_dict()}


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Every comparison that the runs allow: ratios, and differences in microseconds."""
    paths = list(dict.fromkeys(run.path for run in runs))
    found = []
    for arrivals in ARRIVALS:
        for path in paths:
            for name, other, function in _against(path, paths):
                mine, theirs = _cpu(runs, arrivals, path), _cpu(runs, arrivals, other)
                both = sorted(mine.keys() & theirs.keys())
                if values := tuple(function(mine[n], theirs[n]) for n in both):
                    found.append(Comparison(arrivals, name, path, other, values))
    return found


def _against(
    path: str, paths: Sequence[str]
) -> list[tuple[str, str, Callable[[float, float], float]]]:
    """What a path is compared with: the figure's name, the other path, the function."""
    kind, _, level = path.partition("-")
    if not level:
        return []
    out: list[tuple[str, str, Callable[[float, float], float]]] = []
    for other in paths:
        name, _, its = other.partition("-")
        peer = not its and name != "direct"
        if peer or (kind == "llcuda" and its == level and name not in _OURS):
            out.append((f"cpu_times_{name}", other, _ratio))
    if kind == "http":
        out.append(("cpu_us_beyond_llcuda", f"llcuda-{level}", _beyond))
    if kind == "responses":
        out.append(("cpu_us_beyond_http", f"http-{level}", _beyond))
    if level != "memory":
        out.append(("cpu_us_beyond_memory", f"{kind}-memory", _beyond))
    return out


def _ratio(mine: float, other: float) -> float:
    return mine / other


def _beyond(mine: float, other: float) -> float:
    return mine - other


def _cpu(runs: Sequence[Run], arrivals: str, path: str) -> dict[int, float]:
    """CPU per token of the valid runs, by repeat."""
    return {
        run.repeat: cpu
        for run in runs
        if (run.arrivals, run.path) == (arrivals, path)
        and not run.problems
        and (cpu := run.figures.get("cpu_us_per_token"))
    }


def document(runs: Sequence[Run], about: dict[str, Any]) -> dict[str, Any]:
    """The JSON."""
    summaries = summarise(runs)
    comparisons = compare(runs)
    for each in comparisons:
        summaries[each.arrivals][each.path].spreads[each.name] = each.spread
    aims = []
    for aim in AIMS:
        summary = summaries.get(aim.arrivals, {}).get(aim.path)
        if summary is not None:
            aims.append(aim.judge(summary.get(aim.figure)))
    return {
        "schema": SCHEMA,
        "benchmark": "overhead",
        **about,
        "machine": machine(),
        "valid": all(valid(runs).values()),
        "comparisons": [each.as_dict() for each in comparisons],
        "aims": aims,
        "summary": {
            arrivals: {
                path: {name: value.as_dict() for name, value in summary.spreads.items()}
                for path, summary in by_path.items()
            }
            for arrivals, by_path in summaries.items()
        },
        "runs": [run.as_dict() for run in runs],
    }


def valid(runs: Sequence[Run]) -> dict[tuple[str, str, int], bool]:
    """Whether each (arrivals, path, repeat) was measured validly, if need be at another try."""
    found: dict[tuple[str, str, int], bool] = {}
    for run in runs:
        key = (run.arrivals, run.path, run.repeat)
        found[key] = found.get(key, False) or not run.problems
    return found


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = [line.partition(":") for line in info.read_text("utf-8", "replace").splitlines()]
        model = next((value.strip() for key, _, value in rows if key.strip() == "model name"), "")
    path = nginx_path()
    nginx = None
    if path is not None:
        said = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)
        nginx = said.stderr.strip().rpartition("/")[2]
    packages = ("llcuda-net", "trio", "httpx", "httptools", "msgpack", "msgspec")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": nginx,
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }

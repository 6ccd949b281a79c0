"""From runs to figures: medians over repeats, what is added to the direct way, table and JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from .measurement import Run
from .processes import nginx_path
from .stats import Spread, difference, percentile, spread

#: Version of the JSON's layout.
SCHEMA = 1
#: What is aimed at, and whether the figure is to be at most or at least that.
AIMS = {
    "cpu_us_per_token": ("at most", 45.0),
    "cpu_times_nginx": ("at most", 2.5),
    "http_added_us_per_token": ("at most", 12.0),
    "saturated_tokens_per_s": ("at least", 30_000.0),
    "added_ttft_ms_p50": ("at most", 2.0),
}
#: Share of a core from which on the server itself is the limit.
WHOLE_CORE = 0.9
#: Cores taken by other processes from which on the table warns.
NOT_QUIET = 0.25
ARRIVALS = ("synchronised", "spread")
_OVER_REPEATS = (
    "cpu_us_per_token",
    "tokens_per_s",
    "tokens_per_read",
    "cpu_share",
    "idle_cpu_share",
    "wakeups_per_s",
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
        for name in ("delay_ms_p50", "delay_ms_p99", "ttft_ms_p50"):
            values = [
                difference(run.figures.get(name), other.figures.get(name)) for run, other in pairs
            ]
            self._keep(f"added_{name}", values)
        # A p99 of first tokens needs more probes than one repeat makes: all repeats together.
        ttft = [
            percentile(list(chain.from_iterable(run.ttft_ms for run in group)), 0.99)
            for group in (good, list(base.values()))
        ]
        self._keep("added_ttft_ms_p99", [difference(ttft[0], ttft[1])])

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
    for arrivals in (*ARRIVALS, "saturated"):
        of = [run for run in runs if run.arrivals == arrivals]
        direct = [run for run in of if run.path == "direct"]
        for path in dict.fromkeys(run.path for run in of):
            mine = [run for run in of if run.path == path]
            found.setdefault(arrivals, {})[path] = Summary(mine, direct)
    return found


def headline(summaries: dict[str, dict[str, Summary]], path: str) -> dict[str, float | None]:
    """The figures of one path that the aims are about; arrivals are synchronised."""
    paced = summaries.get("synchronised", {}).get(path)
    full = summaries.get("saturated", {}).get(path)
    figures = {
        name: paced.get(name) if paced else None
        for name in (
            "cpu_us_per_token",
            "added_ttft_ms_p50",
            "added_ttft_ms_p99",
            "added_delay_ms_p50",
            "added_delay_ms_p99",
            "peak_memory_mib",
        )
    }
    figures["saturated_tokens_per_s"] = full.get("tokens_per_s") if full else None
    # Below a whole core something else was the limit, and the rate is a lower bound.
    figures["saturated_cpu_share"] = full.get("cpu_share") if full else None
    figures["saturated_cpu_us_per_token"] = full.get("cpu_us_per_token") if full else None
    return figures


def document(runs: Sequence[Run], about: dict[str, Any]) -> dict[str, Any]:
    """The JSON."""
    summaries = summarise(runs)
    own = headline(summaries, "llcuda")
    peers = {
        path: headline(summaries, path)
        for path in dict.fromkeys(run.path for run in runs)
        if path not in ("llcuda", "direct")
    }
    theirs = peers.get("nginx", {}).get("cpu_us_per_token")
    mine = own["cpu_us_per_token"]
    own["cpu_times_nginx"] = mine / theirs if mine and theirs else None
    over_http = peers.get("llcuda-http", {}).get("cpu_us_per_token")
    own["http_added_us_per_token"] = difference(over_http, mine)
    return {
        "schema": SCHEMA,
        "benchmark": "overhead",
        **about,
        "machine": machine(),
        "valid": not any(run.problems for run in runs),
        **own,
        "peers": peers,
        "aims": {name: _aim(name, own.get(name)) for name in AIMS},
        "summary": {
            arrivals: {
                path: {name: value.as_dict() for name, value in summary.spreads.items()}
                for path, summary in by_path.items()
            }
            for arrivals, by_path in summaries.items()
        },
        "runs": [run.as_dict() for run in runs],
    }


def _aim(name: str, value: float | None) -> dict[str, Any]:
    how, limit = AIMS[name]
    reached = None if value is None else value <= limit if how == "at most" else value >= limit
    return {"aim": f"{how} {limit:g}", "value": value, "reached": reached}


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


def ratios(runs: Sequence[Run]) -> list[str]:
    """CPU a token of "llcuda" by that of "against", repeat by repeat, for a person."""
    lines = []
    for arrivals in (*ARRIVALS, "saturated"):
        cpu = {
            (run.path, run.repeat): run.figures.get("cpu_us_per_token")
            for run in runs
            if run.arrivals == arrivals
        }
        found = sorted(
            mine / other
            for (path, repeat), mine in cpu.items()
            if path == "llcuda" and mine and (other := cpu.get(("against", repeat)))
        )
        if found:
            middle = statistics.median(found)
            ends = f"{found[0]:.2f} to {found[-1]:.2f}"
            lines.append(f"CPU a token by that of the other, {arrivals}: {middle:.2f} ({ends})")
    return lines


def table(document: dict[str, Any]) -> str:
    """The figures for a person: medians over the repeats, least and greatest in brackets."""
    lines = []
    for arrivals, by_path in document["summary"].items():
        names = _SATURATED if arrivals == "saturated" else _PACED
        lines.append(f"\n{arrivals}")
        width = max(len(label) for label in names.values())
        paths = list(by_path)
        lines.append(" " * width + "".join(f"{path:>{_COLUMN}}" for path in paths))
        for name, label in names.items():
            cells = [_cell(by_path[path].get(name)) for path in paths]
            lines.append(f"{label:{width}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells))
    lines.append("\naims (synchronised)")
    for name, aim in document["aims"].items():
        value = "not measured" if aim["value"] is None else f"{aim['value']:.4g}"
        verdict = {True: "reached", False: "NOT reached", None: ""}[aim["reached"]]
        lines.append(f"  {name:24} {aim['aim']:>15}   {value:>12}   {verdict}")
    busiest = max(
        (
            figures["others_cpu_share"]["median"]
            for by_path in document["summary"].values()
            for figures in by_path.values()
            if "others_cpu_share" in figures
        ),
        default=0.0,
    )
    if busiest > NOT_QUIET:
        cores = document["machine"]["cores"]
        lines.append(
            f"  (other processes took up to {busiest:.1f} of {cores} cores: the times hold the "
            "waits for them, too; measure on a quiet machine)"
        )
    share = document["saturated_cpu_share"]
    if share is not None and share < WHOLE_CORE:
        lines.append(
            f"  (saturated: a lower bound, the server had only {share:.0%} of a core; the load and "
            "the upstream need cores of their own)"
        )
    return "\n".join(lines)


_COLUMN = 32
_PACED = {
    "cpu_us_per_token": "CPU a token, us",
    "tokens_per_s": "tokens/s",
    "wakeups_per_s": "wake-ups/s",
    "idle_cpu_share": "CPU share while idle",
    "delay_ms_p50": "emission to arrival p50, ms",
    "delay_ms_p99": "emission to arrival p99, ms",
    "added_delay_ms_p50": "  added p50, ms",
    "added_delay_ms_p99": "  added p99, ms",
    "ttft_ms_p50": "first token p50, ms",
    "added_ttft_ms_p50": "  added p50, ms",
    "added_ttft_ms_p99": "  added p99, ms",
    "peak_memory_mib": "peak memory, MiB",
    "load_cpu_share": "load's own CPU share",
    "upstream_cpu_share": "upstream's CPU share",
    "others_cpu_share": "other processes' CPU share",
}
_SATURATED = {
    "tokens_per_s": "tokens/s",
    "cpu_us_per_token": "CPU a token, us",
    "cpu_share": "CPU share (1: the limit)",
    "tokens_per_read": "tokens a read at the client",
    "peak_memory_mib": "peak memory, MiB",
    "load_cpu_share": "load's own CPU share",
    "upstream_cpu_share": "upstream's CPU share",
    "others_cpu_share": "other processes' CPU share",
}


def _cell(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    if value["count"] == 1:
        return _figure(value["median"])
    median, least, most = (_figure(value[name]) for name in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 4):.3g}"

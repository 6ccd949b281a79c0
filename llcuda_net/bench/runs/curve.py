"""A scaling curve: points put together, speedups, and the three laws fitted."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.energy import economy
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.runs.ranks import all_metrics
from llcuda_net.bench.statistics.estimates import Estimate, student
from llcuda_net.bench.statistics.fits import POINTS, fit
from llcuda_net.bench.statistics.laws import LAWS, karp_flatt, speedup
from llcuda_net.bench.statistics.objective import estimates
from llcuda_net.util.quantile import PERCENTILES

#: Least runs of a size for an interval by whole runs.
_RUNS = 3


def fill(
    whole: dict[str, Any], points: list[dict[str, Any]], over: str, rate: str = "tokens_per_s"
) -> None:
    """Put the points into the document: one row a size, the fits, what limits them.

    Args:
        points: what `ranks.point` or `searches.point` gave, several of each size.
        over: what is counted: "ranks" or "servers".
        rate: the points' figure that is to grow.
    """
    whole["rate"] = rate
    sizes = sorted({int(point[over]) for point in points})
    whole["over"] = over
    whole["repetitions"] = {}
    rows = whole["rows"] = []
    for size in sizes:
        own = [point for point in points if point[over] == size]
        rows.append(_row(own, size, rate))
        whole["repetitions"][f"{rate} at {size}"] = [point[rate]["value"] for point in own]
        for point in own:
            whole["problems"] += point["problems"]
            whole["cautions"] += [c for c in point["cautions"] if c not in whole["cautions"]]
    whole["energy"] = economy.together([point.get("energy") for point in points])
    _compare(rows, rate)
    free = {row["size"] for row in rows if not _limited(row)}
    known = [point for point in points if int(point[over]) in free]
    n = [float(point[over]) for point in known]
    y = [point[rate]["value"] for point in known]
    fits = [fit(law, n, y) for law in LAWS] if known else []
    whole["fits"] = [each.as_dict() for each in fits if each is not None]
    whole["fits_why"] = _why(rows, sorted(free), over)
    if rate == "tokens_per_s":
        whole["cautions"] += _limits(rows, over)


def _row(own: list[dict[str, Any]], size: int, rate: str) -> dict[str, Any]:
    """The runs of one size as a row."""
    first = own[0][rate]
    # Of whole runs where there are three; else of one run's batches.
    total = _mean([point[rate]["value"] for point in own])
    if len(own) == 1:
        total = Estimate(first["value"], first["low"], first["high"])
    row = {**own[0], "size": size, "runs": len(own), rate: _not_negative(total).as_dict()}
    row["metrics"] = all_metrics([point["metrics"] for point in own])
    for name, metric in row["metrics"].items():
        each = [Histogram.decode(point["metrics"][name]["histogram"]) for point in own]
        for key, share in PERCENTILES.items():
            if metric[key] is not None:
                metric[key] = _percentile(each, share, metric[key]).as_dict()
    row["energy"] = economy.of_points([point.get("energy") for point in own])
    if row.get("slo") is not None:
        # Strong or weak, all ranks have the same window.
        seconds = [point["each"][0]["seconds"] for point in own]
        row["slo"] = estimates(list(zip((point["slo"] for point in own), seconds, strict=True)))
        row["goodput"] = row["slo"]["goodput"]
    if "imbalance" in row:
        row["imbalance"] = sum(point["imbalance"] for point in own) / len(own)
    return row


def _mean(values: list[float]) -> Estimate:
    """The mean of whole runs, with an interval where there are enough."""
    found = student(values)
    assert found is not None
    return found if len(values) >= _RUNS else Estimate(found.value)


def _percentile(runs: list[Histogram], share: float, pooled: float) -> Estimate:
    """A percentile in ms: of all runs together, its interval by the runs where each has it."""
    each = [run.quantile(share) for run in runs]
    known = [value * 1e3 for value in each if value is not None]
    return _not_negative(_mean(known)) if len(known) == len(runs) else Estimate(pooled)


def _not_negative(estimate: Estimate) -> Estimate:
    low = estimate.low
    return Estimate(estimate.value, None if low is None else max(0.0, low), estimate.high)


def _compare(rows: list[dict[str, Any]], rate: str) -> None:
    """Speedup, efficiency and serial share against the first row; a single row has none."""
    base = Estimate.from_dict(rows[0][rate])
    for row in rows:
        n = row["size"] / rows[0]["size"]
        gained = speedup(base, Estimate.from_dict(row[rate]))
        row["speedup"] = row["efficiency"] = row["karp_flatt"] = None
        if len(rows) < 2 or gained is None:
            continue
        row["speedup"] = Estimate(1.0).as_dict() if n == 1 else _not_negative(gained).as_dict()
        row["efficiency"] = gained.value / n
        if not _limited(row):  # else what is not shared is the upstream's slots
            row["karp_flatt"] = karp_flatt(gained.value, n)


def _limited(row: dict[str, Any]) -> bool:
    """Whether more was asked at once than the upstream has slots."""
    return row.get("slots") is not None and row["inflight"] > row["slots"]


def _why(rows: list[dict[str, Any]], free: list[int], over: str) -> str:
    """Why no law is fitted, or not to all sizes."""
    slots = f"with more {over} more is asked than there are slots, which then are the limit"
    if len(free) >= POINTS:
        return "" if len(free) == len(rows) else f"laws are fitted up to {free[-1]} {over}: {slots}"
    if len(free) == len(rows):
        return f"no law is fitted to {len(rows)} sizes: {POINTS} are needed"
    if not free:
        return "no law is fitted: more is asked than there are slots, and they are the limit"
    return f"no law is fitted to {len(free)} sizes, and {POINTS} are needed: {slots}"


def _limits(rows: list[dict[str, Any]], over: str) -> list[str]:
    """What, and not the ranks, limits a curve of requests."""
    if len(rows) < 2:
        return []
    cautions = []
    last = rows[-1]
    together = sum(one["cpu_share"] for one in last["each"])
    if over == "ranks" and together < 0.5:
        cautions.append(
            f"{last['size']} ranks took {together:.0%} of one core together: one could have asked"
            " as much, and the curve is the server's"
        )
    beyond = [row for row in rows if _limited(row)]
    if beyond:
        first = beyond[0]["size"]
        sizes = over.removesuffix("s") if first == 1 else over
        cautions.append(
            f"from {first} {sizes} on, more is asked than there are slots: the curve"
            " shows the upstream, not what the ranks could do"
        )
    return cautions

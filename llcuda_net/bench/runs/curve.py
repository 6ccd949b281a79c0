"""A scaling curve: points put together, speedups, and the three laws fitted."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.runs.ranks import all_metrics
from llcuda_net.bench.statistics.estimates import Estimate, student
from llcuda_net.bench.statistics.laws import LAWS, POINTS, fit, karp_flatt, speedup


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
    rows = []
    whole["repetitions"] = {}
    for size in sizes:
        own = [point for point in points if point[over] == size]
        values = [point[rate]["value"] for point in own]
        # Of whole runs where there are three; else of one run's batches.
        total = student(values) if len(own) >= 3 else None
        first = own[0][rate]
        estimate = total or Estimate(
            sum(values) / len(values), *((first["low"], first["high"]) if len(own) == 1 else ())
        )
        row = {**own[0], "size": size, "runs": len(own), rate: estimate.as_dict()}
        row["metrics"] = all_metrics([point["metrics"] for point in own])
        if "imbalance" in row:
            row["imbalance"] = sum(point["imbalance"] for point in own) / len(own)
        rows.append(row)
        whole["repetitions"][f"{rate} at {size}"] = values
        for point in own:
            whole["problems"] += point["problems"]
            whole["cautions"] += [c for c in point["cautions"] if c not in whole["cautions"]]
    base = Estimate.from_dict(rows[0][rate])
    for row in rows:
        gained = speedup(base, Estimate.from_dict(row[rate]))
        n = row["size"] / sizes[0]
        row["speedup"] = gained.as_dict() if row is not rows[0] else Estimate(1.0).as_dict()
        row["efficiency"] = gained.value / n
        row["karp_flatt"] = karp_flatt(gained.value, row["size"], sizes[0])
    whole["over"] = over
    whole["rows"] = rows
    n = [float(point[over]) for point in points]
    y = [point[rate]["value"] for point in points]
    fits = [fit(law, n, y) for law in LAWS]
    whole["fits"] = [each.as_dict() for each in fits if each is not None]
    if len(sizes) < POINTS:
        whole["fits_why"] = f"no law is fitted to {len(sizes)} sizes: {POINTS} are needed"
    if rate == "tokens_per_s":
        whole["cautions"] += _limits(rows, over)


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
    beyond = [row for row in rows if row["slots"] is not None and row["inflight"] > row["slots"]]
    if beyond:
        cautions.append(
            f"from {beyond[0]['size']} {over} on, more is asked than there are slots: the curve"
            " shows the upstream, not what the ranks could do"
        )
    return cautions

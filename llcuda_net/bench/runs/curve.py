"""A scaling curve: points put together, speedups, and the three laws fitted."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.runs.ranks import all_metrics
from llcuda_net.bench.statistics.estimates import Estimate, student
from llcuda_net.bench.statistics.laws import LAWS, POINTS, fit, karp_flatt, speedup


def fill(whole: dict[str, Any], points: list[dict[str, Any]], over: str) -> None:
    """Put the points into the document: one row a size, the fits, what limits them.

    Args:
        points: what `ranks.point` gave, several of each size.
        over: what is counted: "ranks" or "servers".
    """
    sizes = sorted({int(point[over]) for point in points})
    rows = []
    whole["repetitions"] = {}
    for size in sizes:
        own = [point for point in points if point[over] == size]
        values = [point["tokens_per_s"]["value"] for point in own]
        # Of whole runs where there are three; else of one run's batches.
        total = student(values) if len(own) >= 3 else None
        first = own[0]["tokens_per_s"]
        estimate = total or Estimate(
            sum(values) / len(values), *((first["low"], first["high"]) if len(own) == 1 else ())
        )
        row = {**own[0], "size": size, "runs": len(own), "tokens_per_s": estimate.as_dict()}
        row["metrics"] = all_metrics([point["metrics"] for point in own])
        row["imbalance"] = sum(point["imbalance"] for point in own) / len(own)
        rows.append(row)
        whole["repetitions"][f"tokens_per_s at {size}"] = values
        for point in own:
            whole["problems"] += point["problems"]
            whole["cautions"] += [c for c in point["cautions"] if c not in whole["cautions"]]
    base = Estimate.from_dict(rows[0]["tokens_per_s"])
    for row in rows:
        gained = speedup(base, Estimate.from_dict(row["tokens_per_s"]))
        n = row["size"] / sizes[0]
        row["speedup"] = gained.as_dict() if row is not rows[0] else Estimate(1.0).as_dict()
        row["efficiency"] = gained.value / n
        row["karp_flatt"] = karp_flatt(gained.value, row["size"], sizes[0])
    whole["over"] = over
    whole["rows"] = rows
    n = [float(point[over]) for point in points]
    y = [point["tokens_per_s"]["value"] for point in points]
    fits = [fit(law, n, y) for law in LAWS]
    whole["fits"] = [each.as_dict() for each in fits if each is not None]
    if len(sizes) < POINTS:
        whole["fits_why"] = f"no law is fitted to {len(sizes)} sizes: {POINTS} are needed"
    together = sum(one["cpu_share"] for one in rows[-1]["each"])
    if len(sizes) > 1 and over == "ranks" and together < 0.5:
        whole["cautions"].append(
            f"{sizes[-1]} ranks took {together:.0%} of one core together: one could have asked as"
            " much, and the curve is the server's"
        )
    beyond = [row for row in rows if row["slots"] is not None and row["inflight"] > row["slots"]]
    if len(sizes) > 1 and beyond:
        first = beyond[0]
        whole["cautions"].append(
            f"from {first['size']} {over} on, more is asked than there are slots: the curve shows"
            " the upstream, not what the ranks could do"
        )

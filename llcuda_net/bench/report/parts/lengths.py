"""How long prompts and answers were, as wanted and as they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llcuda_net.bench.report import plots
from llcuda_net.bench.report.cells import Table
from llcuda_net.bench.report.page import Section

_KEYS = ("mean", "min", "p10", "p50", "p90", "p99", "max")


def section(found: dict[str, Any] | None) -> list[Section]:
    """The part of a page; nothing where no length is known.

    Args:
        found: what `statistics.lengths` gave.
    """
    if not found:
        return []
    text = "Tokens of the measured requests. What came is of those that were answered, as counted"
    text += " by the server; wanted is what the workload asked for."
    figures = [histogram(kind, each) for kind, each in found.items() if each]
    return [Section("Lengths of prompts and answers", text, figures, [table(found)])]


def table(found: dict[str, Any]) -> Table:
    """Two rows a kind, without the columns in which nothing is known."""
    rows = []
    for kind, each in found.items():
        for which in ("wanted", "came"):
            own = each and each[which]
            if own:
                numbers = ["-" if own[key] is None else f"{own[key]:,.0f}" for key in _KEYS]
                rows.append([f"{kind}, {which}", f"{own['count']:,}", *numbers])
    heads = ["tokens", "count", *_KEYS]
    kept = [i for i in range(len(heads)) if any(row[i] != "-" for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def histogram(kind: str, found: dict[str, Any]) -> plots.Figure | None:
    """Shares of requests by length; None where all are equally long."""
    edges: Sequence[int] = found["edges"]
    if len(edges) < 3:
        return None
    series = []
    for colour, which in enumerate(("came", "wanted")):
        own = found[which]
        if own is not None:
            shares = [count / own["count"] * 100 for count in own["bars"]]
            points = list(zip(edges, [*shares, 0.0], strict=True))
            series.append(plots.Series(which, points, "steps", colour))
    return plots.chart(
        f"Length of the {kind}",
        series,
        plots.Axis("tokens", "linear", float(edges[0]), float(edges[-1])),
        plots.Axis("% of requests", "linear", 0.0),
    )

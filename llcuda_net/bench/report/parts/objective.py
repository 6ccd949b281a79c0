"""An SLO beside what was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llcuda_net.bench.report import plots
from llcuda_net.bench.report.cells import Table, estimate
from llcuda_net.bench.report.page import Section
from llcuda_net.bench.statistics.summary import NAMES
from llcuda_net.util.numbers import plain, three_digits

#: (load in words, its `slo`, its latency metrics in ms).
Rows = Sequence[tuple[str, dict[str, Any], dict[str, Any]]]


def bounds(slo: Mapping[str, float]) -> str:
    """The objective in words: "TTFT within 500 ms and time per output token within 50 ms"."""
    parts = [f"{NAMES[name]} within {time(bound)}" for name, bound in slo.items()]
    return " and ".join(parts)


def time(seconds: float) -> str:
    """A bound as people say it."""
    return f"{plain(seconds)} s" if seconds >= 1 else f"{plain(seconds * 1e3)} ms"


def percent(found: dict[str, Any] | None) -> str:
    """A share as people read it, with its interval."""
    if found is None:
        return "-"
    text = _of_100(found["value"])
    if found.get("low") is None or found.get("high") is None:
        return text
    return f"{text} ({_of_100(found['low'])} to {_of_100(found['high'])})"


def _of_100(share: float) -> str:
    # What is not all, or not nothing, is not rounded to it.
    if 0 < share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if 0.999 < share < 1 else f"{plain(share * 100, 3)} %"


def lines(slo: Mapping[str, float] | None, found: dict[str, Any] | None) -> list[str]:
    """For a terminal: the objective and its result."""
    if not slo or found is None:
        return []
    each = ", ".join(
        f"{NAMES[name]} within {time(bound)}: {percent(found['each'][name])}"
        for name, bound in slo.items()
    )
    within = f"SLO: {percent(found['within'])} of the requests were within it, goodput"
    out = [f"{within} {estimate(found['goodput'])} requests/s: {each}"]
    if found["open"]:
        out.append(f"SLO: {_undecided(found['open'])}")
    return out


def _undecided(count: int) -> str:
    one = count == 1
    return (
        f"{count} {'request was' if one else 'requests were'} cut before a bound was broken, and"
        f" {'counts' if one else 'count'} as not within it: the shares are lower bounds"
    )


def table(slo: Mapping[str, float], corner: str, rows: Rows) -> Table:
    """A row per load: for each bound the most that the sample supports, then shares, goodput."""
    heads = [corner]
    for name, bound in slo.items():
        heads += [f"{NAMES[name]}, ms", f"within {time(bound)}"]
    heads += ["within all", "goodput, requests/s"]
    cells = []
    for label, found, metrics in rows:
        row = [label]
        for name in slo:
            row += [_farthest(metrics.get(name, {})), percent(found["each"][name])]
        cells.append([*row, percent(found["within"]), estimate(found["goodput"])])
    return heads, cells


def _farthest(metric: dict[str, Any]) -> str:
    """The highest percentile that is known: "412, p99"."""
    for key in ("p99", "p90", "p50"):
        found = metric.get(key)
        if found is not None:
            value = found["value"] if isinstance(found, dict) else found
            return f"{key} {three_digits(value)}"
    return "-"


def section(
    slo: Mapping[str, float] | None,
    groups: Sequence[tuple[str, Rows]],
    figures: Sequence[plots.Figure | None] = (),
) -> list[Section]:
    """The part of a page.

    Args:
        groups: what the rows of a table are called, and the rows.
    """
    if not slo:
        return []
    wanted = bounds(slo)
    text = (
        f"Wanted: {wanted}. Of all requests that were measured; one that failed, was refused, given"
        " up or cut is not within. Goodput: requests within it, by second."
    )
    undecided = sum(found["open"] for _, rows in groups for _, found, _ in rows)
    if undecided:
        text += f" {_undecided(undecided)}."
    tables = [table(slo, corner, rows) for corner, rows in groups if rows]
    return [Section("Objective (SLO) and result", text, figures, tables)]


def curve(
    name: str, rows: Sequence[tuple[float, dict[str, Any]]], x: plots.Axis
) -> plots.Figure | None:
    """The share within over the load.

    Args:
        name: of the load, for the title.
    """
    known = [(load, found["within"]) for load, found in rows if found["within"] is not None]
    hundred = [
        (load, {key: None if (v := share.get(key)) is None else v * 100
                for key in ("value", "low", "high")})
        for load, share in known
    ]  # fmt: skip
    return plots.chart(
        f"Requests within the SLO, by {name}",
        [plots.estimates("% within", hundred, 2)],
        x,
        plots.Axis("% within", "linear", 0.0, 100.0),
    )

"""The throughput figures as a terminal's tables."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report import workload
from llcuda_net.bench.report.cells import Draw, Table, estimate, grid, server, tokens
from llcuda_net.bench.report.parts import energy
from llcuda_net.util.numbers import plain, three_digits

Row = dict[str, Any]


def lines(found: dict[str, Any], draw: Draw = grid) -> list[str]:
    """The terminal's tables.

    Args:
        draw: makes the lines of a table.
    """
    about = found["about"]
    out = [
        f"{about['address']} ({server(about)})",
        *filter(None, [tokens(about)]),
        "",
        *draw(*table(found, "concurrency")),
        "",
        knee(found),
    ]
    if found["rates"]:
        out += ["", *draw(*table(found, "rates")), "", saturation(found)]
    out += energy.lines(found.get("energy"), "load", loads(found), draw)
    if found["post"]:
        out += ["", f"every answer was followed by work: {found['post']}"]
    sent = workload.lines(found)
    return [*out, "", *sent[:-1]] if sent else out


def loads(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """What each load is called, with what it took."""
    return [
        *((f"concurrency {plain(row['load'])}", row["energy"]) for row in found["concurrency"]),
        *((f"{plain(row['load'])} requests/s", row["energy"]) for row in found["rates"]),
    ]


def table(found: dict[str, Any], kind: str) -> Table:
    """A row per load; `kind` is "concurrency" or "rates"."""
    rows: list[Row] = found[kind]
    heads = ["concurrency" if kind == "concurrency" else f"offered, {workload.moment(found)}/s"]
    heads += ["tokens/s (95 % interval)", "requests/s", "TTFT p50, ms", "p99", "TPOT p50, ms"]
    slo = found["settings"]["slo"]
    if slo:
        heads.append("within the SLO, /s")
    heads += ["cut", "unanswered"]
    cells = []
    for row in rows:
        sent = sum(row["outcomes"].values())
        cut = row["outcomes"]["cut"] / sent if sent else 0.0
        lost = sum(row["outcomes"][name] for name in ("refused", "failed", "timeout"))
        line = [
            plain(row["load"]),
            estimate(row["tokens_per_s"]),
            estimate(row["requests_per_s"]),
            *(
                estimate(row["metrics"][metric].get(key))
                for metric, key in (("ttft", "p50"), ("ttft", "p99"), ("tpot", "p50"))
            ),
        ]
        if slo:
            line.append(estimate(row["goodput"]))
        cells.append([*line, f"{cut:.0%}", str(lost) + ("  INVALID" if row["problems"] else "")])
    return heads, cells


def knee(found: dict[str, Any]) -> str:
    """Where the knee is, in words."""
    at = found["knee"]
    if at["load"] is None:
        return f"no knee: {at['why']}"
    return (
        f"the knee is at concurrency {plain(at['load'])}:"
        f" {three_digits(at['tokens_per_s'])} tokens/s;"
        " beyond it more concurrency mostly makes requests wait"
    )


def saturation(found: dict[str, Any]) -> str:
    """From which rate on less is carried than offered, in words."""
    at, what = found["saturation"], workload.moment(found)
    carried = "" if at["carried"] is None else f"{plain(at['carried'])} {what}/s are carried"
    if at["from"] is not None:
        less = f" ({carried})" if carried else ""
        return f"saturated from {plain(at['from'])} {what}/s on{less}"
    if at["carried"] == found["rates"][-1]["load"]:
        return f"not saturated: {carried}, the most that was offered"
    text = f"whether it is saturated cannot be told{': ' if carried else ''}{carried}"
    first = next(row for row in found["rates"] if row["load"] > (at["carried"] or 0.0))
    return f"{text}; at {plain(first['load'])}: {first['saturated_why']}"

"""bench_throughput's figures for people: the terminal's tables and the page."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench import page as pages
from llcuda_net.bench import plots
from llcuda_net.bench.shown import estimate, grid, number

Row = dict[str, Any]


def lines(found: dict[str, Any]) -> list[str]:
    """The terminal's tables."""
    about = found["about"]
    out = [
        f"{about['address']} ({about['version']}, {about['model']}, {about['slots']} slots)",
        "",
        *grid(*_table(found, "concurrency")),
        "",
        _knee(found),
    ]
    if found["rates"]:
        out += ["", *grid(*_table(found, "rates")), "", _saturation(found)]
    if found["post"]:
        out += ["", f"every answer was followed by work: {found['post']}"]
    return out


def _table(found: dict[str, Any], kind: str) -> tuple[list[str], list[list[str]]]:
    rows: list[Row] = found[kind]
    heads = ["concurrency" if kind == "concurrency" else "offered, requests/s"]
    heads += ["tokens/s (95 % interval)", "requests/s", "TTFT p50, ms", "p99", "TPOT p50, ms"]
    slo = found["settings"]["slo"]
    if slo:
        heads.append("within the SLO, /s")
    heads.append("unanswered")
    cells = []
    for row in rows:
        lost = sum(row["outcomes"][name] for name in ("refused", "failed", "timeout"))
        line = [
            f"{row['load']:g}",
            estimate(row["tokens_per_s"]),
            estimate(row["requests_per_s"]),
            *(
                number(row["metrics"][metric][key]["value"])
                if row["metrics"][metric].get(key)
                else "-"
                for metric, key in (("ttft", "p50"), ("ttft", "p99"), ("tpot", "p50"))
            ),
        ]
        if slo:
            line.append(estimate(row["goodput"]))
        cells.append([*line, str(lost) + ("  INVALID" if row["problems"] else "")])
    return heads, cells


def _knee(found: dict[str, Any]) -> str:
    knee = found["knee"]
    if knee["load"] is None:
        return f"no knee: {knee['why']}"
    return (
        f"the knee is at concurrency {knee['load']:g}: {number(knee['tokens_per_s'])} tokens/s;"
        " beyond it more concurrency mostly makes requests wait"
    )


def _saturation(found: dict[str, Any]) -> str:
    at = found["saturation"]
    carried = "" if at["carried"] is None else f"{at['carried']:g} requests/s are carried"
    if at["from"] is not None:
        less = f" ({carried})" if carried else ""
        return f"saturated from {at['from']:g} requests/s on{less}"
    if at["carried"] == found["rates"][-1]["load"]:
        return f"not saturated: {carried}, the most that was offered"
    return f"whether it is saturated cannot be told{': ' if carried else ''}{carried}"


def page(found: dict[str, Any]) -> str:
    """The HTML page."""
    about = found["about"]
    text = f"{about['address']}, {about['version']}, {about['model']}, {about['slots']} slots."
    best = max(found["concurrency"], key=lambda row: row["tokens_per_s"]["value"])
    cards = [_card(best["tokens_per_s"], f"tokens/s at concurrency {best['load']:g}")]
    if found["knee"]["load"] is not None:
        cards.append((f"{found['knee']['load']:g}", "concurrency at the knee", ""))
    if found["rates"] and found["saturation"]["from"] is not None:
        cards.append((f"{found['saturation']['from']:g}/s", "offered rate that saturates", ""))
    if found["settings"]["slo"]:
        good = [row for row in [*found["concurrency"], *found["rates"]] if row["goodput"]]
        top = max(good, key=lambda row: row["goodput"]["value"])
        cards.append(_card(top["goodput"], "requests/s within the SLO, at best"))
    sections = [
        pages.cards(cards),
        pages.section(
            "Against concurrency",
            pages.plots(_throughput(found), _latencies(found, "concurrency")),
            pages.table(*_table(found, "concurrency")),
            text=f"{text} {_sentence(_knee(found))}",
        ),
    ]
    if found["rates"]:
        sections.append(
            pages.section(
                "Against offered rate",
                pages.plots(_carried(found), _latencies(found, "rates")),
                pages.table(*_table(found, "rates")),
                text=f"Independent users (Poisson arrivals). {_sentence(_saturation(found))}",
            )
        )
    return pages.page("llcuda: throughput", found, sections)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _card(found: dict[str, Any], name: str) -> tuple[str, str, str]:
    low, high = found["low"], found["high"]
    interval = "" if low is None else f"{number(low)} to {number(high)}"
    return number(found["value"]), name, interval


def _curve(rows: list[Row], key: str, name: str, colour: int) -> plots.Series:
    found = [(row["load"], row[key]) for row in rows if row[key]]
    return plots.Series(
        name,
        [(load, each["value"]) for load, each in found],
        "both",
        colour,
        [None if e["low"] is None else (e["low"], e["high"]) for _, e in found],
    )


def _throughput(found: dict[str, Any]) -> str:
    knee = found["knee"]["load"]
    slots = float(found["about"]["slots"])
    loads = [row["load"] for row in found["concurrency"]]
    marks = [] if knee is None else [plots.Mark(knee, "knee")]
    if loads[0] <= slots <= loads[-1] and slots != knee:
        marks.append(plots.Mark(slots, "slots"))
    return plots.chart(
        "Tokens/s",
        [_curve(found["concurrency"], "tokens_per_s", "tokens/s", 0)],
        plots.Axis("concurrency", "log", loads[0], loads[-1], loads),
        plots.Axis("tokens/s"),
        marks,
        caption="By the wall clock, as tokens arrive. Whiskers: 95 % intervals.",
    )


def _latencies(found: dict[str, Any], kind: str) -> str:
    rows: list[Row] = found[kind]
    series = []
    for colour, key in enumerate(("p50", "p90", "p99")):
        known = [(row["load"], row["metrics"]["ttft"].get(key)) for row in rows]
        points = [(load, each) for load, each in known if each]
        series.append(
            plots.Series(
                key,
                [(load, each["value"]) for load, each in points],
                "both",
                colour,
                [None if e["low"] is None else (e["low"], e["high"]) for _, e in points],
            )
        )
    loads = [row["load"] for row in rows]
    across = plots.Axis("concurrency", "log", loads[0], loads[-1], loads)
    if kind == "rates":
        across = plots.Axis("offered, requests/s", "linear", 0.0)
    return plots.chart(
        "Time to first token",
        series,
        across,
        plots.Axis("ms", "log"),
        caption="From the intended moment. Percentiles that the sample supports.",
    )


def _carried(found: dict[str, Any]) -> str:
    rows: list[Row] = found["rates"]
    last = rows[-1]["load"]
    series = [
        plots.Series("offered", [(0.0, 0.0), (last, last)], "dashed", 5),
        _curve(rows, "requests_per_s", "carried", 0),
    ]
    if found["settings"]["slo"]:
        series.append(_curve(rows, "goodput", "within the SLO", 2))
    start = found["saturation"]["from"]
    return plots.chart(
        "Carried and offered",
        series,
        plots.Axis("offered, requests/s", "linear", 0.0),
        plots.Axis("requests/s", "linear", 0.0),
        [] if start is None else [plots.Mark(start, "saturated")],
        caption="Where the lines part, the queue grows for as long as the load lasts.",
    )

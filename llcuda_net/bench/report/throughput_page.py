"""The throughput figures as a page."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report import plots, throughput
from llcuda_net.bench.report.cells import interval, server
from llcuda_net.bench.report.page import Card, Section
from llcuda_net.bench.report.page import page as whole
from llcuda_net.bench.report.parts import energy, lengths, objective, pareto
from llcuda_net.bench.report.throughput import Row
from llcuda_net.util.numbers import plain, three_digits


def page(found: dict[str, Any]) -> str:
    """The HTML page of a document with the figures."""
    about = found["about"]
    knee = _sentence(throughput.knee(found))
    sections = [
        Section(
            "Against concurrency",
            f"{about['address']}, {server(about)}. {knee}",
            [_throughput(found), _latencies(found, "concurrency")],
            [throughput.table(found, "concurrency")],
        )
    ]
    if found["rates"]:
        saturation = _sentence(throughput.saturation(found))
        sections.append(
            Section(
                "Against offered rate",
                f"Independent users (Poisson arrivals). {saturation}",
                [_carried(found), _latencies(found, "rates")],
                [throughput.table(found, "rates")],
            )
        )
    sections = [*_objective(found), *sections, *_users(found)]
    sections += lengths.section(found.get("lengths"))
    if found.get("energy"):
        rows = [(row["load"], row["energy"]) for row in found["concurrency"]]
        figure = energy.curve(rows, _across(found, "concurrency"))
        sections += energy.section(found["energy"], "Load", throughput.loads(found), figure)
    return whole("llcuda: throughput", found, _cards(found), sections)


def _objective(found: dict[str, Any]) -> list[Section]:
    slo = found["settings"]["slo"]
    if not slo:
        return []
    groups, figures = [], []
    for kind, name in (("concurrency", "concurrency"), ("rates", "offered rate")):
        rows: list[Row] = found[kind]
        head = "Concurrency" if kind == "concurrency" else "Offered, requests/s"
        groups.append((head, [(plain(row["load"]), row["slo"], row["metrics"]) for row in rows]))
        points = [(row["load"], row["slo"]) for row in rows]
        figures.append(objective.curve(name, points, _across(found, kind)) if rows else None)
    return objective.section(slo, groups, figures)


def _users(found: dict[str, Any]) -> list[Section]:
    chart = pareto.chart(
        [
            pareto.series("by concurrency", found["concurrency"], "load", 0),
            pareto.series("by requests/s", found["rates"], "load", 1),
        ],
        "its load",
    )
    text = "Each load is a point: what a user sees while an answer comes, and what the server does."
    return [Section("What one user gets, and what all get", text, [chart])]


def _across(found: dict[str, Any], kind: str) -> plots.Axis:
    """The loads on an axis."""
    if kind == "rates":
        return plots.Axis("offered, requests/s", "linear", 0.0)
    loads = [row["load"] for row in found["concurrency"]]
    return plots.Axis("concurrency", "log", loads[0], loads[-1], loads)


def _cards(found: dict[str, Any]) -> list[Card]:
    best = max(found["concurrency"], key=lambda row: row["tokens_per_s"]["value"])
    cards = [_card(best["tokens_per_s"], f"tokens/s at concurrency {plain(best['load'])}")]
    if found["knee"]["load"] is not None:
        cards.append((f"{plain(found['knee']['load'])}", "concurrency at the knee", ""))
    if found["rates"] and found["saturation"]["from"] is not None:
        cards.append((f"{plain(found['saturation']['from'])}/s", "offered rate that saturates", ""))
    if found["settings"]["slo"]:
        good = [row for row in [*found["concurrency"], *found["rates"]] if row["goodput"]]
        top = max(good, key=lambda row: row["goodput"]["value"])
        cards.append(_card(top["goodput"], "goodput at best, requests/s within the SLO"))
    return cards


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _card(found: dict[str, Any], name: str) -> Card:
    return three_digits(found["value"]), name, interval(found)


def _curve(rows: list[Row], key: str, name: str, colour: int) -> plots.Series:
    found = [(row["load"], row[key]) for row in rows if row[key]]
    return plots.Series(
        name,
        [(load, each["value"]) for load, each in found],
        "both",
        colour,
        [None if e["low"] is None else (e["low"], e["high"]) for _, e in found],
    )


def _throughput(found: dict[str, Any]) -> plots.Figure | None:
    knee = found["knee"]["load"]
    slots = found["about"]["slots"] or 0
    loads = [row["load"] for row in found["concurrency"]]
    marks = [] if knee is None else [plots.Mark(knee, "knee")]
    if loads[0] <= slots <= loads[-1] and slots != knee:
        marks.append(plots.Mark(slots, "slots"))
    return plots.chart(
        "Tokens/s",
        [_curve(found["concurrency"], "tokens_per_s", "tokens/s", 0)],
        _across(found, "concurrency"),
        plots.Axis("tokens/s"),
        marks,
        caption="By the wall clock, as tokens arrive. Whiskers: 95 % intervals.",
    )


def _latencies(found: dict[str, Any], kind: str) -> plots.Figure | None:
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
    return plots.chart(
        "Time to first token",
        series,
        _across(found, kind),
        plots.Axis("ms", "log"),
        caption="From the intended moment. Percentiles that the sample supports.",
    )


def _carried(found: dict[str, Any]) -> plots.Figure | None:
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

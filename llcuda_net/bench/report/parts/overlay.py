"""Several runs of one kind of measurement on one page: the same axes, and what differs surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.report import latency, plots
from llcuda_net.bench.report.cells import RATES, rate_of
from llcuda_net.bench.report.page import Section, moment, overlaid, plain
from llcuda_net.bench.report.parts import pareto
from llcuda_net.bench.statistics.summary import NAMES
from llcuda_net.util.numbers import three_digits

#: A run's name and its document.
Run = tuple[str, dict[str, Any]]


def overlay(
    documents: Sequence[dict[str, Any]],
    names: Sequence[str] = (),
    told: Sequence[dict[str, Any]] = (),
) -> str:
    """The HTML page of several runs; the others are compared with the first.

    Args:
        names: of the documents; empty: by their dates.
        told: of each other document what a comparison with the first gave: `changes` (see
            `statistics.compare.Change.as_dict`), and lines that are its `obstacles`, `differences`
            and `notes`.
    """
    given = list(names) or [moment(found) for found in documents]
    runs = [
        (f"{letter}: {name}", found)
        for letter, name, found in zip(_letters(len(documents)), given, documents, strict=True)
    ]
    notes = []
    for (name, _), one in zip(runs[1:], told, strict=False):
        for kind in ("obstacles", "differences", "notes"):
            notes += [f"{name}: {line}" for line in one.get(kind, ())]
    sections = [
        Section("The runs", tables=[_runs(runs)]),
        *_figures(runs),
        *(_verdicts(name, one) for (name, _), one in zip(runs[1:], told, strict=False)),
        *_settings(runs),
    ]
    kinds = {_kind(found) for found in documents}
    title = f"llcuda: {len(documents)} runs of {' and '.join(sorted(kinds))}"
    when = f"{runs[0][0]} is what the others are compared with"
    return overlaid(title, when, runs, notes, sections)


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]


def _kind(found: dict[str, Any]) -> str:
    if "paths" in found:
        return "latency"
    return "throughput" if "concurrency" in found else "scaling"


def _runs(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, found in runs:
        machine = found["machine"]
        about = _about(found)
        server = "-" if about is None else f"{about['version']}, {about['model']}"
        cores = f"{machine['processor']}, {machine['cores']} cores"
        valid = "INVALID" if found["problems"] else "valid"
        rows.append([name, moment(found), server, cores, valid])
    return ["Run", "When", "Server", "Client's machine", ""], rows


def _about(found: dict[str, Any]) -> dict[str, Any] | None:
    kind = _kind(found)
    if kind == "throughput":
        return dict(found["about"])
    if kind == "latency":
        return dict(latency.first(found)["about"])
    about = found["rows"][-1]["each"][0].get("about")
    return dict(about) if about else None


def _figures(runs: Sequence[Run]) -> list[Section]:
    """The charts of what all runs are; none where they are of several measurements."""
    kinds = {_kind(found) for _, found in runs}
    if len(kinds) > 1:
        return []
    charts = {"latency": _latency, "throughput": _throughput, "scaling": _scaling}
    return [Section("Beside each other", figures=charts[kinds.pop()](runs))]


def _latency(runs: Sequence[Run]) -> list[plots.Figure | None]:
    return [_percentiles(runs, metric) for metric in ("ttft", "tpot", "latency", "gap")]


def _percentiles(runs: Sequence[Run], metric: str) -> plots.Figure | None:
    series = []
    for colour, (name, found) in enumerate(runs):
        text = latency.first(found)["metrics"][metric].get("histogram")
        if text:
            histogram = Histogram.decode(text)
            top = 1 - 10 / max(11, len(histogram))  # what the sample supports
            points = [(share, s * 1e3) for s, share in histogram.steps() if share <= top]
            series.append(plots.Series(name, plots.thin(points), "line", colour))
    across = plots.Axis("percentile", "nines", 0.0)
    return plots.chart(f"{NAMES[metric]} by percentile", series, across, plots.Axis("ms"))


def _throughput(runs: Sequence[Run]) -> list[plots.Figure | None]:
    users = [pareto.series(n, f["concurrency"], "load", i) for i, (n, f) in enumerate(runs)]
    loads = sorted({row["load"] for _, found in runs for row in found["concurrency"]})
    across = plots.Axis("concurrency", "log", loads[0], loads[-1], loads)
    offered = plots.Axis("offered, requests/s", "linear", 0.0)
    return [
        _curve("Tokens/s", runs, "concurrency", "tokens_per_s", across),
        _times(runs, "concurrency", across),
        pareto.chart(users, "the concurrency"),
        _curve("Carried requests/s", runs, "rates", "requests_per_s", offered),
        _times(runs, "rates", offered),
        _curve("Goodput, requests/s", runs, "concurrency", "goodput", across),
    ]


def _curve(
    title: str, runs: Sequence[Run], kind: str, key: str, x: plots.Axis
) -> plots.Figure | None:
    series = []
    for colour, (name, found) in enumerate(runs):
        known = [(row["load"], row[key]) for row in found[kind] if row.get(key)]
        series.append(plots.estimates(name, known, colour))
    return plots.chart(title, series, x, plots.Axis(title.split(", ")[-1].lower(), "linear", 0.0))


def _times(runs: Sequence[Run], kind: str, x: plots.Axis) -> plots.Figure | None:
    series = []
    for colour, (name, found) in enumerate(runs):
        known = [(row["load"], row["metrics"]["ttft"].get("p50")) for row in found[kind]]
        series.append(plots.estimates(name, [(at, e) for at, e in known if e], colour))
    title = f"Time to first token, median, by {'rate' if kind == 'rates' else kind}"
    return plots.chart(title, series, x, plots.Axis("ms", "log"))


def _scaling(runs: Sequence[Run]) -> list[plots.Figure | None]:
    out: list[plots.Figure | None] = []
    sizes = sorted({float(row["size"]) for _, found in runs for row in found["rows"]})
    across = plots.Axis(runs[0][1]["over"], "linear", sizes[0], sizes[-1], sizes)
    rate = rate_of(runs[0][1])
    for title, key in ((RATES[rate].capitalize(), rate), ("Speedup", "speedup")):
        series = []
        for colour, (name, found) in enumerate(runs):
            known = [(row["size"], row[key]) for row in found["rows"] if row.get(key)]
            series.append(plots.estimates(name, known, colour))
        out.append(plots.chart(title, series, across, plots.Axis(title.lower(), "linear", 0.0)))
    return out


def _verdicts(name: str, told: dict[str, Any]) -> Section:
    """One run against the first."""
    rows = []
    for change in told["changes"]:
        relative = change["relative"]
        by = f"{relative['value']:+.1%}"
        if relative.get("low") is not None and relative.get("high") is not None:
            by += f" ({relative['low']:+.1%} to {relative['high']:+.1%})"
        rows.append(
            [
                *(change["figure"], change["verdict"]),
                *(three_digits(change["old"]), three_digits(change["new"]), by, change["why"]),
            ]
        )
    text = "Times in ms, by whole repeats; all figures are judged together (Holm 1979)."
    head = f"{name} against the first"
    tables = [(["Figure", "Verdict", "First", "This", "Change", ""], rows)] if rows else []
    return Section(head, text if rows else "No figure in common.", tables=tables, alone=not rows)


def _settings(runs: Sequence[Run]) -> list[Section]:
    """Settings in which they differ."""
    every = dict.fromkeys(name for _, found in runs for name in found["settings"])
    rows = []
    for setting in every:
        values = [plain(found["settings"].get(setting)) for _, found in runs]
        if len(set(values)) > 1:
            rows.append([setting, *values])
    if not rows:
        return []
    heads = ["Setting", *(name.partition(":")[0] for name, _ in runs)]
    return [Section("Settings that differ", tables=[(heads, rows)])]

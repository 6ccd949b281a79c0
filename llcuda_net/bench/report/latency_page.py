"""The latency figures as a page."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.report import latency, plots
from llcuda_net.bench.report.cells import estimate, interval
from llcuda_net.bench.report.page import Card, Section
from llcuda_net.bench.report.page import page as whole
from llcuda_net.bench.report.parts import energy, lengths, objective, sessions
from llcuda_net.bench.statistics.summary import NAMES, meaning, parts
from llcuda_net.util.numbers import three_digits
from llcuda_net.util.quantile import PERCENTILES

_CARDS = (
    *(("ttft", "p50"), ("ttft", "p99"), ("gap", "p99")),
    *(("tpot", "p50"), ("latency", "p50"), ("latency", "p99")),
)


def page(found: dict[str, Any]) -> str:
    """The HTML page of a document with the figures."""
    sections = [*_comparison(found), *_objective(found)]
    for path, summary in found["paths"].items():
        about = summary["about"]
        sections.append(
            Section(
                path.capitalize(),
                f"{latency.who(about)}. {found['schedule']}; {latency.counts(summary)}.",
                tables=[latency.table("Milliseconds", summary)],
            )
        )
    main = latency.first(found)
    sections += [
        Section(
            "Shape",
            figures=[
                _percentiles(found, "ttft"),
                _percentiles(found, "latency"),
                _percentiles(found, "gap"),
                _timeline(found),
            ],
        ),
        Section(
            "Where the time went",
            "As the server reports it; first_token is what it takes beside the prompt.",
            figures=[plots.bars("Mean of an answer, by phase", parts(main["phases"]), "ms")],
        ),
        *_cost(found),
        *_work(found),
        *sessions.section(found.get("sessions")),
        *lengths.section(found.get("lengths")),
        *energy.section(
            found.get("energy"),
            "Load",
            [("all requests", found["energy"] and found["energy"]["figures"])],
        ),
        Section("This client", latency.client(found), alone=True),
    ]
    return whole("llcuda: latency", found, _cards(found), sections)


def _cards(found: dict[str, Any]) -> list[Card]:
    metrics = latency.first(found)["metrics"]
    level = found.get("slo")
    cards = []
    if level is not None:
        share, _, between = objective.percent(level["within"]).partition(" (")
        cards.append((share, "of the requests within the SLO", between.removesuffix(")")))
    values = [(metric, key, metrics[metric].get(key)) for metric, key in _CARDS]
    for metric, key, value in values:
        if value is not None:
            name = f"{NAMES[metric]}, {key}"
            if level is not None and metric in level["bounds"]:
                name += f" (SLO: {objective.time(level['bounds'][metric])})"
            cards.append((f"{three_digits(value['value'])} ms", name, interval(value)))
    return cards


def _objective(found: dict[str, Any]) -> list[Section]:
    level = found.get("slo")
    if level is None:
        return []
    rows = [("all requests", level, latency.first(found)["metrics"])]
    return objective.section(level["bounds"], [("Load", rows)])


def _comparison(found: dict[str, Any]) -> list[Section]:
    comparison = found.get("comparison")
    if comparison is None:
        return []
    rows = [
        [c["figure"], c["verdict"], three_digits(c["old"]), three_digits(c["new"]),
         f"{c['relative']['value']:+.1%}", c["why"]]
        for c in comparison["changes"]
    ]  # fmt: skip
    table = (["Figure", "Verdict", "Old", "New", "Change", ""], rows)
    return [Section("Against the older run", f"of {comparison['when']}", tables=[table])]


def _cost(found: dict[str, Any]) -> list[Section]:
    rows = [
        [latency.COSTS[metric], estimate(cost["median"]), estimate(cost["mean"]),
         str(cost["pairs"])]
        for metric, cost in found.get("cost", {}).items()
        if cost is not None
    ]  # fmt: skip
    if not rows:
        return []
    text = "Each prompt went both ways, in random order: differences pair by pair."
    table = (["Milliseconds added to", "Median", "Mean", "Pairs"], rows)
    return [Section(latency.cost_of(found).capitalize(), text, tables=[table])]


def _work(found: dict[str, Any]) -> list[Section]:
    post = latency.first(found).get("post")
    if post is None:
        return []
    rows = [["per answer", *[estimate(post.get(key)) for key in ("mean", *PERCENTILES)]]]
    table = (["Milliseconds", "mean", *PERCENTILES], rows)
    text = f"{found['post']}. Not part of any latency above."
    return [Section("Work on the answers", text, tables=[table])]


def _percentiles(found: dict[str, Any], metric: str) -> plots.Figure | None:
    series = []
    for colour, (path, summary) in enumerate(found["paths"].items()):
        text = summary["metrics"][metric].get("histogram")
        if text:
            histogram = Histogram.decode(text)
            top = 1 - 10 / max(11, len(histogram))  # what the sample supports
            points = [(share, s * 1e3) for s, share in histogram.steps() if share <= top]
            series.append(plots.Series(path, plots.thin(points), "line", colour))
    return plots.chart(
        f"{NAMES[metric]} by percentile",
        series,
        plots.Axis("percentile", "nines", 0.0),
        plots.Axis("ms"),
        caption=f"{meaning(metric).capitalize()}. Drawn as far as ten requests lie beyond.",
    )


def _timeline(found: dict[str, Any]) -> plots.Figure | None:
    series = []
    for colour, path in enumerate(found["paths"]):
        points = [(at, ms) for at, ms, way, _ in found["timeline"] if way == path]
        series.append(plots.Series(path, plots.thin(sorted(points), 900), "dots", colour))
    return plots.chart(
        "Each answer",
        series,
        plots.Axis("intended moment, seconds of the run"),
        plots.Axis("end to end, ms"),
        caption="A queue that grows is a slope, a stall a falling edge.",
    )

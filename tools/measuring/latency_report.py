"""bench_latency's figures for people: the terminal's table and the page."""

from __future__ import annotations

from html import escape
from typing import Any

from llcuda_net.bench import page as pages
from llcuda_net.bench import plots
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.shown import estimate, grid, number
from llcuda_net.bench.summary import NAMES, SHARES, meaning, parts

#: Rows of the table, the headline first.
_ROWS = ("ttft", "gap", "tpot", "latency", "service_ttft", "service")
_COSTS = {
    "service_ttft": "first token",
    "tpot": "each token after it",
    "service": "the whole answer",
}


def lines(found: dict[str, Any]) -> list[str]:
    """The terminal's table."""
    out = []
    for path, summary in found["paths"].items():
        about = summary["about"]
        out += [
            f"{_label(path, about)}: {_who(about)}",
            f"{found['schedule']}; {_counts(summary)}",
            "",
            *grid(*_full(["ms (95 % interval)", *_HEADS], _rows(summary))),
            "",
        ]
        if summary["phases"]:
            told = [f"{name} {number(mean)}" for name, mean in parts(summary["phases"])]
            out += [f"by phase, mean ms, as the server reports it: {', '.join(told)}", ""]
        if "post" in summary:
            out += [f"work on each answer ({found['post']}): {_brief(summary['post'])}", ""]
    for metric, cost in found.get("cost", {}).items():
        if cost is not None:
            out.append(
                f"the gateway's own cost, {_COSTS[metric]}: median"
                f" {estimate(cost['median'], ' ms')}, mean {estimate(cost['mean'], ' ms')},"
                f" {cost['pairs']} pairs"
            )
    return [*out, _client(found)]


def _label(path: str, about: dict[str, Any]) -> str:
    """What is measured may be a llama-server, too: then it is no gateway."""
    return "server" if path == "gateway" and "llama-server" in about["version"] else path


def _who(about: dict[str, Any]) -> str:
    return f"{about['address']} ({about['version']}, {about['model']}, {about['slots']} slots)"


def _full(heads: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table without the columns in which nothing is known."""
    kept = [i for i in range(len(heads)) if any(row[i] != "-" for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


_HEADS = ("mean", "p50", "p90", "p99", "p99.9", "max")


def _rows(summary: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in _ROWS:
        metric = summary["metrics"][name]
        if metric["count"]:
            cells = [estimate(metric.get(key)) for key in ("mean", *SHARES)]
            rows.append([NAMES[name], *cells, number(metric["max"])])
    return rows


def _counts(summary: dict[str, Any]) -> str:
    told = [f"{count} {name}" for name, count in summary["outcomes"].items() if count]
    return f"{summary['requests']} requests: {', '.join(told)}; {summary['tokens']:,} tokens"


def _brief(metric: dict[str, Any]) -> str:
    return f"mean {estimate(metric.get('mean'), ' ms')}, p50 {estimate(metric.get('p50'), ' ms')}"


def _client(found: dict[str, Any]) -> str:
    client = found["client"]
    lag = client["lag"]
    share = max(client["cpu_share"])
    p99 = lag.get("p99")
    worst = f"p99 {estimate(p99, ' ms')}, " if p99 else ""
    text = f"this client had a dispatch lag of {worst}max {number(lag.get('max', 0.0))} ms,"
    text += f" took {share:.0%} of a core"
    test = client["self_test"]
    if test is not None:
        text += (
            f"; from a server that does nothing it reads {number(test['tokens_per_s'])} tokens/s,"
            f" the first after {number(test['ttft_ms'])} ms"
        )
    return text


def page(found: dict[str, Any]) -> str:
    """The HTML page."""
    main = found["paths"]["gateway"]
    sections = [pages.cards(_cards(found)), *_comparison(found)]
    for path, summary in found["paths"].items():
        about = summary["about"]
        text = f"{_who(about)}. {found['schedule']}; {_counts(summary)}."
        table = pages.table(*_full(["Milliseconds", *_HEADS], _rows(summary)))
        sections.append(pages.section(_label(path, about).capitalize(), table, text=text))
    sections.append(
        pages.section(
            "Shape",
            pages.plots(
                _percentiles(found, "ttft"),
                _percentiles(found, "latency"),
                _percentiles(found, "gap"),
                _timeline(found),
            ),
        )
    )
    sections.append(
        pages.section(
            "Where the time went",
            plots.bars("Mean of an answer, by phase", parts(main["phases"]), "ms"),
            text="As the server reports it; first_token is what it takes beside the prompt.",
        )
    )
    costs = [
        [_COSTS[metric], estimate(cost["median"]), estimate(cost["mean"]), str(cost["pairs"])]
        for metric, cost in found.get("cost", {}).items()
        if cost is not None
    ]
    if costs:
        text = "Each prompt went both ways, in random order: differences pair by pair."
        table = pages.table(["Milliseconds added to", "Median", "Mean", "Pairs"], costs)
        sections.append(pages.section("The gateway's own cost", table, text=text))
    if "post" in main:
        text = f"{found['post']}. Not part of any latency above."
        rows = [["per answer", *[estimate(main["post"].get(k)) for k in ("mean", *SHARES)]]]
        table = pages.table(["Milliseconds", "mean", *SHARES], rows)
        sections.append(pages.section("Work on the answers", table, text=text))
    sections.append(f'<h2>This client</h2><p class="sub">{escape(_client(found))}</p>')
    return pages.page("llcuda: latency", found, sections)


def _cards(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    metrics = found["paths"]["gateway"]["metrics"]
    out = []
    for metric, key in (
        *(("ttft", "p50"), ("ttft", "p99"), ("gap", "p99")),
        *(("tpot", "p50"), ("latency", "p50"), ("latency", "p99")),
    ):
        value = metrics[metric].get(key)
        if value is not None:
            low, high = value["low"], value["high"]
            interval = "" if low is None else f"{number(low)} to {number(high)}"
            out.append((f"{number(value['value'])} ms", f"{NAMES[metric]}, {key}", interval))
    return out


def _comparison(found: dict[str, Any]) -> list[str]:
    comparison = found.get("comparison")
    if comparison is None:
        return []
    rows = [
        [c["figure"], c["verdict"], number(c["old"]), number(c["new"]),
         f"{c['relative']['value']:+.1%}", c["why"]]
        for c in comparison["changes"]
    ]  # fmt: skip
    table = pages.table(["Figure", "Verdict", "Old", "New", "Change", ""], rows)
    return [pages.section("Against the older run", table, text=f"of {comparison['when']}")]


def _percentiles(found: dict[str, Any], metric: str) -> str:
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


def _timeline(found: dict[str, Any]) -> str:
    series = []
    for colour, path in enumerate(found["paths"]):
        points = [(at, ms) for at, ms, way, _ in found["timeline"] if way == path]
        series.append(plots.Series(path, plots.thin(sorted(points), 900), "dots", colour))
    return plots.chart(
        "Each answer",
        series,
        plots.Axis("seconds since the run's start, when it was meant to be sent"),
        plots.Axis("end to end, ms"),
        caption="A queue that grows is a slope, a stall a falling edge.",
    )

"""The latency figures as a terminal's table."""

from __future__ import annotations

from typing import Any

from llcuda_net.batch.record import DIRECT, GATEWAY
from llcuda_net.bench.report import workload
from llcuda_net.bench.report.cells import Draw, Table, estimate, grid, server, tokens
from llcuda_net.bench.report.parts import energy, objective
from llcuda_net.bench.statistics.summary import NAMES, parts
from llcuda_net.util.numbers import three_digits
from llcuda_net.util.quantile import PERCENTILES

#: Rows of the table, the headline first.
_ROWS = ("ttft", "gap", "tpot", "latency", "service_ttft", "service")
COSTS = {
    "service_ttft": "first token",
    "tpot": "each token after it",
    "service": "the whole answer",
}


def lines(found: dict[str, Any], draw: Draw = grid) -> list[str]:
    """The terminal's table.

    Args:
        draw: makes the lines of a table.
    """
    out = []
    for path, summary in found["paths"].items():
        about = summary["about"]
        out += [
            f"{path}: {who(about)}",
            *filter(None, [tokens(about)]),
            f"{found['schedule']}; {counts(summary)}",
            "",
            *draw(*table("ms (95 % interval)", summary)),
            *reasons(summary),
            "",
        ]
        if summary["phases"]:
            phases = [f"{name} {three_digits(mean)}" for name, mean in parts(summary["phases"])]
            out += [f"by phase, mean ms, as the server reports it: {', '.join(phases)}", ""]
        if "post" in summary:
            out += [f"work on each answer ({found['post']}): {_brief(summary['post'])}", ""]
    if found.get("carried"):
        rates = [estimate(found["carried"].get(f"{what}_per_s")) for what in ("requests", "tokens")]
        out += [f"carried: {rates[0]} requests/s, {rates[1]} tokens/s", ""]
    for metric, cost in found.get("cost", {}).items():
        if cost is not None:
            out.append(
                f"{cost_of(found)}, {COSTS[metric]}: median"
                f" {estimate(cost['median'], ' ms')}, mean {estimate(cost['mean'], ' ms')},"
                f" {cost['pairs']} pairs"
            )
    level = found.get("slo")
    out += objective.lines(level and level["bounds"], level)
    out += [*workload.lines(found), client(found)]
    took = found.get("energy")
    return [*out, *energy.lines(took, "energy", [("all requests", took and took["figures"])], draw)]


def first(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of the server that was asked, not those of the one beside it."""
    return next(summary for path, summary in found["paths"].items() if path != DIRECT)


def cost_of(found: dict[str, Any]) -> str:
    """What the difference between both ways is: a cost only where one leads to the other."""
    return "the gateway's own cost" if GATEWAY in found["paths"] else "server minus direct"


def who(about: dict[str, Any]) -> str:
    """The server in words: address, software, model, slots."""
    return f"{about['address']} ({server(about)})"


def table(corner: str, summary: dict[str, Any]) -> Table:
    """The figures of one path, without the columns in which nothing is known."""
    heads = [corner, "mean", *PERCENTILES, "max"]
    rows = []
    for name in _ROWS:
        metric = summary["metrics"][name]
        if metric["count"]:
            cells = [estimate(metric.get(key)) for key in ("mean", *PERCENTILES)]
            rows.append([NAMES[name], *cells, three_digits(metric["max"])])
    kept = [i for i in range(len(heads)) if i == 0 or any(row[i] != "-" for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def reasons(summary: dict[str, Any]) -> list[str]:
    """Why some figures of the table are missing, or have no interval: a line a reason."""
    found: dict[str, list[str]] = {}
    for name in _ROWS:
        metric = summary["metrics"][name]
        for key in ("mean", *PERCENTILES):
            estimate = metric.get(key)
            why = metric.get("why", {}).get(key) if estimate is None else estimate.get("why")
            if why:
                lacks = "no" if estimate is None else "no interval:"
                found.setdefault(f"{lacks} {{}}: {why}", []).append(f"{key} {NAMES[name]}")
    return [text.format(_enumerate(figures)) for text, figures in found.items()]


def _enumerate(figures: list[str]) -> str:
    """ "p90, p99 of TTFT, end to end" of "p90 TTFT", "p99 TTFT", "p90 end to end" and so on."""
    names: dict[str, list[str]] = {}
    for figure in figures:
        key, _, name = figure.partition(" ")
        names.setdefault(key, []).append(name)
    keys: dict[str, list[str]] = {}
    for key, each in names.items():
        keys.setdefault(", ".join(each), []).append(key)
    return "; ".join(f"{', '.join(each)} of {name}" for name, each in keys.items())


def counts(summary: dict[str, Any]) -> str:
    """Its requests by outcome, in words."""
    kinds = [f"{count} {name}" for name, count in summary["outcomes"].items() if count]
    return f"{summary['requests']} requests: {', '.join(kinds)}; {summary['tokens']:,} tokens"


def _brief(metric: dict[str, Any]) -> str:
    return f"mean {estimate(metric.get('mean'), ' ms')}, p50 {estimate(metric.get('p50'), ' ms')}"


def client(found: dict[str, Any]) -> str:
    """How this client itself did, in words."""
    own = found["client"]
    lag = own["lag"]
    share = max(own["cpu_share"], default=0.0)
    p99 = lag.get("p99")
    worst = f"p99 {estimate(p99, ' ms')}, " if p99 else ""
    text = f"this client had a dispatch lag of {worst}max {three_digits(lag.get('max', 0.0))} ms,"
    text += f" took {share:.0%} of a core"
    test = own["self_test"]
    if test is not None:
        speed = three_digits(test["tokens_per_s"])
        text += f"; from a server that does nothing it reads {speed} tokens/s"
        if test["ttft_ms"] is not None:
            text += f", the first after {three_digits(test['ttft_ms'])} ms"
    return text

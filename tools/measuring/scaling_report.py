"""bench_scaling's figures for people: the terminal's table and the page."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench import page as pages
from llcuda_net.bench import plots
from llcuda_net.bench.scaling import Fit
from llcuda_net.bench.shown import estimate, grid, number
from llcuda_net.bench.statistics import Estimate


def lines(found: dict[str, Any]) -> list[str]:
    """The terminal's table."""
    first = found["rows"][0]
    about = first["each"][0]["about"]
    out = [
        f"{about['version']}, {about['model']}; {first['library'] or 'no MPI: one rank'}",
        f"{found['settings']['mode']} scaling over {found['over']}",
        "",
        *grid(*_table(found)),
    ]
    told = _fits(found)
    out += ["", *grid(*told)] if told else ["", found.get("fits_why", "")]
    costs = found["rows"][-1]["mpi"]
    if costs:
        named = [f"{name} {number(value)} us" for name, value in costs.items()]
        out += ["", f"MPI itself, median: {', '.join(named)}"]
    clocks = [one["clock_us"] for row in found["rows"] for one in row["each"]]
    if any(clocks):
        out.append(f"clocks aligned within {number(max(clocks))} us")
    return out


def _table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heads = [found["over"], "tokens/s (95 % interval)", "speedup", "efficiency", "Karp-Flatt"]
    heads += ["TTFT p50, ms", "p99", "imbalance", "client CPU"]
    cells = []
    for row in found["rows"]:
        ttft = row["metrics"]["ttft"]
        kf = row["karp_flatt"]
        cells.append(
            [
                f"{row['size']}",
                estimate(row["tokens_per_s"]),
                estimate(row["speedup"]),
                f"{row['efficiency']:.0%}",
                "-" if kf is None else f"{kf:.3f}",
                "-" if ttft["p50"] is None else number(ttft["p50"]),
                "-" if ttft["p99"] is None else number(ttft["p99"]),
                f"{row['imbalance']:.1%}",
                f"{max(one['cpu_share'] for one in row['each']):.0%}",
            ]
        )
    return heads, cells


def _fits(found: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    if not found["fits"]:
        return None
    rows = []
    for each in found["fits"]:
        parameters = [f"{name} {estimate(e)}" for name, e in each["parameters"].items()]
        peak = "-" if each["peak"] is None else f"{each['peak']:.1f}"
        rows.append([each["law"], "; ".join(parameters), f"{each['residual']:.1%}", peak])
    return ["law fitted", "parameters (95 % interval)", "residual", "peak at"], rows


def page(found: dict[str, Any]) -> str:
    """The HTML page."""
    rows = found["rows"]
    mode, over = found["settings"]["mode"], found["over"]
    last = rows[-1]
    cards = [(number(last["tokens_per_s"]["value"]), f"tokens/s with {last['size']} {over}", "")]
    if len(rows) > 1:
        cards.append((f"{last['speedup']['value']:.2f}", f"speedup with {last['size']}", ""))
        cards.append((f"{last['efficiency']:.0%}", "efficiency", ""))
    meaning = {
        "weak": "each rank brings its own load" if over == "ranks" else "load grows with servers",
        "strong": "the same load is shared out",
    }[mode]
    sections = [
        pages.cards(cards),
        pages.section(
            f"{mode.capitalize()} scaling over {over}",
            pages.plots(_speedups(found), _rates(found)) if len(rows) > 1 else "",
            pages.table(*_table(found)),
            text=f"{meaning.capitalize()}. {last['library'] or 'One rank, without MPI'}.",
        ),
    ]
    told = _fits(found)
    if told:
        sections.append(pages.section("Laws", pages.table(*told)))
    ranks = [
        [str(one["rank"]), one["server"], number(one["tokens_per_s"]["value"]),
         str(one["inflight"]), f"{one['cpu_share']:.0%}"]
        for one in last["each"]
    ]  # fmt: skip
    heads = ["Rank", "Server", "Tokens/s", "In flight", "CPU of a core"]
    sections.append(pages.section("Each rank of the largest run", pages.table(heads, ranks)))
    if last["mpi"]:
        costs = [[name, number(value)] for name, value in last["mpi"].items()]
        text = "Median, measured before the load, between blocking calls."
        table = pages.table(["Microseconds", ""], costs)
        sections.append(pages.section("MPI itself", table, text=text))
    return pages.page("llcuda: scaling", found, sections)


def _speedups(found: dict[str, Any]) -> str:
    rows = found["rows"]
    sizes = [float(row["size"]) for row in rows]
    base = rows[0]["tokens_per_s"]["value"]
    measured = [(row["size"], row["speedup"]) for row in rows]
    series = [
        plots.Series("ideal", [(n, n / sizes[0]) for n in (sizes[0], sizes[-1])], "dashed", 5),
        plots.Series(
            "measured",
            [(n, e["value"]) for n, e in measured],
            "both",
            0,
            [None if e["low"] is None else (e["low"], e["high"]) for _, e in measured],
        ),
    ]
    steps = [sizes[0] + (sizes[-1] - sizes[0]) * i / 40 for i in range(41)]
    for colour, each in enumerate(found["fits"], 1):
        law = Fit(
            each["law"],
            {name: Estimate.from_dict(e) for name, e in each["parameters"].items()},
            each["residual"],
        )
        points = [(n, y / base) for n, y in zip(steps, law.at(steps), strict=True)]
        series.append(plots.Series(each["law"], points, "dashed", colour))
    across = plots.Axis(found["over"], "linear", sizes[0], sizes[-1], sizes)
    return plots.chart("Speedup", series, across, plots.Axis("times", "linear", 0.0))


def _rates(found: dict[str, Any]) -> str:
    rows = found["rows"]
    sizes = [float(row["size"]) for row in rows]
    points = [(row["size"], row["tokens_per_s"]) for row in rows]
    series = plots.Series(
        "tokens/s",
        [(n, e["value"]) for n, e in points],
        "both",
        0,
        [None if e["low"] is None else (e["low"], e["high"]) for _, e in points],
    )
    across = plots.Axis(found["over"], "linear", sizes[0], sizes[-1], sizes)
    return plots.chart("Tokens/s", [series], across, plots.Axis("tokens/s", "linear", 0.0))

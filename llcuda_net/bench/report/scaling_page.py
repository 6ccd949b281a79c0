"""The scaling figures as a page."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report import plots, scaling
from llcuda_net.bench.report.cells import RATES, Table, interval, rate_of
from llcuda_net.bench.report.page import Card, Section
from llcuda_net.bench.report.page import page as whole
from llcuda_net.bench.report.parts import energy, objective, pareto
from llcuda_net.bench.statistics.fits import Fit
from llcuda_net.util.numbers import three_digits


def page(found: dict[str, Any]) -> str:
    """The HTML page of a document with the figures."""
    rows, last = found["rows"], found["rows"][-1]
    mode, over = found["settings"]["mode"], found["over"]
    load = "load" if rate_of(found) == "tokens_per_s" else "vectors"
    meaning = {
        "weak": f"each rank brings its own {load}"
        if over == "ranks"
        else "load grows with servers",
        "strong": f"the same {load} {'is' if load == 'load' else 'are'} shared out",
    }[mode]
    sections = [
        Section(
            f"{mode.capitalize()} scaling over {over}",
            f"{meaning.capitalize()}. {scaling.measured(found)}."
            f" {last['library'] or 'One rank, without MPI'}.",
            [_speedups(found), _rates(found)] if len(rows) > 1 else [],
            [scaling.table(found)],
        )
    ]
    laws, notes = scaling.fits(found), scaling.notes(found)
    text = " ".join(f"{note[:1].upper()}{note[1:]}." for note in notes)
    tables = [] if laws is None else [laws]
    sections.append(Section("Laws", text, tables=tables, alone=bool(notes)))
    slo = found["settings"].get("slo")
    if slo:
        levels = [(str(row["size"]), row["slo"], row["metrics"]) for row in rows]
        sections += objective.section(slo, [(over.capitalize(), levels)])
    if rate_of(found) == "tokens_per_s":
        line = pareto.series("measured", rows, "size", 0)
        text = f"Each point is a number of {over}."
        chart = pareto.chart([line], f"the number of {over}")
        sections.append(Section("What one user gets, and what all get", text, [chart]))
    took = [(str(row["size"]), row["energy"]) for row in rows]
    sections += energy.section(found.get("energy"), over.capitalize(), took)
    sections.append(Section("Each rank of the largest run", tables=[_ranks(found)]))
    if last["mpi"]:
        costs = [[name, three_digits(value)] for name, value in last["mpi"].items()]
        text = "Median, measured before the load, between blocking calls."
        sections.append(Section("MPI itself", text, tables=[(["Microseconds", ""], costs)]))
    return whole("llcuda: scaling", found, _cards(found), sections)


def _ranks(found: dict[str, Any]) -> Table:
    each = found["rows"][-1]["each"]
    if rate_of(found) == "tokens_per_s":
        return ["Rank", "Server", "Tokens/s", "In flight", "CPU of a core"], [
            [str(one["rank"]), one["server"], three_digits(one["tokens_per_s"]["value"]),
             str(one["inflight"]), f"{one['cpu_share']:.0%}"]
            for one in each
        ]  # fmt: skip
    return ["Rank", "Host", "Device", "Vectors", "CPU of a core"], [
        [str(one["rank"]), one["host"], one["device"] or "CPU", f"{one['rows']:,}",
         f"{one['cpu_share']:.0%}"]
        for one in each
    ]  # fmt: skip


def _cards(found: dict[str, Any]) -> list[Card]:
    last, over, rate = found["rows"][-1], found["over"], rate_of(found)
    speed = three_digits(last[rate]["value"])
    cards = [(speed, f"{RATES[rate]} with {last['size']} {over}", interval(last[rate]))]
    if (gained := last["speedup"]) is not None:
        value = three_digits(gained["value"])
        cards.append((value, f"speedup with {last['size']}", interval(gained)))
        cards.append((f"{last['efficiency']:.0%}", "efficiency", ""))
    return cards


def _speedups(found: dict[str, Any]) -> plots.Figure | None:
    rows = found["rows"]
    sizes = [float(row["size"]) for row in rows]
    base = rows[0][rate_of(found)]["value"]
    measured = [(row["size"], row["speedup"]) for row in rows if row["speedup"]]
    if not measured:
        return None
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
    for colour, each in enumerate(found["fits"], 1):
        law = Fit.from_dict(each)
        first, last = law.sizes[0], law.sizes[-1]
        steps = [first + (last - first) * i / 40 for i in range(41)]
        points = [(n, y / base) for n, y in zip(steps, law.at(steps), strict=True)]
        series.append(plots.Series(each["law"], points, "dashed", colour))
    across = plots.Axis(found["over"], "linear", sizes[0], sizes[-1], sizes)
    return plots.chart("Speedup", series, across, plots.Axis("times", "linear", 0.0))


def _rates(found: dict[str, Any]) -> plots.Figure | None:
    rows = found["rows"]
    sizes = [float(row["size"]) for row in rows]
    rate = rate_of(found)
    points = [(row["size"], row[rate]) for row in rows]
    series = plots.Series(
        RATES[rate],
        [(n, e["value"]) for n, e in points],
        "both",
        0,
        [None if e["low"] is None else (e["low"], e["high"]) for _, e in points],
    )
    across = plots.Axis(found["over"], "linear", sizes[0], sizes[-1], sizes)
    return plots.chart(
        RATES[rate].capitalize(), [series], across, plots.Axis(RATES[rate], "linear", 0.0)
    )

"""The scaling figures as a terminal's tables."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report.cells import RATES, Draw, Table, estimate, grid, rate_of, tokens
from llcuda_net.bench.report.parts import energy, objective
from llcuda_net.util.numbers import probability, three_digits


def lines(found: dict[str, Any], draw: Draw = grid) -> list[str]:
    """The terminal's table.

    Args:
        draw: makes the lines of a table.
    """
    library = found["rows"][-1]["library"]
    out = [
        f"{measured(found)}; {library or 'no MPI: one rank'}",
        f"{found['settings']['mode']} scaling over {found['over']}",
        "",
        *draw(*table(found)),
    ]
    laws = fits(found)
    if laws:
        out += ["", *draw(*laws)]
    out += ["", *notes(found)]
    slo = found["settings"].get("slo")
    for row in found["rows"] if slo else []:
        level = objective.lines(slo, row["slo"])
        many = found["over"] if row["size"] > 1 else found["over"].removesuffix("s")
        out += [f"{row['size']} {many}: {line}" for line in level]
    took = [(str(row["size"]), row["energy"]) for row in found["rows"]]
    out += energy.lines(found.get("energy"), found["over"], took, draw)
    costs = found["rows"][-1]["mpi"]
    if costs:
        named = [f"{name} {three_digits(value)} us" for name, value in costs.items()]
        out += ["", f"MPI itself, median: {', '.join(named)}"]
    tests = [one["self_test"] for one in found["rows"][-1]["each"] if one.get("self_test")]
    if tests:
        least = min(test["tokens_per_s"] for test in tests)
        out.append(
            f"from a server that does nothing a rank reads {three_digits(least)} tokens/s at least"
        )
    clocks = [one.get("clock_us", 0.0) for row in found["rows"] for one in row["each"]]
    if any(clocks):
        out.append(f"clocks aligned within {three_digits(max(clocks))} us")
    return out


def measured(found: dict[str, Any]) -> str:
    """What was asked, in words."""
    last = found["rows"][-1]
    if rate_of(found) == "tokens_per_s":
        about = last["each"][0]["about"]
        return "; ".join(filter(None, [f"{about['version']}, {about['model']}", tokens(about)]))
    asked = found["settings"]
    many = "1 query" if asked["queries"] == 1 else f"{asked['queries']} queries"
    where = " and ".join(sorted({one["device"] or "the CPU" for one in last["each"]}))
    return (
        f"search of {last['vectors']:,} x {asked['dim']} int8, {many}, k {asked['k']},"
        f" on {where}, gathered by {asked['gather'].upper()}"
    )


def table(found: dict[str, Any]) -> Table:
    """A row per size, without the columns in which nothing is known."""
    rate = rate_of(found)
    requests = rate == "tokens_per_s"
    heads = [found["over"], f"{RATES[rate]} (95 % interval)", "speedup", "efficiency", "Karp-Flatt"]
    heads += ["TTFT p50, ms", "p99", "imbalance"] if requests else ["p50, ms", "p99", "vectors"]
    heads.append("client CPU")
    cells = []
    for row in found["rows"]:
        took = row["metrics"]["ttft" if requests else "search"]
        kf, efficiency = row["karp_flatt"], row["efficiency"]
        cells.append(
            [
                f"{row['size']}",
                estimate(row[rate]),
                estimate(row["speedup"]),
                "-" if efficiency is None else f"{efficiency:.0%}",
                "-" if kf is None else f"{kf:.3f}",
                estimate(took["p50"]),
                estimate(took["p99"]),
                f"{row['imbalance']:.1%}" if requests else f"{row['vectors']:,}",
                f"{max(one['cpu_share'] for one in row['each']):.0%}",
            ]
        )
    kept = [i for i in range(len(heads)) if any(row[i] != "-" for row in cells)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in cells]


def fits(found: dict[str, Any]) -> Table | None:
    """The laws that were fitted; None where none was."""
    if not found["fits"]:
        return None
    rows = []
    for each in found["fits"]:
        known = each["parameters"]
        share = known.get("serial share") or known["sigma"]
        holds = "" if each["holds"] else ", does not hold"
        universal = each["law"] == "universal"
        rows.append(
            [
                each["law"],
                estimate(known["rate"]),
                estimate(share),
                estimate(known["kappa"]) if universal else "",
                f"{each['residual']:.1%}{holds}",
                estimate(each["peak"]) if universal else "",
            ]
        )
    heads = ["law fitted", "rate of one (95 % interval)", "serial share, sigma", "kappa"]
    return [*heads, "residual", "peak at"], rows


def notes(found: dict[str, Any]) -> list[str]:
    """What must be known of the fits: why there is none, or no peak."""
    out = [found["fits_why"]] if found["fits_why"] else []
    for each in found["fits"]:
        if each["peak_why"]:
            out.append(f"no peak: {each['peak_why']}")
        if not each["holds"]:
            out.append(
                f"{each['law']}: sizes differ from the law by more than their repetitions do"
                f" (p {probability(each['lack_of_fit_p'])}), so its parameters have no intervals"
            )
    return out

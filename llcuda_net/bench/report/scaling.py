"""The scaling figures as a terminal's tables."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report.cells import Table, estimate, grid
from llcuda_net.util.numbers import three_digits


def lines(found: dict[str, Any]) -> list[str]:
    """The terminal's table."""
    first = found["rows"][0]
    about = first["each"][0]["about"]
    out = [
        f"{about['version']}, {about['model']}; {first['library'] or 'no MPI: one rank'}",
        f"{found['settings']['mode']} scaling over {found['over']}",
        "",
        *grid(*table(found)),
    ]
    laws = fits(found)
    out += ["", *grid(*laws)] if laws else ["", found.get("fits_why", "")]
    costs = found["rows"][-1]["mpi"]
    if costs:
        named = [f"{name} {three_digits(value)} us" for name, value in costs.items()]
        out += ["", f"MPI itself, median: {', '.join(named)}"]
    clocks = [one["clock_us"] for row in found["rows"] for one in row["each"]]
    if any(clocks):
        out.append(f"clocks aligned within {three_digits(max(clocks))} us")
    return out


def table(found: dict[str, Any]) -> Table:
    """A row per size."""
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
                "-" if ttft["p50"] is None else three_digits(ttft["p50"]),
                "-" if ttft["p99"] is None else three_digits(ttft["p99"]),
                f"{row['imbalance']:.1%}",
                f"{max(one['cpu_share'] for one in row['each']):.0%}",
            ]
        )
    return heads, cells


def fits(found: dict[str, Any]) -> Table | None:
    """The laws that were fitted; None where none was."""
    if not found["fits"]:
        return None
    rows = []
    for each in found["fits"]:
        parameters = [f"{name} {estimate(e)}" for name, e in each["parameters"].items()]
        peak = "-" if each["peak"] is None else f"{each['peak']:.1f}"
        rows.append([each["law"], "; ".join(parameters), f"{each['residual']:.1%}", peak])
    return ["law fitted", "parameters (95 % interval)", "residual", "peak at"], rows

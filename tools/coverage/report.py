"""The coverage as a table, for a terminal and for docs/benchmarks/coverage.md."""

from __future__ import annotations

import math
from typing import Any

from llcuda_net.util.numbers import three_digits
from tools.coverage.count import AIM, FEW

Row = dict[str, Any]
#: Of the measurements, the share that is also judged as it was done before, which takes longer.
PART = 0.25
_HEADS = ("mode", "load", "figure", "truth", "given", "covered", "width", "before")
_UNITS = {"rate": "/s"}
_METRICS = {"latency": "latency", "ttft": "TTFT", "gap": "gap", "cost": "difference", "rate": ""}


def missed(document: dict[str, Any]) -> list[Row]:
    """The rows that miss the aim by more than two standard errors."""
    return [row for row in document["rows"] if row["verdict"] in ("low", "high")]


def _cells(row: Row) -> list[str]:
    given = row["given"] / row["measurements"]
    covered = "-"
    if row["given"]:
        mark = {"low": " (low)", "high": " (high)", "none": " (too few)"}.get(row["verdict"], "")
        covered = f"{row['covered']:.0%}{mark}"
    before = row["before"]
    return [
        row["mode"],
        row["load"],
        f"{row['figure']} {_METRICS[row['metric']]}".strip(),
        three_digits(row["truth"]) + _UNITS.get(row["metric"], " ms"),
        f"{given:.0%}",
        covered,
        f"{row['width']:.0%}" if row["given"] else "-",
        f"{before['covered']:.0%}" if before and before["given"] else "",
    ]


def lines(document: dict[str, Any]) -> list[str]:
    """For a terminal."""
    table = [list(_HEADS), *(_cells(row) for row in document["rows"])]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEADS))]
    out = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    return [*out, "", *_verdict(document)]


def _verdict(document: dict[str, Any]) -> list[str]:
    rows = document["rows"]
    judged = [row for row in rows if row["verdict"] != "none"]
    given = sum(row["given"] for row in rows)
    held = sum(row["held"] for row in rows)
    within = len(judged) - len(missed(document))
    text = f"{within} of {len(judged)} figures are within {AIM[0]:.0%} to {AIM[1]:.0%}, by two"
    text += f" standard errors; of all {given:,} intervals that were given"
    out = [f"{text} {held / max(1, given):.1%} hold the truth."]
    under = [row for row in judged if row["covered"] < AIM[0]]
    if under:
        named = [
            f"{row['mode']} {row['load']} {row['figure']} ({row['covered']:.0%} of {row['given']})"
            for row in under
        ]
        out.append(f"Under {AIM[0]:.0%} as counted, though by chance perhaps: {', '.join(named)}.")
    part = [row for row in judged if row["given"] < row["measurements"] / 2]
    given_part = sum(row["given"] for row in part)
    if given_part:
        held_part = sum(row["held"] for row in part) / given_part
        out.append(
            "Figures of which under half of the measurements have an interval, where those that"
            f" have one are not as the others: {given_part:,} intervals, of which {held_part:.1%}"
            " hold."
        )
    few = sum(row["given"] for row in rows if row["verdict"] == "none")
    held_few = sum(row["held"] for row in rows if row["verdict"] == "none")
    if few:
        out.append(
            f"Figures of which under {FEW:.0%} of the measurements have an interval are not judged"
            f" one by one: together they have {few:,}, of which {held_few / few:.0%} hold."
        )
    return out


_TEXT = """\
# How often the intervals hold

`llcuda bench` gives 95 % intervals. Here they are counted on processes of which the truth is known:
each mode is measured many times, by the functions that make the product's figures of records, and
*covered* is the share of the intervals that hold the truth. The aim is 90 to 97 % wherever an
interval is given; where that cannot be, none is given, and the tool says why.

```sh
{command}
```

{day}; {machine}. {replications} measurements a mode, each of a rehearsal and {repeats} repeats;
seed {seed}. The standard error of *covered* is {error} points where all have an interval, and more
where few do.

- **given**: measurements with an interval. **width**: of the interval, in shares of the truth.
- **before**: covered by one bootstrap of the requests of all runs together, in blocks of
  neighbours, as it was done until this table (of a part of the measurements: {few} points).
- **(low)**, **(high)**: out of the aim by more than two standard errors. **(too few)**: under
  {least} of the measurements have one.
- M/M/1 has a mean service time of 10 ms, and begins empty; its warm-up is the one that the product
  asks for. *Levels of repeats*: each repeat has a level of its own, and the truth is that of their
  average. *Rising* and *slower*: the truth is that of the runs themselves.

{verdict}

{table}

Why there was no interval, in all modes: {why}.
"""


def markdown(document: dict[str, Any]) -> str:
    """The page for docs/benchmarks."""
    rows = [["---"] * len(_HEADS), *(_cells(row) for row in document["rows"])]
    reasons: dict[str, int] = {}
    for row in document["rows"]:
        for why, count in row["why"].items():
            reasons[why] = reasons.get(why, 0) + count
    told = sorted(reasons.items(), key=lambda item: -item[1])
    count, where = document["replications"], document["machine"]
    return _TEXT.format(
        command=" ".join(["python", *document["command"]]),
        day=document["when"][:10],
        machine=f"{where['cpu']}, {where['cores']} cores, Python {where['python']}",
        replications=f"{count:,}",
        repeats=document["repeats"],
        seed=document["seed"],
        error=f"{math.sqrt(0.95 * 0.05 / count) * 100:.1f}",
        few=f"{math.sqrt(0.95 * 0.05 / max(1, count * PART)) * 100:.1f}",
        least=f"{FEW:.0%}",
        verdict="\n\n".join(_verdict(document)),
        table="\n".join("| " + " | ".join(row) + " |" for row in [list(_HEADS), *rows]),
        why=", ".join(f"{why} ({number:,})" for why, number in told) or "there always was one",
    )

"""From runs to ratios: of tokens/s along two ways in the same repeat, with intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.slots.runs import Run

#: What counts as 97 % of direct: the lower end of the interval is not below this.
AIM = 0.95
#: Student's t, 97.5 %, by degrees of freedom; beyond the last the normal distribution's.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
_NORMAL = 1.96


@dataclass(frozen=True)
class Interval:
    """A mean of ratios and its 95 % interval; of one ratio alone the interval is not known."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(ratios: Sequence[float]) -> Interval:
    """The geometric mean, and Student's interval of the logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, count = statistics.fmean(logs), len(logs)
    if count < 2:
        return Interval(math.exp(mean), math.nan, math.nan, count)
    t = _T[count - 2] if count - 2 < len(_T) else _NORMAL
    off = t * statistics.stdev(logs) / math.sqrt(count)
    return Interval(math.exp(mean), math.exp(mean - off), math.exp(mean + off), count)


def ratios(runs: Sequence[Run], way: str, base: str) -> Interval | None:
    """One way's tokens/s over another's, of repeats that have both; None: there are none."""
    found = {(one.way, one.repeat): one.tokens_per_s for one in runs}
    pairs = [
        found[way, repeat] / found[base, repeat]
        for name, repeat in found
        if name == way and found.get((base, repeat), 0.0) > 0 and found[way, repeat] > 0
    ]
    return interval(pairs) if pairs else None


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each workload and number of streams, in the order in which they came."""
    rows = []
    for kind, streams in dict.fromkeys((one.kind, one.streams) for one in runs):
        these = [one for one in runs if (one.kind, one.streams) == (kind, streams)]
        row: dict[str, Any] = {"kind": kind, "streams": streams}
        for way in dict.fromkeys(one.way for one in these):
            own = [one for one in these if one.way == way]
            row[way] = statistics.median(one.tokens_per_s for one in own)
            first = [ms for one in own for ms in one.first_ms]
            row[f"{way}_first_ms"] = statistics.median(first) if first else None
        for name, way, base in (
            ("to_direct", "llcuda", "direct"),
            ("to_against", "llcuda", "against"),
            ("against_to_direct", "against", "direct"),
        ):
            found = ratios(these, way, base)
            row[name] = None if found is None else vars(found)
        if row["to_direct"] is not None:
            low = row["to_direct"]["low"]
            row["meets"] = None if math.isnan(low) else low >= AIM
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for a terminal."""
    against = any("against" in row for row in rows)
    head = ["workload", "streams", "direct/s", "llcuda/s", "llcuda / direct (95 %)", "aim"]
    head += ["first ms: direct", "llcuda"]
    if against:
        head += ["against/s", "against / direct (95 %)", "llcuda / against (95 %)"]
    lines = [head]
    for row in rows:
        meets = {True: "yes", False: "no", None: "-"}[row.get("meets")]
        line = [row["kind"], str(row["streams"])]
        line += [_number(row.get("direct"), 0), _number(row.get("llcuda"), 0)]
        line += [_interval(row["to_direct"]), meets]
        line += [_number(row.get(f"{way}_first_ms"), 1) for way in ("direct", "llcuda")]
        if against:
            line += [_number(row.get("against"), 0)]
            line += [_interval(row["against_to_direct"]), _interval(row["to_against"])]
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _interval(found: dict[str, Any] | None) -> str:
    return "-" if found is None else str(Interval(**found))

"""What one user gets against what all get: which loads are worth it.

Each load is a point. One that is left of and below another is worse in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llcuda_net.bench.report import plots
from llcuda_net.util.numbers import plain


def per_user(row: dict[str, Any]) -> dict[str, Any] | None:
    """Output tokens/s of one user while the answer comes: 1 / median time per output token.

    Args:
        row: of a load, with `metrics` in ms.

    Returns:
        an estimate; None where the median is not known.
    """
    tpot = row["metrics"].get("tpot", {}).get("p50")
    if not isinstance(tpot, dict):
        tpot = None if tpot is None else {"value": tpot, "low": None, "high": None}
    if tpot is None or tpot["value"] <= 0:
        return None
    low, high = tpot.get("low"), tpot.get("high")
    whole = low is not None and high is not None and low > 0
    return {
        "value": 1e3 / tpot["value"],
        "low": 1e3 / high if whole else None,
        "high": 1e3 / low if whole else None,
    }


def series(name: str, rows: Sequence[dict[str, Any]], key: str, colour: int) -> plots.Series:
    """The loads that have both figures, each with its number beside it.

    Args:
        key: of the load in a row: "load" or "size".
    """
    known = [(row, user) for row in rows if (user := per_user(row)) is not None]
    points = [(user["value"], float(row["tokens_per_s"]["value"])) for row, user in known]
    return plots.Series(
        name,
        points,
        "both",
        colour,
        [plots.ends(row["tokens_per_s"]) for row, _ in known],
        [plots.ends(user) for _, user in known],
        _labels(points, [plain(row[key], 3) for row, _ in known]),
    )


def _labels(points: Sequence[tuple[float, float]], words: Sequence[str]) -> list[str]:
    """A word beside each point; those of points that are drawn on each other as one: "8, 16"."""
    out: list[str] = []
    wide, high = (max((p[i] for p in points), default=0.0) for i in (0, 1))
    for number, word in enumerate(words):
        last = points[number - 1]
        near = abs(points[number][0] - last[0]) < 0.04 * wide
        near = near and abs(points[number][1] - last[1]) < 0.05 * high
        if number and near:
            word = f"{out[-1]}, {word}"
            out[-1] = ""
        out.append(word)
    return out


def chart(lines: Sequence[plots.Series], what: str) -> plots.Figure | None:
    """The curve; None under two points, which show nothing.

    Args:
        what: the number beside a point is.
    """
    lines = [each for each in lines if len(each.points) > 1]
    return plots.chart(
        "Tokens/s per user against tokens/s in all",
        lines,
        plots.Axis("tokens/s per user", "linear", 0.0),
        plots.Axis("tokens/s in all", "linear", 0.0),
        caption="Per user: 1 / median time per output token. Farther right and farther up is"
        f" better; the number beside a point is {what}.",
    )

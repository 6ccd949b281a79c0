"""Charts as inline SVG, drawn by matplotlib.

Nothing is loaded from anywhere. matplotlib writes colours into the drawing; here they become the
page's CSS variables, so that a chart follows the reader's light or dark theme.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from llcuda_net.util.numbers import plain, three_digits

#: Of the series, in turn; the page has each as --c0, --c1, …
_SERIES = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#64748b")
COLOURS = len(_SERIES)
_TEXT, _SOFT, _LINE = "#1b1f24", "#5b6470", "#d8dee4"
_VARIABLES = {
    **{colour: f"var(--c{number})" for number, colour in enumerate(_SERIES)},
    _TEXT: "var(--fg)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llcuda",
    "font.size": 10,
    "axes.labelsize": 10,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _SOFT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _LINE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
}
#: Of the points of the series, in turn: told apart without colours, too.
_MARKERS = ("o", "s", "^", "D", "v", "P")
#: Inches. Text of 10 points is some 10 px on a phone's width, and 14 px where two charts stand side
#: by side on 1,200 px.
_WIDTH, _HEIGHT = 4.8, 2.9
#: Percentiles that are labelled on an axis of shares.
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its label, and how values lie on it.

    Attributes:
        scale: "linear", "log", or "nines" (shares from 0 to 1, of which the last are spread out:
            0.9, 0.99 and 0.999 are equally far apart).
        low, high: its ends; None: from the data.
        ticks: where it is labelled; empty: at round numbers.
    """

    label: str
    scale: str = "linear"
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """What is drawn: (x, y) in order, with intervals where they are known.

    Attributes:
        kind: "line", "dots", "both", "dashed" (a line for a model, not a measurement), or "steps"
            (a histogram: each y holds from its x to the next).
        colour: its number; series of the same number belong together.
        intervals, across: of y, and of x.
        labels: a word beside each point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "line"
    colour: int = 0
    intervals: Sequence[tuple[float, float] | None] = ()
    across: Sequence[tuple[float, float] | None] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A line with a word beside it: vertical at x, or level at that y."""

    x: float
    label: str
    level: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title and its caption; `svg` is an element to be put into a page."""

    title: str
    svg: str
    caption: str = ""


def chart(
    title: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
    *,
    caption: str = "",
) -> Figure | None:
    """A chart of series; None where there is no data."""
    series = [each for each in series if each.points]
    if not series:
        return None
    with _drawing(_WIDTH, _HEIGHT) as drawing:
        axes = drawing.subplots()
        for each in series:
            _draw(axes, each)
        flat = [p[0] for each in series for p in each.points]
        flat += [end for each in series for ends in each.across if ends for end in ends]
        _lay_out(axes.xaxis, x, flat)
        up = [p[1] for each in series for p in each.points]
        up += [end for each in series for ends in each.intervals if ends for end in ends]
        up += [mark.x for mark in marks if mark.level]
        _lay_out(axes.yaxis, y, up)
        for mark in marks:
            _mark(axes, mark)
        named = [each.name for each in series if each.name]
        if len(named) > 1 or (named and named[0] not in (y.label, title)):
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1.0),
                ncols=_columns(named),
                borderaxespad=0.2,
                columnspacing=1.2,
                handlelength=1.6,
            )
        return Figure(title, _svg(drawing, title, caption), caption)


def _columns(names: Sequence[str]) -> int:
    """As many names beside each other as fit: each column is as wide as its longest name."""
    for columns in range(len(names), 1, -1):
        wide = [
            max(map(len, part)) + 6 for part in np.array_split(np.asarray(names, object), columns)
        ]
        if sum(wide) <= 52:
            return columns
    return 1


def _mark(axes: Any, mark: Mark) -> None:
    style: Any = {"color": _SOFT, "linestyle": (0, (4, 4)), "linewidth": 1}
    if mark.level:
        axes.axhline(mark.x, **style)
        axes.annotate(
            mark.label,
            (1.0, mark.x),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
        )
        return
    axes.axvline(mark.x, **style)
    axes.annotate(
        mark.label,
        (mark.x, 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, 4),
        textcoords="offset points",
    )


def bars(
    title: str, parts: Sequence[tuple[str, float]], unit: str, *, caption: str = ""
) -> Figure | None:
    """Parts that follow each other, a row each, from where the one before ended; None without any.

    Args:
        parts: names and lengths.
    """
    total = sum(value for _, value in parts)
    if total <= 0:
        return None
    with _drawing(_WIDTH, 0.45 + 0.27 * len(parts)) as drawing:
        axes = drawing.subplots()
        at = 0.0
        for row, (_, value) in enumerate(parts):
            axes.barh(row, value, left=at, height=0.7, color=_SERIES[row % COLOURS])
            right = at + value / 2 <= total / 2
            axes.annotate(
                f"{three_digits(value)} {unit}",
                (at + value if right else at, row),
                xytext=(4 if right else -4, 0),
                textcoords="offset points",
                va="center",
                ha="left" if right else "right",
            )
            at += value
        axes.set_yticks(range(len(parts)), [name for name, _ in parts])
        axes.tick_params(axis="y", length=0, labelcolor=_TEXT)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axes.set_xlim(0, total)
        axes.set_xlabel(unit)
        return Figure(title, _svg(drawing, title, caption), caption)


def ends(found: dict[str, Any]) -> tuple[float, float] | None:
    """The interval of an estimate, as JSON has it; None where there is none."""
    low, high = found.get("low"), found.get("high")
    return None if low is None or high is None else (low, high)


def estimates(
    name: str, found: Sequence[tuple[float, dict[str, Any]]], colour: int, kind: str = "both"
) -> Series:
    """A series of estimates, as JSON has them, over x."""
    points = [(x, each["value"]) for x, each in found]
    return Series(name, points, kind, colour, [ends(each) for _, each in found])


def thin(points: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """Few enough points to draw: evenly chosen, both ends kept."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Drawing]:
    """A drawing of so many inches, in the style of the page."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield Drawing(figsize=(width, height), layout="constrained", facecolor="none")


def _draw(axes: Any, series: Series) -> None:
    colour = _SERIES[series.colour % COLOURS]
    x, y = np.asarray(series.points, dtype=np.float64).T
    if series.kind == "steps":
        dashes = (0, (3, 2)) if series.colour else "-"
        axes.stairs(y[:-1], x, color=colour, label=series.name, linewidth=1.8, linestyle=dashes)
        return
    dots = series.kind in ("dots", "both")
    axes.plot(
        x,
        y,
        color=colour,
        label=series.name or None,
        linestyle={"dots": "none", "dashed": (0, (5, 4))}.get(series.kind, "-"),
        linewidth=1.8,
        marker=_MARKERS[series.colour % len(_MARKERS)] if dots else None,
        markersize=2.5 if len(x) > 60 else 4.5,
        clip_on=not dots,  # a dot on an axis is whole
    )
    bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "capsize": 3}
    for (at, _), ends in zip(series.points, series.intervals, strict=False):
        if ends is not None:
            axes.errorbar(at, (ends[0] + ends[1]) / 2, yerr=(ends[1] - ends[0]) / 2, **bars)
    for (_, at), ends in zip(series.points, series.across, strict=False):
        if ends is not None:
            axes.errorbar((ends[0] + ends[1]) / 2, at, xerr=(ends[1] - ends[0]) / 2, **bars)
    # Those of every second series are on the other side.
    other = bool(series.colour % 2)
    for point, word in zip(series.points, series.labels, strict=False):
        axes.annotate(
            word,
            point,
            xytext=(-5, -11) if other else (5, 4),
            textcoords="offset points",
            ha="right" if other else "left",
            fontsize=9,
        )


def spread_out(share: Any) -> Any:
    """Shares to places: 0.9, 0.99 and 0.999 lie equally far apart."""
    return -np.log10(np.maximum(1e-6, 1 - np.asarray(share, dtype=np.float64)))


def _lay_out(axis: Any, wanted: Axis, values: Sequence[float]) -> None:
    """Scale, ends, ticks and label of one axis."""
    low = min(values) if wanted.low is None else wanted.low
    high = max(values) if wanted.high is None else wanted.high
    formatter = FuncFormatter(lambda value, _: _number(value))
    locator: Any = MaxNLocator(5, steps=[1, 2, 5, 10])
    if wanted.scale == "nines":
        axis.axes.set_xscale(
            "function", functions=(spread_out, lambda v: 1 - 10.0 ** -np.asarray(v))
        )
        locator = FixedLocator([share for share in _NINES if low <= share <= high])
        formatter = FuncFormatter(lambda value, _: f"p{_number(value * 100)}")
        high = max(high, low + 1e-9)
    elif wanted.scale == "log":
        low, high = max(low, 1e-9), max(high, 2e-9)
        few = math.log10(high / low) < 3
        locator = LogLocator(subs=(1, 2, 5) if few else (1,))
        axis._set_axes_scale("log")
        if wanted.low is None:
            low /= 1.15
        if wanted.high is None:
            high *= 1.15
    elif wanted.low is None:
        low = min(low, 0.0)
    if wanted.scale == "linear" and wanted.high is None:
        high = high + 0.05 * (high - low) if high > low else low + 1.0
    if wanted.ticks:
        locator = FixedLocator(list(wanted.ticks))
        if wanted.scale == "log" or wanted.high is not None:  # room for the dots at the ends
            low, high = (
                (low / 1.1, high * 1.1) if wanted.scale == "log" else (low - 0.1, high + 0.1)
            )
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(formatter)
    axis.set_label_text(wanted.label)
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else plain(round(value, 9))


def _svg(drawing: Drawing, title: str, caption: str) -> str:
    """The drawing as an element: no header, no metadata, no ids that figures share."""
    file = io.StringIO()
    drawing.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    # What is seen is said once, to those who do not see it; its parts are not read one by one.
    name = html.escape(f"{title}. {caption}" if caption else title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)

"""Charts as inline SVG, drawn by matplotlib.

Nothing is loaded from anywhere. matplotlib writes colours into the drawing; here they become the
page's CSS variables, so that a chart follows the reader's light or dark theme.
"""

from __future__ import annotations

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

from llcuda_net.util.numbers import plain

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
    "font.size": 9.5,
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
        kind: "line", "dots", "both", or "dashed" (a line for a model, not a measurement).
        colour: its number; series of the same number belong together.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "line"
    colour: int = 0
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at x with a word beside it."""

    x: float
    label: str


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
    with _drawing(6.4, 3.2) as drawing:
        axes = drawing.subplots()
        for each in series:
            _draw(axes, each)
        _lay_out(axes.xaxis, x, [p[0] for each in series for p in each.points])
        up = [p[1] for each in series for p in each.points]
        up += [end for each in series for ends in each.intervals if ends for end in ends]
        _lay_out(axes.yaxis, y, up)
        for mark in marks:
            axes.axvline(mark.x, color=_SOFT, linestyle=(0, (4, 4)), linewidth=1)
            axes.annotate(
                mark.label,
                (mark.x, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, -10),
                textcoords="offset points",
            )
        if any(each.name for each in series):
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0.3)
        return Figure(title, _svg(drawing, title), caption)


def bars(
    title: str, parts: Sequence[tuple[str, float]], unit: str, *, caption: str = ""
) -> Figure | None:
    """One horizontal bar cut into parts, with a legend of the values; None without any."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return None
    with _drawing(12.8, 0.9) as drawing:
        axes = drawing.subplots()
        at = 0.0
        for number, (name, value) in enumerate(parts):
            colour = _SERIES[number % COLOURS]
            axes.barh(0, value, left=at, color=colour, label=f"{name} {plain(value, 3)} {unit}")
            at += value
        axes.set_xlim(0, total)
        axes.set_axis_off()
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=8, borderaxespad=0)
        return Figure(title, _svg(drawing, title), caption)


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
    dots = series.kind in ("dots", "both")
    axes.plot(
        x,
        y,
        color=colour,
        label=series.name or None,
        linestyle={"dots": "none", "dashed": (0, (5, 4))}.get(series.kind, "-"),
        linewidth=1.8,
        marker="o" if dots else None,
        markersize=2.5 if len(x) > 60 else 4.5,
    )
    for (at, _), ends in zip(series.points, series.intervals, strict=False):
        if ends is not None:
            middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
            axes.errorbar(at, middle, half, fmt="none", ecolor=colour, elinewidth=1, capsize=3)


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


def _svg(drawing: Drawing, title: str) -> str:
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
    return text.replace("<svg", '<svg role="img"', 1)

"""Charts as inline SVG: nothing is loaded from anywhere, and colours follow the page's theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

#: The drawing's size and the room for the axes' labels, in SVG units.
WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 46
#: Series have the colours --c0, --c1, … of the page's style.
COLOURS = 6


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


@dataclass(slots=True)
class _Scale:
    """Values of an axis to places of the drawing."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        f = _TRANSFORMS[self.axis.scale]
        low, high = f(self.low), f(self.high)
        share = (f(value) - low) / ((high - low) or 1.0)
        return self.start + min(1.05, max(-0.05, share)) * (self.end - self.start)


_TRANSFORMS: dict[str, Callable[[float], float]] = {
    "linear": lambda v: v,
    "log": lambda v: math.log10(max(v, 1e-12)),
    "nines": lambda v: -math.log10(max(1e-6, 1 - v)),
}


def chart(
    title: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
    *,
    caption: str = "",
) -> str:
    """A figure with a chart, its legend and its caption, as HTML; empty where there is no data."""
    series = [each for each in series if each.points]
    if not series:
        return ""
    across = _scale(x, [p[0] for each in series for p in each.points], _LEFT, WIDTH - _RIGHT)
    values = [p[1] for each in series for p in each.points]
    for each in series:
        values += [end for ends in each.intervals if ends for end in ends]
    up = _scale(y, values, HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(across, up), *(_mark(mark, across) for mark in marks)]
    for each in series:
        parts += _draw(each, across, up)
    legend = "".join(
        f'<span class="key"><i class="s{each.colour % COLOURS} {each.kind}"></i>'
        f"{escape(each.name)}</span>"
        for each in series
        if each.name
    )
    return (
        f'<figure><h3>{escape(title)}</h3><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def bars(title: str, parts: Sequence[tuple[str, float]], unit: str, *, caption: str = "") -> str:
    """One horizontal bar cut into parts, with a legend of the values; empty without any."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return ""
    drawn, legend, at = [], [], 0.0
    for number, (name, value) in enumerate(parts):
        wide = value / total * WIDTH
        drawn.append(
            f'<rect class="f{number % COLOURS}" x="{at:.1f}" y="0" width="{wide:.1f}" height="34">'
            f"<title>{escape(name)}: {value:.4g} {unit}</title></rect>"
        )
        legend.append(
            f'<span class="key"><i class="b{number % COLOURS}"></i>{escape(name)} '
            f"<b>{value:.3g} {unit}</b></span>"
        )
        at += wide
    return (
        f'<figure><h3>{escape(title)}</h3><svg viewBox="0 0 {WIDTH} 34" role="img" '
        f'aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg" '
        f'preserveAspectRatio="none">{"".join(drawn)}</svg>'
        f'<div class="legend">{"".join(legend)}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def thin(points: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """Few enough points to draw: evenly chosen, both ends kept."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    if axis.scale == "linear":
        low = min(low, 0.0) if axis.low is None else low
        high = high if high > low else low + 1.0
        step = _step(high - low)
        high = math.ceil(high / step - 1e-9) * step if axis.high is None else high
        count = int((high - low) / step + 1e-9)
        ticks = [(low + i * step, _number(low + i * step)) for i in range(count + 1)]
    elif axis.scale == "log":
        low, high = max(low, 1e-9), max(high, 2e-9)
        if axis.low is None:
            low = _below(low)
        if axis.high is None:
            high = _above(high)
        ticks = [(v, _number(v)) for v in _decades(low, high)]
    else:
        found = [s for s in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999) if low <= s <= high]
        ticks = [(s, f"p{_number(s * 100)}") for s in found]
    if axis.ticks:
        ticks = [(v, _number(v)) for v in axis.ticks if low <= v <= high]
    return _Scale(axis, low, high, start, end, ticks)


def _below(value: float) -> float:
    decade = 10 ** math.floor(math.log10(value))
    return float(max(m * decade for m in (1, 2, 5) if m * decade <= value * (1 + 1e-9)))


def _above(value: float) -> float:
    decade = 10 ** math.floor(math.log10(value))
    return float(min(m * decade for m in (1, 2, 5, 10) if m * decade >= value * (1 - 1e-9)))


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    many = last - first > 3
    found = [m * 10.0**d for d in range(first, last + 1) for m in ((1,) if many else (1, 2, 5))]
    return [v for v in found if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def _step(span: float) -> float:
    rough = span / 5
    decade = 10 ** math.floor(math.log10(rough))
    return float(min((m * decade for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 9):.6g}"


def _grid(across: _Scale, up: _Scale) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value, text in up.ticks:
        y = up(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for value, text in across.ticks:
        x = across(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
        )
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    parts.append(
        f'<text class="label" x="{(_LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(across.axis.label)}</text>"
    )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(up.axis.label)}</text>"
    )
    return parts


def _tick(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _mark(mark: Mark, across: _Scale) -> str:
    x = across(mark.x)
    anchor, dx = ("end", -6) if x > WIDTH * 0.7 else ("start", 6)
    return (
        f'<path class="mark" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="marked" x="{x + dx:.1f}" y="{_TOP + 12}" text-anchor="{anchor}">'
        f"{escape(mark.label)}</text>"
    )


def _draw(series: Series, across: _Scale, up: _Scale) -> list[str]:
    colour = series.colour % COLOURS
    places = [(across(x), up(y)) for x, y in series.points]
    parts = []
    if series.kind != "dots" and len(places) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line s{colour} {series.kind}" d="M{path}"/>')
    for (x, _), ends in zip(places, series.intervals, strict=False):
        if ends is not None:
            low, high = up(ends[0]), up(ends[1])
            parts.append(
                f'<path class="whisker s{colour}" d="M{x:.1f} {low:.1f}V{high:.1f}'
                f'M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"/>'
            )
    if series.kind in ("dots", "both"):
        radius = 2 if len(places) > 60 else 3.5
        parts += [
            f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in places
        ]
    return parts

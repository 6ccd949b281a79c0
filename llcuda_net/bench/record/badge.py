"""A document's first figure as a small picture (SVG) for a README."""

from __future__ import annotations

from html import escape
from typing import Any

from llcuda_net.bench.record import headline

_HEIGHT, _PAD, _SIZE = 20, 7, 11
#: Widths of characters in ems of a sans-serif face, as far as they differ from the middle.
_NARROW, _WIDE, _MIDDLE = frozenset("ijlIft.,:;|!'()[] -"), frozenset("mwMWQO@%"), 0.58
_LEFT, _GOOD, _BAD = "#3b4252", "#0a6e4f", "#b3261e"


def badge(document: dict[str, Any]) -> str:
    """The picture: what was measured of which model, and the figure; INVALID where it is."""
    name, value = headline.first(document)
    unit = name.rpartition(", ")[2] if ", " in name else ""
    what = name.removesuffix(f", {unit}")
    left = f"{headline.model(document)}: {what}"
    right = f"{value.partition(' (')[0]} {unit}".strip()
    colour = _GOOD
    if document["problems"]:
        right, colour = "INVALID", _BAD
    title = escape(f"{left}: {right}; {headline.server(document)}; {headline.machine(document)}")
    a, b = _width(left), _width(right)
    corner = f"a3 3 0 0 1 3 3v{_HEIGHT - 6}a3 3 0 0 1 -3 3"
    head = f'width="{a + b}" height="{_HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {head} role="img">',
        f"<title>{title}</title>",
        f'<rect {head} rx="3" fill="{_LEFT}"/>',
        f'<path d="M{a} 0h{b - 3}{corner}h-{b - 3}z" fill="{colour}"/>',
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="{_SIZE}">',
        _text(left, 0, a),
        _text(right, a, b),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _width(text: str) -> int:
    """Pixels of a text with room on both sides; the picture makes it fit, whatever the face."""
    ems = sum(0.35 if c in _NARROW else 0.9 if c in _WIDE else _MIDDLE for c in text)
    return round(ems * _SIZE * 1.05) + 2 * _PAD


def _text(text: str, at: int, width: int) -> str:
    return (
        f'<text x="{at + _PAD}" y="14" textLength="{width - 2 * _PAD}"'
        f' lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
    )

"""What a terminal showed, and when, as an SVG that plays it once.

Each piece of text is an element that appears at its moment (CSS animations, which browsers also run
in an image of a page). Who asked for reduced motion, and what does not know animations, sees the
end. Pure: no clock, no process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLUMNS = 88
#: Pixels: of a character, of a line, around the text, and of the bar above it.
_WIDTH, _HEIGHT, _MARGIN, _BAR = 8.4, 19, 16, 28
#: Colours by style, on the dark ground of a terminal.
_STYLES = {
    "prompt": "#7ee787",
    "typed": "#f0f6fc",
    "out": "#c9d1d9",
    "note": "#8b949e",
    "act": "#ffa657",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A text that appeared.

    Attributes:
        at: seconds since the beginning.
        text: may hold line breaks.
        style: one of _STYLES.
    """

    at: float
    text: str
    style: str = "out"


@dataclass(frozen=True, slots=True)
class _Piece:
    at: float
    row: int
    column: int
    text: str
    style: str


def pieces(shown: Iterable[Shown], columns: int = COLUMNS) -> Iterator[_Piece]:
    """Where each text stands: broken between words where a line is full, else at its end."""
    row = column = 0
    for each in shown:
        for number, line in enumerate(each.text.split("\n")):
            if number:
                row, column = row + 1, 0
            while line:
                room = columns - column
                taken = line if len(line) <= room else line[: line.rfind(" ", 0, room + 1) + 1]
                if (
                    not taken
                ):  # no space in it: the word begins a line, or is cut where it fills one
                    taken = "" if column else line[:room]
                if taken:
                    yield _Piece(each.at, row, column, taken.rstrip() or " ", each.style)
                column += len(taken)
                line = line[len(taken) :]
                if line:
                    row, column = row + 1, 0


def drawing(shown: Iterable[Shown], title: str, columns: int = COLUMNS) -> str:
    """The SVG.

    Args:
        title: what it shows, for who cannot see it.
    """
    placed = list(pieces(shown, columns))
    rows = 1 + max((piece.row for piece in placed), default=0)
    width = round(columns * _WIDTH) + 2 * _MARGIN
    height = rows * _HEIGHT + 2 * _MARGIN + _BAR
    colours = "".join(f".{name}{{fill:{colour}}}" for name, colour in _STYLES.items())
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    fonts = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>text{{font:14px {fonts};white-space:pre}}",
        "@media (prefers-reduced-motion:no-preference){text{opacity:0;animation:s 0s forwards}}",
        f"@keyframes s{{to{{opacity:1}}}}{colours}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
    ]
    lines += [
        f'<circle cx="{_MARGIN + 6 + 20 * number}" cy="{_BAR / 2 + 4}" r="6" fill="#30363d"/>'
        for number in range(3)
    ]
    for piece in placed:
        x = _MARGIN + piece.column * _WIDTH
        y = _BAR + _MARGIN + piece.row * _HEIGHT + 10
        # Fonts differ in width; the length keeps what follows where it belongs.
        length = f'textLength="{len(piece.text) * _WIDTH:.1f}" ' if len(piece.text) > 1 else ""
        lines.append(
            f'<text class="{piece.style}" x="{x:.1f}" y="{y}" {length}'
            f'style="animation-delay:{piece.at:.2f}s">{escape(piece.text)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])

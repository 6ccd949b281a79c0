"""Tables of styled cells for a given width: what does not fit is cut, or left out by its rank.

rich's tables shrink columns but cannot leave one out, and the same lines also go to a pipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llcuda_net.cli.tables import fit, width

_GAP = 2
#: Columns from this rank on are left out before any other is cut.
_EXTRA = 4


class Span(NamedTuple):
    """Text in one style; a style is a name, for which the screen has a colour."""

    text: str
    style: str = ""


Line = list[Span]
Cell = str | Span | Sequence[Span]


@dataclass(frozen=True, slots=True)
class Column:
    """How a column gives way.

    Attributes:
        least: columns of text to which it may shrink; None: it does not.
        rank: columns of the highest rank are left out first, those from 4 on before any other is
            cut; 0: never left out.
    """

    head: str
    right: bool = False
    least: int | None = None
    rank: int = 0


def plain(line: Line) -> str:
    """The text of a line."""
    return "".join(span.text for span in line).rstrip()


def length(line: Sequence[Span]) -> int:
    """Columns that a line takes on a terminal."""
    return sum(width(span.text) for span in line)


def cut(line: Sequence[Span], room: int) -> Line:
    """As much of a line as fits, ended by an ellipsis."""
    out: Line = []
    for text, style in line:
        if width(text) > room:
            return [*out, Span(fit(text, room), style)]
        out.append(Span(text, style))
        room -= width(text)
    return out


def grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], room: int) -> list[Line]:
    """The lines of a table, its heads first; columns of which no row has anything are left out."""
    cells = [[_spans(cell) for cell in row] for row in rows]
    shown = [i for i in range(len(columns)) if any(length(row[i]) for row in cells)]
    full = {
        i: max(width(columns[i].head), *(length(row[i]) for row in cells))  # there is a row
        for i in shown
    }
    wide = dict(full)
    _drop(columns, wide, room, _EXTRA)
    _shrink(columns, wide, room)
    _drop(columns, wide, room, 1)
    # What was left out may have made more room than was needed.
    wide = {i: full[i] for i in wide}
    _shrink(columns, wide, room)
    heads = [[Span(column.head, "head")] for column in columns]
    return [_line(columns, row, wide, room) for row in [heads, *cells]]


def _drop(columns: Sequence[Column], wide: dict[int, int], room: int, lowest: int) -> None:
    """Leave columns out while there are too many, down to a rank."""
    while _whole(wide) > room and any(columns[i].rank >= lowest for i in wide):
        del wide[max(wide, key=lambda i: (columns[i].rank, i))]


def _shrink(columns: Sequence[Column], wide: dict[int, int], room: int) -> None:
    """Take from the widest that may shrink, column by column."""
    while (over := _whole(wide) - room) > 0:
        able = [i for i in wide if wide[i] > (columns[i].least or wide[i])]
        if not able:
            return
        widest = max(able, key=lambda i: wide[i])
        least = columns[widest].least or 0
        rivals = [wide[i] for i in able if i != widest]
        down_to = max(least, wide[widest] - over, min(max(rivals, default=0), wide[widest] - 1))
        wide[widest] = down_to


def _whole(wide: dict[int, int]) -> int:
    return sum(wide.values()) + _GAP * (len(wide) - 1)


def _line(columns: Sequence[Column], row: Sequence[Line], wide: dict[int, int], room: int) -> Line:
    line: Line = []
    for number, (i, wanted) in enumerate(wide.items()):
        if number:
            line.append(Span(" " * _GAP))
        spans = cut(row[i], wanted)
        space = Span(" " * (wanted - length(spans)))
        line += [space, *spans] if columns[i].right else [*spans, space]
    return cut(line, room)


def _spans(cell: Cell) -> Line:
    if isinstance(cell, Span):
        return [cell]
    return [Span(cell)] if isinstance(cell, str) else list(cell)

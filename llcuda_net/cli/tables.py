"""Text for terminals: harmless, aligned, and no wider than the terminal.

Widths of characters are rich's. Lines are joined here and not by `rich.table`, which takes 15
times as long per row, cannot begin to print before the last row is known, and costs 80 ms to
import. Here rich is imported only for text that is not ASCII.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TextIO

from llcuda_net.util.terminal import is_terminal, one_line, paint

#: Rows from which the widths of the columns are taken; later rows are fitted to them.
_FIRST = 1000
#: What a column of text has at least, where a terminal is too narrow.
_NARROWEST = 8
#: Columns of text up to this width stay as they are: a moment or a state that is cut says nothing.
_SHORT = 20
#: Columns of a terminal that has room for whole ids, and characters of one on others: the time and
#: the first random digits of a UUIDv7.
_WIDE, _ID_BEGINS = 120, 18
_BEHIND_FIRST = frozenset(range(1, 1000))


def columns(file: TextIO | None = None) -> int | None:
    """How wide the terminal on stdout, or on another stream, is; None where there is none."""
    if not is_terminal(sys.stdout if file is None else file):
        return None
    return max(40, shutil.get_terminal_size().columns)


def width(text: str) -> int:
    """Columns that a line takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fit(text: str, room: int) -> str:
    """The text, or as much of it as fits, ended by an ellipsis."""
    if width(text) <= room:
        return text
    if room <= 0:
        return ""
    if text.isascii():
        return text[: room - 1] + "…"
    from rich.cells import set_cell_size

    return set_cell_size(text, room - 1) + "…"


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: frozenset[int] = frozenset(),
    file: TextIO | None = None,
    as_written: bool = False,
) -> Iterator[str]:
    """The lines of a table, each cell on one line; its heads are in capitals.

    The columns are as wide as the first rows need.
    A program that reads them gets every cell whole. On a terminal that is too narrow, columns of
    text become narrower, the last one first; the first column, which names the row, and numbers
    stay whole as long as there is room.

    Args:
        right: the columns that are aligned to the right.
        file: where they are printed; None: on stdout.
        as_written: the heads are not in capitals: there are units among them.
    """
    if not as_written:
        heads = [head.upper() for head in heads]
    out = sys.stdout if file is None else file
    source = iter(rows)
    first = [[one_line(cell) for cell in row] for row in islice(source, _FIRST)]
    widths = [max(width(row[i]) for row in [list(heads), *first]) for i in range(len(heads))]
    room = columns(out)
    if room is not None:
        widths = narrowed(widths, heads, right, room)

    def line(row: Sequence[str]) -> str:
        cells = []
        for number, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            text = cell if room is None else fit(cell, wide)
            space = " " * max(0, wide - width(text))
            cells.append(space + text if number in right else text + space)
        whole = "  ".join(cells).rstrip()
        return whole if room is None else fit(whole, room)

    yield paint(line(heads), "1", out)
    yield from map(line, first)
    for row in source:
        yield line([one_line(cell) for cell in row])


def id_cell(id_: str) -> str:
    """An id in a table: whole, but for its beginning on a terminal that has no room for more.

    Every command takes the beginning of an id, as long as no other id begins so.
    """
    room = columns()
    return id_ if room is None or room >= _WIDE else id_[:_ID_BEGINS]


def narrowed(
    widths: Sequence[int], heads: Sequence[str], right: frozenset[int], room: int
) -> list[int]:
    """Widths of columns with which a row fits, if those of long text can give so much.

    Args:
        right: the columns of numbers, which stay as they are.
        room: columns of the terminal.
    """
    found = list(widths)
    over = sum(found) + 2 * (len(found) - 1) - room
    for number in reversed(range(1, len(found))):
        if over > 0 and number not in right and found[number] > _SHORT:
            least = max(width(heads[number]), _NARROWEST)
            given = min(over, max(0, found[number] - least))
            found[number] -= given
            over -= given
    return found


def figures(
    heads: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None
) -> Iterator[str]:
    """The lines of a table of numbers, below each other's names in the first column.

    Where a terminal is too narrow for all columns, they are in several tables, one below the other,
    so that no number is cut.
    """
    if not heads:
        return
    room = columns(sys.stdout if file is None else file)
    widths = [max(width(one_line(row[i])) for row in [heads, *rows]) for i in range(len(heads))]
    left = [*range(1, len(heads))]
    while True:
        some, used = [0], widths[0]
        while left and (room is None or len(some) == 1 or used + 2 + widths[left[0]] <= room):
            used += 2 + widths[left[0]]
            some.append(left.pop(0))
        part = [[row[i] for i in some] for row in rows]
        some_heads = [heads[i] for i in some]
        yield from table(some_heads, part, right=_BEHIND_FIRST, file=file, as_written=True)
        if not left:
            return
        yield ""


def fields(
    pairs: Iterable[tuple[str, str]], indent: str = "  ", *, least: int = 0
) -> Iterator[str]:
    """Lines of names and values, the values one below the other.

    Args:
        least: columns of the names, at least, so that several lists stand below each other.
    """
    found = [(one_line(name), one_line(value)) for name, value in pairs]
    wide = max((width(name) for name, _ in found), default=0)
    wide = max(wide, least)
    for name, value in found:
        yield f"{indent}{name}{' ' * (wide - width(name))}  {value}".rstrip()

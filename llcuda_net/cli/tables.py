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

from llcuda_net.util.terminal import is_terminal, one_line, paint

#: Rows from which the widths of the columns are taken; later rows are fitted to them.
_FIRST = 1000


def columns() -> int | None:
    """How wide the terminal on stdout is; None where there is none."""
    if not is_terminal(sys.stdout):
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
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> Iterator[str]:
    """The lines of a table, each cell on one line; the last column is cut to fit the terminal.

    Args:
        right: the columns that are aligned to the right.
    """
    source = iter(rows)
    first = [[one_line(cell) for cell in row] for row in islice(source, _FIRST)]
    widths = [max(width(row[i]) for row in [list(heads), *first]) for i in range(len(heads))]
    room = columns()

    def line(row: Sequence[str]) -> str:
        cells = []
        for number, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            text = fit(cell, wide)
            space = " " * (wide - width(text))
            cells.append(space + text if number in right else text + space)
        whole = "  ".join(cells).rstrip()
        return whole if room is None else fit(whole, room)

    yield paint(line(heads), "1", sys.stdout)
    yield from map(line, first)
    for row in source:
        yield line([one_line(cell) for cell in row])


def fields(pairs: Iterable[tuple[str, str]], indent: str = "  ") -> Iterator[str]:
    """Lines of names and values, the values one below the other."""
    found = [(one_line(name), one_line(value)) for name, value in pairs]
    wide = max((width(name) for name, _ in found), default=0)
    for name, value in found:
        yield f"{indent}{name}{' ' * (wide - width(name))}  {value}".rstrip()

"""Draws a growing text on a terminal, and nothing twice.

What is drawn for good scrolls away as any output does. Only the rows of the block that still grows
are drawn again, from the first one that differs, and in one write: so nothing flickers, and what
has scrolled off the screen is never printed again. Where something else came between (a note, a
terminal that has become narrower), what stands is left as it is, and the text goes on below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from llcuda_net.cli.chat.screen.blocks import Block, Blocks, Kind
from llcuda_net.cli.chat.screen.markdown import Highlighter, bare, paint, plain_rows, prose_rows
from llcuda_net.cli.tables import width
from llcuda_net.util.terminal import harmless, repaint

#: Columns that words are wrapped at, at least.
_NARROWEST = 20


class Painter:
    """One text.

    Args:
        file: the terminal; its cursor is at the beginning of a row.
        colours: paint Markdown; else it is plain text, its words wrapped.
        size: gives the terminal's columns and rows.
    """

    def __init__(
        self, file: TextIO, size: Callable[[], tuple[int, int]], *, colours: bool = True
    ) -> None:
        self._file = file
        self._size = size
        self._colours = colours
        self._blocks = Blocks()
        self._code = Highlighter("")
        self._rows: list[str] = []  # of the block that grows, as they stand
        self._drawn = 0  # characters of it
        self._columns = 0  # when they were drawn
        self._begun = False  # something was drawn for good

    @property
    def is_within(self) -> bool:
        """Whether the cursor stands behind something, on its row."""
        return bool(self._rows)

    def add(self, text: str) -> None:
        """Take what comes next; it is drawn by `draw`."""
        self._blocks.add(harmless(text))

    def interrupted(self) -> None:
        """Something else was written, and the cursor is at the beginning of a row below it."""
        if self._rows:
            self._blocks.cut(self._drawn)
            self._rows, self._drawn = [], 0

    def draw(self) -> None:
        """Draw what is new.

        Raises:
            OSError: the terminal is gone.
        """
        columns, height = self._size()
        if self._rows and columns != self._columns:
            repaint("\n", self._file)
            self.interrupted()
        self._columns = columns
        for block in self._blocks.take():
            self._show(block, height)
        growing = self._blocks.open()
        if growing is not None:
            self._show(growing, height)
            self._drawn = len(self._blocks.rest)

    def finish(self) -> None:
        """Draw all that there is; the cursor is then at the beginning of a row."""
        self.draw()
        block = self._blocks.end()
        if block is not None:
            self._show(block, self._size()[1])
        elif self._rows:
            self._settle()

    def _show(self, block: Block, height: int) -> None:
        rows = self._rows_of(block)
        if block.apart and self._begun:
            rows = ["", *rows]
        if rows:
            self._replace(rows, height)
        if block.whole:
            self._settle()

    def _settle(self) -> None:
        repaint("\n", self._file)
        self._rows, self._drawn, self._begun = [], 0, True

    def _rows_of(self, block: Block) -> list[str]:
        if block.kind is Kind.FENCE:
            if block.whole:
                self._code = Highlighter(block.language if self._colours else "")
            return [paint(block.text, "2") if self._colours else block.text]
        if block.kind is Kind.CODE:
            return [self._code.line(block.text, whole=block.whole)]
        columns = max(_NARROWEST, self._columns - 1)
        if self._colours:
            return prose_rows(block.text, columns, whole=block.whole)
        return plain_rows(block.text, columns)

    def _replace(self, rows: list[str], height: int) -> None:
        """Draw rows where those of the block stand, from the first one that differs."""
        old = self._rows
        same = 0
        while same < min(len(old), len(rows)) and old[same] == rows[same]:
            same += 1
        last = len(old) - 1
        if same == len(rows):  # it has fewer: the cursor belongs behind the last one
            same -= same <= last
        if same == len(old):
            if same < len(rows):
                text = "\n".join(rows[same:])
                repaint("\n" + text if old else text, self._file)
        elif same == last and rows[same].startswith(old[same]):
            repaint("\n".join([rows[same][len(old[same]) :], *rows[same + 1 :]]), self._file)
        else:
            up = sum(map(self._height, old[same:])) - 1
            while up >= height and same < last:  # it has scrolled away: as it was, it stays
                up -= self._height(old[same])
                same += 1
            repaint("\n".join(rows[same:]), self._file, up=up)
        self._rows = rows

    def _height(self, row: str) -> int:
        cells = width(bare(row).expandtabs())
        return max(1, -(-cells // self._columns))

"""Rows that lie in several pieces of memory, one after the other, gone through by one launch.

A kernel is given the first piece as it would be given an array, and a table of the others: three
words each, the address of its rows, that of its inverse norms, and the number of the row after its
last. Both addresses are those that row 0 would have if the piece went back so far, so that a row is
found by its number in whichever piece it lies.

A kernel goes through the rows in steps, and a step never crosses from one piece into the next,
since pieces hold whole multiples of `STEP` rows. From one step to the next it keeps only where it
is in the table, and reads the addresses again: registers are scarcer than reads of what is in the
cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime import shim
from llcuda_kernels.cuda.runtime.array import DeviceArray
from llcuda_kernels.cuda.runtime.intrinsics import pointer_at
from llcuda_kernels.cuda.runtime.shim import device

#: Rows of a piece, but for the last, are a multiple of this: the most that a block takes in a step.
STEP = 256
#: So few rows that the number of one some steps further still is a whole number of 32 bits.
MOST_ROWS = 2**31 - 2**20


@device
def enter(start: Any, end: Any, table: Any, entry: Any) -> Any:
    """Go on to the piece that holds row `start`: its end, and what follows it in the table.

    Both are what was returned before; at first the end of the first piece, and 0.
    """
    while start >= end:
        end = np.int32(table[entry + 2])
        entry = np.int32(entry + 3)
    return end, entry


@device
def rows_of(first: Any, table: Any, entry: Any) -> Any:
    """The rows of the piece that was entered."""
    return first if entry == 0 else pointer_at(table, entry - 3, first)


@device
def norms_of(first: Any, table: Any, entry: Any) -> Any:
    """Its inverse norms."""
    return first if entry == 0 else pointer_at(table, entry - 2, first)


@dataclass(frozen=True)
class Rows:
    """Padded rows on the device, with their inverse norms.

    Attributes:
        first, inverse: the first piece, (n, width) and (n,).
        total: how many rows there are, those of the other pieces included.
        end: the rows of the first piece, or more.
        table: the address of the table (`entry`); unused where all rows are in one piece.
    """

    first: DeviceArray
    inverse: DeviceArray
    total: int
    end: int
    table: Any

    @classmethod
    def of(cls, rows: DeviceArray, inverse: DeviceArray) -> Rows:
        """One array."""
        return cls(rows, inverse, rows.shape[0], rows.shape[0], inverse.address)

    def entry(self, start: int) -> list[Any]:
        """These rows as a piece, of which the first is row `start`: three words of a table."""
        rows, inverse = self.addresses()
        end = start + self.first.shape[0]
        if shim.SIMULATED:
            from llcuda_kernels.cuda.runtime.simulator import Shifted

            return [Shifted(rows, start * self.words), Shifted(inverse, start), end]
        return [rows - start * self.words * 4, inverse - start * 4, end]

    def part(self, count: int) -> Rows:
        """The first `count` rows."""
        return Rows(self.first, self.inverse, count, self.end, self.table)

    @property
    def words(self) -> int:
        """Words of 32 bits a row."""
        return self.first.shape[1] * int(self.first.dtype.itemsize) // 4

    @property
    def whole(self) -> bool:
        """Whether they are int8 codes."""
        return bool(self.first.dtype == np.int8)

    def addresses(self) -> tuple[Any, Any]:
        """Of the first piece: its rows, as words, and its inverse norms."""
        rows = self.first.address
        if shim.SIMULATED and self.whole:
            rows = rows.view(np.int32)
        return rows, self.inverse.address

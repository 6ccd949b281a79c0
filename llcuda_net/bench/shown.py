"""How figures are written for people, and the line that says how far a run has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from llcuda_net.util.terminal import is_clever

#: Seconds between two updates of the progress line.
_PAUSE = 0.2


def number(value: float) -> str:
    """Three figures, thousands whole."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def estimate(found: dict[str, Any] | None, unit: str = "") -> str:
    """ "12.3 (11.9 to 12.8)"; "-" where nothing is known."""
    if found is None:
        return "-"
    text = number(found["value"]) + unit
    if found.get("low") is None or found.get("high") is None:
        return text
    return f"{text} ({number(found['low'])} to {number(found['high'])})"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(wide) for cell, wide in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()


class Ticker:
    """One line on stderr that says what is going on; on terminals only."""

    def __init__(self) -> None:
        self._wanted = is_clever(sys.stderr)
        self._shown = False
        self._next = 0.0

    def say(self, text: str, *, at_once: bool = False) -> None:
        """Show it, unless something was shown just now."""
        if self._wanted and (at_once or time.monotonic() >= self._next):
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = True
            self._next = time.monotonic() + _PAUSE

    def erase(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

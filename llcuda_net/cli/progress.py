"""One line on stderr that says how far a long work has come; on terminals only."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from llcuda_net.cli.common import paint
from llcuda_net.util.terminal import is_clever, is_terminal

#: Seconds between two updates.
_PAUSE = 0.1


class Progress:
    """Counts, and shows the count; the line goes when the `with` block ends.

    Args:
        what: stands before the count, as in "verified: 1,200".
        alone: what the command prints goes elsewhere than to the terminal.
    """

    def __init__(self, what: str, *, alone: bool = True) -> None:
        self.count = 0
        self._what = what
        self._wanted = (
            is_terminal(sys.stderr)
            and os.environ.get("TERM") != "dumb"
            and (alone or not is_terminal(sys.stdout))
        )
        self._shown = False
        self._next = time.monotonic() + _PAUSE

    def add(self, count: int = 1) -> None:
        """So much more is done."""
        self.count += count
        if self._wanted and time.monotonic() >= self._next:
            text = paint(f"{self._what}: {self.count:,}", "2", sys.stderr)
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = True
            self._next = time.monotonic() + _PAUSE

    def erase(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.erase()


class Ticker:
    """One line on stderr that says what is going on; on terminals only."""

    def __init__(self) -> None:
        self._wanted = is_clever(sys.stderr)
        self._shown = False
        self._next = 0.0

    def say(self, text: str) -> None:
        """Show it, unless something was shown just now."""
        if self._wanted and time.monotonic() >= self._next:
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

"""One line on stderr that says how far a long work has come; on terminals only.

rich draws it, and is imported when there is a first line to draw.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from llcuda_net.util.terminal import is_clever, is_terminal, one_line, wants_colour

if TYPE_CHECKING:
    from rich.live import Live

#: Seconds between two updates.
_PAUSE = 0.1


class StatusLine:
    """A line that each `show` replaces, and that is gone when the `with` block ends.

    Args:
        wanted: False: show nothing, on terminals either.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._wanted = wanted and is_clever(sys.stderr)
        self._live: Live | None = None

    def show(self, text: str) -> None:
        """Show a text in place of the one before; what does not fit the terminal is cut."""
        if not self._wanted:
            return
        from rich.text import Text

        if self._live is None:
            self._live = _begin()
        style = "dim" if wants_colour(sys.stderr) else ""
        line = Text(one_line(text), style, no_wrap=True, overflow="ellipsis")
        self._live.update(line, refresh=True)

    def erase(self) -> None:
        """Take the line away, so that something else can be printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.erase()


def _begin() -> Live:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stderr, force_terminal=True, color_system="standard")
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    live.start()
    return live


class Ticker(StatusLine):
    """A status line for work that reports more often than anybody can read."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def say(self, text: str) -> None:
        """Show it, unless something was shown just now."""
        if self._wanted and time.monotonic() >= self._next:
            self.show(text)
            self._next = time.monotonic() + _PAUSE


class Progress(StatusLine):
    """Counts, and shows the count.

    Args:
        what: stands before the count, as in "verified: 1,200".
        alone: whether the terminal is free: the command prints its output elsewhere.
    """

    def __init__(self, what: str, *, alone: bool = True) -> None:
        super().__init__(wanted=alone or not is_terminal(sys.stdout))
        self.count = 0
        self._what = what
        self._next = time.monotonic() + _PAUSE

    def add(self, count: int = 1) -> None:
        """Count so many more."""
        self.count += count
        if self._wanted and time.monotonic() >= self._next:
            self.show(f"{self._what}: {self.count:,}")
            self._next = time.monotonic() + _PAUSE

    def __enter__(self) -> Progress:
        return self

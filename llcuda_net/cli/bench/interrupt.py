"""Ctrl-C in a measurement: what is complete is kept, and a second one ends it at once.

The first one cancels what runs; what was started is ended, and the command goes on with what is
complete. The second one kills whatever is still waited for, and ends the command, too. SIGTERM ends
it as it does every other.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.util.terminal import echo

if TYPE_CHECKING:
    from llcuda_net.cli.progress import Ticker

_PROC = Path("/proc")


def measured(run: Callable[[], Awaitable[Any]], ticker: Ticker) -> bool:
    """Run a measurement to its end; False where Ctrl-C ended it before, and all was closed.

    Raises:
        KeyboardInterrupt: Ctrl-C came twice; all was killed.
        Terminated: SIGTERM ended it.
    """
    from llcuda_net.cli.run_async import run_async

    hurry = False

    def interrupted(times: int) -> None:
        nonlocal hurry
        if times == 1:
            ticker.erase()
            _say("interrupted; what is complete is kept (Ctrl-C again ends at once)")
        else:
            hurry = True
            kill_descendants(os.getpid())

    try:
        run_async(run, on_interrupt=interrupted)
    except KeyboardInterrupt:
        if hurry:
            raise
        return False
    finally:
        ticker.erase()
    return True


def caution(found: dict[str, Any], complete: int, of: int | None, what: str) -> None:
    """Say in a document that it is of fewer runs than were asked for.

    Args:
        complete: how many are in it.
        of: how many were to be; None: that was not yet known.
        what: they are, in words.

    Raises:
        KeyboardInterrupt: nothing is complete, so there is nothing to show.
    """
    if not complete:
        _say("nothing was complete")
        raise KeyboardInterrupt
    wanted = "" if of is None else f" of {of}"
    found["cautions"].insert(0, f"interrupted by Ctrl-C: {complete}{wanted} {what} are complete")


def kill_descendants(process: int) -> None:
    """Kill all that a process has started, and what that has, where /proc tells."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # After the name, which is in parentheses and may hold anything: state, parent.
            parent = int(entry.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    pending = list(children.get(process, ()))
    while pending:
        one = pending.pop()
        pending += children.get(one, ())
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)


def _say(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            echo(text, file=sys.stderr, flush=True)

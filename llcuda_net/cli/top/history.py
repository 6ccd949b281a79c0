"""What `llcuda top` derives from successive reports: speed, and what has changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from llcuda_net.cli.top.view import UpstreamView, View

#: Changes that are kept.
_MOST = 50


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened between two reports.

    Attributes:
        at: seconds, by the clock that the report was read with.
        bad: whether it is a fault.
    """

    at: float
    text: str
    bad: bool


class History:
    """Compares each report with the one before.

    Attributes:
        changes: the latest last.
    """

    def __init__(self) -> None:
        self.changes: deque[Change] = deque(maxlen=_MOST)
        self._last: View | None = None
        self._at = 0.0

    def add(self, view: View, now: float) -> View:
        """Compare a report with the one before; returns it with its speed, where it names none."""
        last, before = self._last, self._at
        self._last, self._at = view, now
        if last is None:
            return view
        if _started_again(last, view):
            self.changes.append(Change(now, "the server was started again", True))
            return view
        old = {one.name: one for one in last.upstreams}
        for one in view.upstreams:
            for text, bad in _differences(old.get(one.name), one):
                self.changes.append(Change(now, text, bad))
        gone = old.keys() - {one.name for one in view.upstreams}
        self.changes.extend(Change(now, f"{name} was removed", False) for name in sorted(gone))
        if view.speed is None and view.tokens is not None and last.tokens is not None:
            seconds = now - before
            if seconds > 0:  # two reports of one moment give no speed
                return replace(view, speed=max(0, view.tokens - last.tokens) / seconds)
        return view

    def note(self, now: float, text: str, *, bad: bool) -> None:
        """Something else has happened."""
        self.changes.append(Change(now, text, bad))


def _started_again(last: View, view: View) -> bool:
    return last.uptime is not None and view.uptime is not None and view.uptime < last.uptime


def _differences(old: UpstreamView | None, new: UpstreamView) -> Iterator[tuple[str, bool]]:
    if old is None:
        yield f"{new.name} was added", False
        return
    if old.state != new.state and new.state:
        why = f": {new.reason}" if new.reason else ""
        yield f"{new.name} is {new.state}{why}", new.state == "down"
    counted: tuple[tuple[str, Callable[[UpstreamView], int | None]], ...] = (
        ("failover", lambda one: one.failovers),
        ("restart", lambda one: one.restarts),
    )
    for noun, figure in counted:
        more = (figure(new) or 0) - (figure(old) or 0)
        if more > 0:
            yield f"{new.name}: {more} {noun}{'' if more == 1 else 's'}", True
    if old.model and new.model and old.model != new.model:
        yield f"{new.name} has another model: {new.model}", False

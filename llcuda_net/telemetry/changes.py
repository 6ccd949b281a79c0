"""What has changed at the upstreams, found by comparing them with how they were a second ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from llcuda_net.telemetry.observers import Backend

#: Changes that are kept.
_MOST = 50
#: Longest reason.
_REASON = 300


@dataclass(frozen=True, slots=True)
class _Seen:
    """How an upstream was."""

    state: str
    model: str
    restarts: int
    failovers: int

    @classmethod
    def of(cls, backend: Backend) -> _Seen:
        return cls(backend.state, backend.model, backend.restarts, backend.failovers)


class Changes:
    """Remembers the last changes."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] | None = None
        self._changes: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def __repr__(self) -> str:
        return f"<Changes: {len(self._changes)}>"

    def look(self, backends: Iterable[Backend], at: float) -> None:
        """Compare the upstreams with how they were at the last look; the first one only looks.

        Args:
            at: now, in seconds since 1970.
        """
        last, self._seen = self._seen, {}
        for backend in backends:
            now = self._seen[backend.name] = _Seen.of(backend)
            if last is not None:
                for text, bad in _differences(last.get(backend.name), now, backend.reason):
                    self._note(at, backend.name, text, bad=bad)
        for name in sorted((last or {}).keys() - self._seen.keys()):
            self._note(at, name, "was removed", bad=False)

    def report(self) -> list[dict[str, Any]]:
        """The last ones, as JSON, newest last."""
        return list(self._changes)

    def _note(self, at: float, upstream: str, text: str, *, bad: bool) -> None:
        self._changes.append({"at": round(at, 3), "upstream": upstream, "text": text, "bad": bad})


def _differences(old: _Seen | None, new: _Seen, reason: str | None) -> Iterator[tuple[str, bool]]:
    """What to say of an upstream, and whether it is a fault."""
    if old is None:
        yield "was added", False
        return
    if old.state != new.state:
        why = f": {reason[:_REASON]}" if reason else ""
        yield f"is {new.state}{why}", new.state == "down"
    for noun, more in (
        ("restart", new.restarts - old.restarts),
        ("failover", new.failovers - old.failovers),
    ):
        if more > 0:
            yield f"{more} {noun}{'' if more == 1 else 's'}", True
    if old.model and new.model and old.model != new.model:
        yield f"has another model: {new.model}", False

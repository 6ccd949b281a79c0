"""llcuda-server, broken on purpose: the campaign must notice, or it proves nothing.

python tools/chaos/broken.py MODE [llcuda-server's options]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llcuda_net import continuation
from llcuda_net.admission import Admission
from llcuda_net.cli import server

#: The lease that is never given back, counted from the first.
_KEPT = 40


def repeat_at_splice() -> None:
    """Go on after an upstream's failure from one token too early: its piece comes twice."""
    plan = continuation.plan

    async def earlier(*arguments: Any, **named: Any) -> continuation.Plan:
        found = await plan(*arguments, **named)
        if found.finished is None and isinstance(found.prompt, list):
            return replace(found, prompt=found.prompt[:-1])
        return found

    continuation.plan = earlier


def keep_a_slot() -> None:
    """Never give back one slot, of hundreds of requests."""
    admission: Any = Admission
    begin = admission.__init__
    count = 0

    class Kept:
        """A lease that is not given back."""

        def __init__(self, lease: Any) -> None:
            self._lease = lease

        def release(self) -> None:
            """Do nothing."""

        def __getattr__(self, name: str) -> Any:
            return getattr(self._lease, name)

    def place_kept(place: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def placed(ticket: Any) -> Any:
            nonlocal count
            lease = place(ticket)
            count += lease is not None
            return Kept(lease) if lease is not None and count == _KEPT else lease

        return placed

    def broken(self: Admission, place: Any, *arguments: Any, **named: Any) -> None:
        begin(self, place_kept(place), *arguments, **named)

    admission.__init__ = broken


MODES: dict[str, Callable[[], None]] = {
    "repeat-at-splice": repeat_at_splice,
    "keep-a-slot": keep_a_slot,
}


if __name__ == "__main__":
    MODES[sys.argv[1]]()
    sys.exit(server.main(sys.argv[2:]))

"""llcuda-server, broken on purpose: the campaign must notice, or it proves nothing.

python tools/chaos/broken.py MODE [llcuda-server's options]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llcuda_net.cli import server
from llcuda_net.generation.attempt import continuation
from llcuda_net.upstream.slots.lease import Lease
from llcuda_net.util.terminal import echo

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
    release = Lease.release
    held: list[Lease] = []

    def forget(self: Lease) -> None:
        if len(held) < _KEPT and self not in held:
            held.append(self)
        if self is not held[-1] or len(held) < _KEPT:
            release(self)

    Lease.release = forget  # type: ignore[method-assign]


MODES: dict[str, Callable[[], None]] = {
    "repeat-at-splice": repeat_at_splice,
    "keep-a-slot": keep_a_slot,
}


if __name__ == "__main__":
    if sys.argv[1:2] not in ([mode] for mode in MODES):
        echo(f"{__doc__}\nmodes: {', '.join(MODES)}", file=sys.stderr)
        sys.exit(1)
    MODES[sys.argv[1]]()
    sys.exit(server.main(sys.argv[2:]))

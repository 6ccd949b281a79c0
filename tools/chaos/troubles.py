"""The troubles of upstreams: at random moments, for a random upstream, for a random time."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from tools.campaign.upstreams import Upstream

#: Every kind of trouble, and whether only the synthetic upstream supports it.
KINDS = {"kill": False, "stop": False, "errors": True}
#: The faults of an upstream that answers errors; K is drawn for each trouble.
FAULTS = (
    "http:500",
    "http:503",
    "close",
    "stall-headers",
    "reset:K",
    "die:K",
    "cut:K",
    "stall:K",
    "no-final:K",
    "error-event:K",
    "not-json:K",
    "bad-chunk:K",
)
#: Most tokens before a fault strikes.
_LATEST = 40


@dataclass(frozen=True)
class Timing:
    """How often there are troubles, and for how long.

    Attributes:
        peace: mean seconds between two troubles of one kind.
        lasts: fewest and most seconds that one lasts.
    """

    peace: float = 6.0
    lasts: tuple[float, float] = (1.0, 6.0)


class Troubles:
    """Harms and heals upstreams. Each kind happens by itself, and no upstream has two at once.

    So at times one upstream is in trouble, and at times all are.

    Attributes:
        counts: troubles by kind.
        seconds: how long so many upstreams were in trouble at once, by their number.
    """

    def __init__(self, upstreams: Sequence[Upstream], rng: random.Random, timing: Timing) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: defaultdict[int, float] = defaultdict(float)
        self._upstreams = upstreams
        self._rng = rng
        self._timing = timing
        self._changed = 0.0

    async def run(self, seconds: float) -> None:
        """Make trouble for so long, then heal everything.

        Raises:
            StartError: one that was killed does not start again.
        """
        self._changed = trio.current_time()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for kind, synthetic in KINDS.items():
                    if not synthetic or self._upstreams[0].synthetic:
                        nursery.start_soon(self._one_kind, kind)
        for upstream in self._upstreams:
            if upstream.trouble:
                await self._heal(upstream)
        self._count()

    async def _one_kind(self, kind: str) -> None:
        rng = self._rng
        while True:
            await trio.sleep(rng.expovariate(1 / self._timing.peace))
            well = [upstream for upstream in self._upstreams if not upstream.trouble]
            if not well:
                continue
            upstream = rng.choice(well)
            how = rng.choice(FAULTS).replace("K", str(rng.randint(0, _LATEST)))
            self._count()
            self.counts[kind] += 1
            with trio.CancelScope(shield=True):  # half a trouble could not be healed
                await upstream.harm(kind, how)
            await trio.sleep(rng.uniform(*self._timing.lasts))
            with trio.CancelScope(shield=True):
                await self._heal(upstream)

    async def _heal(self, upstream: Upstream) -> None:
        await upstream.heal()
        self._count(upstream)

    def _count(self, healed: Upstream | None = None) -> None:
        """Add the time since the last change to the present number of troubles."""
        now = trio.current_time()
        number = sum(bool(u.trouble) or u is healed for u in self._upstreams)
        self.seconds[number] += now - self._changed
        self._changed = now

"""Whether a request would be served now, and if not, why: one line for whoever routes requests."""

from __future__ import annotations

import math

import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import Upstream
from llcuda_net.watching import Standing

#: Seconds for an upstream to answer, and for which its answer counts.
PATIENCE = 2.0
FRESH = 1.0


class Health:
    """Asks the upstreams, however many want to know, once in FRESH seconds.

    Attributes:
        standing: of the server; None while it starts, and when it has stopped.
        refusals: of each upstream that was asked, why it takes no work; None: it does.
    """

    def __init__(self) -> None:
        self.standing: Standing | None = None
        self.refusals: dict[Upstream, str | None] = {}
        self._asking = trio.Lock()
        self._asked = -math.inf

    async def look(self) -> None:
        """Bring `refusals` up to date; takes PATIENCE seconds at most."""
        async with self._asking:  # one asks for all
            standing = self.standing
            if standing is None or trio.current_time() < self._asked + FRESH:
                return
            found: dict[Upstream, str | None] = {}
            async with trio.open_nursery() as nursery:
                for upstream in standing.upstreams:
                    nursery.start_soon(_ask, upstream, found)
            self.refusals = found
            self._asked = trio.current_time()

    def reason(self) -> str | None:
        """Why no request would be served, by what is known now; None: it would be."""
        standing = self.standing
        if standing is None:
            return "the server is starting, or has stopped"
        if standing.draining:
            return "the server is draining"
        refusal = None if standing.storage is None else standing.storage.refusal
        if refusal is not None:
            return f"the store takes nothing: {refusal.message}"
        reasons = [self.refusals.get(u, "it was not asked yet") for u in standing.upstreams]
        if None in reasons:
            return None
        return "no upstream answers: " + "; ".join(str(reason) for reason in reasons)


async def _ask(upstream: Upstream, found: dict[Upstream, str | None]) -> None:
    found[upstream] = f"no answer within {PATIENCE:g} s"
    with trio.move_on_after(PATIENCE):
        try:
            await upstream.check()
            found[upstream] = None
        except RequestError as error:
            found[upstream] = error.message

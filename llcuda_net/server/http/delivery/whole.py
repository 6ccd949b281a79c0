"""Waiting for an answer as a whole: that all of its choices are over, and their logs are here."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.exchange import Exchange


class WholeReader:
    """Reads generations to their end."""

    def __init__(self, exchange: Exchange, generations: Sequence[Generation]) -> None:
        self._exchange = exchange
        self._generations = generations
        self._ready = trio.Event()
        for generation in generations:
            generation.join(self)

    def __repr__(self) -> str:
        return f"<WholeReader of {', '.join(one.id for one in self._generations)}>"

    def pump(self) -> None:
        """See whether it is all there."""
        host, ready = self._exchange.host, True
        for generation in self._generations:
            ready = ready and generation.ended
            if generation.shelved is not None and generation.lost is None:
                ready = False
                host.recall(generation)
        if ready:
            self._ready.set()

    async def wait(self) -> None:
        """Return when it is all there; whoever goes on without waiting in between finds it so."""
        self.pump()
        await self._ready.wait()

    def leave(self) -> None:
        """Read no longer."""
        for generation in self._generations:
            generation.readers.remove(self)
        for generation in self._generations:
            self._exchange.host.left(generation)

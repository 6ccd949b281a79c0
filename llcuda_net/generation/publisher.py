"""What has come since the last time: first into the journal, then to the streams, then sent."""

from __future__ import annotations

import trio

from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.server.tcp.write_buffer import Outbox
from llcuda_net.storage.records import Level


class Publisher:
    """Lets streams see of a generation only what is as safe as its level says.

    Attributes:
        unflushed: outboxes with frames that no flush has seen yet.
    """

    def __init__(self, persistence: Persistence) -> None:
        self.unflushed: set[Outbox] = set()
        self._persistence = persistence
        self._grown: set[Generation] = set()
        #: Of the level strict: they wait for the disk.
        self._strict: set[Generation] = set()
        self._strict_work = trio.Event()

    def grew(self, generation: Generation, first: int) -> None:
        """A generation's log has new entries from number `first` on.

        Raises:
            RequestError: the journal does not take them.
        """
        self._persistence.grew(generation, first)
        self._grown.add(generation)

    def forget(self, generation: Generation) -> None:
        """A generation is over: how it ended shows all that may be seen of it."""
        self._grown.discard(generation)
        self._strict.discard(generation)

    def flush(self) -> None:
        """Keep what has come since the last time, then send it."""
        if self._grown:
            self._show_grown()
        while self.unflushed:
            self.unflushed.pop().flush()

    def _show_grown(self) -> None:
        """Write what has grown to the journal, and only then let the streams have it."""
        grown, self._grown = self._grown, set()
        try:
            self._persistence.write()
            refusal = None
        except RequestError as error:
            refusal = error
        for generation in grown:
            if refusal is not None and generation.level.journalled:
                generation.hand_back(refusal)
            elif generation.level is Level.STRICT:
                self._strict.add(generation)
                self._strict_work.set()
            else:
                generation.show(len(generation.pieces))

    async def sync_strictly(self) -> None:
        """At the level strict, have the disk take tokens before they are sent; runs for ever."""
        while True:
            await self._strict_work.wait()
            self._strict_work = trio.Event()
            grown = [(generation, len(generation.pieces)) for generation in self._strict]
            self._strict.clear()
            try:
                await self._persistence.sync()
            except RequestError as error:
                for generation, _ in grown:
                    generation.hand_back(error)
                continue
            for generation, count in grown:
                if not generation.ended:
                    generation.show(count)
            self.flush()

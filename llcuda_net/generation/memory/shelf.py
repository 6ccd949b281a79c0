"""The logs of generations that are over, for as long as somebody reads them.

They take a bounded number of bytes. Beyond that, the one that was used longest ago is dropped: a
log that the store has is read again when its reader can take more, and one that it does not have
is lost to its readers, who get an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from weakref import WeakSet, WeakValueDictionary

import trio

from llcuda_net.errors import InternalError, Overloaded, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.records import Result

#: Reads the result of a generation from the store; None: it is not there any more.
ReadResult = Callable[[Generation], Awaitable[Result | None]]


class Shelf:
    """Keeps the logs of what is over within a bound; holds no generation itself.

    Args:
        bound: bytes of all logs together.
        read: reads the result of one again.

    Attributes:
        dropped: logs that were dropped so far.
        read_again: logs that were read again so far.
    """

    def __init__(self, bound: int, read: ReadResult) -> None:
        self.dropped = 0
        self.read_again = 0
        self._bound = bound
        self._read = read
        self._here: WeakValueDictionary[int, Generation] = WeakValueDictionary()  # in order of use
        self._unstored: WeakSet[Generation] = WeakSet()
        self._wanted: dict[Generation, None] = {}
        self._work = trio.Event()

    def __repr__(self) -> str:
        return f"<Shelf {len(self._here)} logs, {self.size:,} of {self._bound:,} bytes>"

    @property
    def size(self) -> int:
        """Bytes that the logs which are here take."""
        return sum(generation.size for generation in self._logs())

    def keep(self, generation: Generation, *, stored: bool) -> None:
        """A generation is over; `stored`: its log can be read again."""
        if not stored:
            self._unstored.add(generation)
        self._here[id(generation)] = generation
        self.trim()

    def recall(self, generation: Generation) -> None:
        """A reader can take more of a log that was dropped."""
        self._wanted[generation] = None
        self._work.set()

    def trim(self) -> None:
        """Drop logs until they take no more than the bound: first those that can be read again."""
        over = self.size - self._bound
        logs = tuple(self._logs())
        for generation in sorted(logs, key=self._unstored.__contains__):
            if over <= 0:
                return
            over -= generation.size
            self._drop(generation)

    def clear(self) -> None:
        """Drop all logs that can be read again."""
        for generation in tuple(self._logs()):
            if generation not in self._unstored:
                self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        self._here.pop(id(generation), None)
        self.dropped += 1
        if generation in self._unstored:
            generation.lose(
                Overloaded(
                    "this answer was kept in memory only, and dropped since it was not read in "
                    "time: read faster, or ask for the durability process or disk"
                )
            )
        else:
            generation.shelve()

    def _logs(self) -> Iterator[Generation]:
        for generation in self._here.values():
            if generation.shelved is None:
                yield generation

    async def run(self, after: Callable[[], None]) -> None:
        """Read logs that are wanted again, one after the other; for ever.

        Args:
            after: called after each, to send what its readers have taken of it.
        """
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._wanted:
                generation = next(iter(self._wanted))
                await self._bring(generation)
                del self._wanted[generation]
                after()

    async def _bring(self, generation: Generation) -> None:
        if generation.shelved is None or not generation.readers:
            return
        try:
            result = await self._read(generation)
        except RequestError as error:
            generation.lose(error)
            return
        if result is None:
            generation.lose(InternalError("its result was deleted while it was read"))
            return
        self.read_again += 1
        generation.unshelve(result)
        # All of these readers have taken what they can; so this one may go as well as the others.
        self._here[id(generation)] = generation
        self.trim()

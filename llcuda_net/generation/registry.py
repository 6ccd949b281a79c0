"""The generations that a server has in memory: those that run, and some that have just ended.

What is stored is found in the store. What is not (the level memory, a full disk) stays here for a
while after its end, for a client that lost its connection just before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import trio

from llcuda_net.errors import InvalidRequest, KeyConflict, RequestError, UnknownGeneration
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.generation.state import State

#: Seconds for which, and the most generations of which, what is not stored can still be read.
LINGER = 60.0
MAX_LINGERING = 1000
#: Keys that are remembered after their generations have ended.
MAX_KEYS = 65_536


class Registry:
    """Generations by id, and by the idempotency key of their owner.

    Args:
        shelf: is given what is over.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf = shelf
        self._running: set[Generation] = set()
        self._by_id: dict[str, Generation] = {}
        self._by_key: dict[tuple[str, str], Generation] = {}
        self._lingering: OrderedDict[Generation, float] = OrderedDict()
        self._more = trio.Event()
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Generation]:
        return iter(tuple(self._running))

    def add(self, generation: Generation) -> None:
        """A generation begins. Its key now means it, whatever had that key before."""
        self._forget_old()
        self._running.add(generation)
        self._by_id[generation.id] = generation
        if generation.key is not None:
            place = generation.owner, generation.key
            self._by_key[place] = generation
            self._used[place] = None
            self._used.move_to_end(place)
            if len(self._used) > MAX_KEYS:
                self._used.popitem(last=False)

    def rename(self, generation: Generation, id_: str) -> None:
        """A generation turns out to be one that is stored."""
        del self._by_id[generation.id]
        generation.id = id_
        self._by_id[id_] = generation

    def remove(self, generation: Generation, *, stored: bool) -> None:
        """A generation has ended, or stops here."""
        self._running.discard(generation)
        if self._shelf is not None and generation.ended:
            self._shelf.keep(generation, stored=stored)
        if stored or not generation.accepted or generation.suspended:
            self._drop(generation)
        else:
            self._lingering[generation] = trio.current_time() + LINGER
            self._more.set()
            self._forget_old()

    def find(self, id_: str, owner: str | None) -> Generation | None:
        """The generation with this id, if it is this owner's (None: anybody's) and here."""
        self._forget_old()
        found = self._by_id.get(id_)
        return found if found is not None and owner in (None, found.owner) else None

    def with_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's key means now, whatever it was asked and however it ended."""
        self._forget_old()
        return self._by_key.get((owner, key))

    def of_request(self, request_hash: bytes, owner: str) -> list[Generation]:
        """An owner's generations that are here and were asked just this, oldest first."""
        self._forget_old()
        found = [
            one
            for one in self._by_id.values()
            if one.request_hash == request_hash and one.owner == owner
        ]
        return sorted(found, key=lambda one: (one.created, one.id))

    def known(self, owner: str | None) -> list[Generation]:
        """All of an owner (None: everybody) that `find` finds and whose ids were told."""
        self._forget_old()
        return [
            found
            for found in self._by_id.values()
            if found.accepted and owner in (None, found.owner)
        ]

    def find_by_key(
        self, key: str, request_hash: bytes, owner: str, earlier_hash: bytes = b""
    ) -> Generation | None:
        """The generation that a key means, if it runs or has done its work.

        Raises:
            RequestError: it answers another request.
        """
        self._forget_old()
        found = self._by_key.get((owner, key))
        if found is None or (found.ended and found.state is not State.DONE):
            return None
        if found.scope.cancel_called:  # it is about to end, and not well
            return None
        check_key(key, found.request_hash, request_hash, earlier_hash)
        return found

    def check_fresh(self, key: str, owner: str) -> None:
        """Refuse a key that was given to a generation before, where its request says otherwise.

        That request was held up on its way, on a connection that its client has given up, and was
        overtaken by its repetition: what it asks for has begun, and may be over by now.

        Raises:
            RequestError: it was.
        """
        if (owner, key) in self._used:
            raise InvalidRequest(
                f"the idempotency key {key[:60]!r} is not fresh: it was used before",
            )

    def forget(self, generation: Generation) -> None:
        """One that is over is deleted, however long it was to linger."""
        self._lingering.pop(generation, None)
        self._drop(generation)

    def free_key(self, owner: str, key: str) -> None:
        """What had this key is deleted: it may be given to another request."""
        if (owner, key) not in self._by_key:
            self._used.pop((owner, key), None)

    async def run(self) -> None:
        """Forget what has lingered long enough; runs until cancelled."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._lingering:
                await trio.sleep_until(next(iter(self._lingering.values())))
                self._forget_old()

    def _forget_old(self) -> None:
        now = trio.current_time()
        while self._lingering:
            generation, until = next(iter(self._lingering.items()))
            if until > now and len(self._lingering) <= MAX_LINGERING:
                return
            del self._lingering[generation]
            self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        if self._by_id.get(generation.id) is generation:
            del self._by_id[generation.id]
        if generation.key is not None:
            place = generation.owner, generation.key
            if self._by_key.get(place) is generation:
                del self._by_key[place]


def unknown(id_: str) -> RequestError:
    """The error for an id that is nobody's, or somebody else's: the message does not say which."""
    return UnknownGeneration(
        f"there is no generation {id_!r} here: it never was, was kept in memory only, or "
        "its result was deleted",
    )


def check_key(key: str, known: bytes, asked: bytes, earlier: bytes = b"") -> None:
    """Refuse a key that was given to another request.

    Args:
        known: the hash of the request that has it.
        asked, earlier: the hashes of the one that names it now, by this server and earlier ones.

    Raises:
        RequestError: it was.
    """
    if known not in (asked, earlier or asked):
        raise KeyConflict(
            "the idempotency key belongs to another request: choose another key",
        )

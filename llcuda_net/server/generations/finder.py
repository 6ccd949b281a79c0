"""Finds the generations that clients name, running or stored; forgets those that they delete."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import trio

from llcuda_net.errors import InvalidRequest, UnknownGeneration
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.generation.persistence import Persistence, request_of
from llcuda_net.generation.registry import Registry, unknown
from llcuda_net.generation.state import State
from llcuda_net.storage.records import Result, TokenLog
from llcuda_net.storage.transient.results import Erased

_T = TypeVar("_T")


class Elsewhere(Protocol):
    """The generations of other servers; see Cluster."""

    def check_shown(self) -> None:
        """Return if readers may be shown what runs here; raises LeaseLost."""

    async def find(self, id_: str, owner: str | None) -> Generation | None:
        """One that another server has; None: none has it. Raises RequestError."""

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """One that another server has under this key; None: none has. Raises RequestError."""

    async def cancel_keys(self, owner: str, prefix: str) -> None:
        """End what others run under an owner's keys of this beginning. Raises RequestError."""

    async def states(self, ids: Collection[str], owner: str | None) -> dict[str, State]:
        """The states of those that other servers have. Raises RequestError."""

    async def delete(self, id_: str, owner: str | None) -> bool:
        """Delete one that another server alone has; whether there was one. Raises RequestError."""


class Finder:
    """Looks in memory first, then in the store, then at other servers.

    Args:
        registry: the generations that run, and those that are remembered.
        shelf: keeps the logs that were read from the store, while there is room.
        elsewhere: other servers on the same store; None: there are none.

    Attributes:
        replayed: by id, those that were read from the store, while somebody reads them.
    """

    def __init__(
        self,
        registry: Registry,
        persistence: Persistence,
        shelf: Shelf,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.replayed: WeakValueDictionary[str, Generation] = WeakValueDictionary()
        self._registry = registry
        self._persistence = persistence
        self._shelf = shelf
        self._elsewhere = elsewhere
        self._reading = trio.Lock()

    def __repr__(self) -> str:
        return f"<Finder {len(self.replayed)} from the store>"

    async def find(self, id_: str, owner: str | None, *, only_here: bool = False) -> Generation:
        """A generation of this owner; of any where that is None.

        Args:
            only_here: not if it is in the memory of another server.

        Raises:
            RequestError: there is none, or the store cannot be read.
        """
        here = self._registry.find(id_, owner)
        if here is not None:
            return self._shown(here)
        try:
            return await self._stored(id_, owner)
        except UnknownGeneration:
            if self._elsewhere is None or only_here:
                raise
        found = await self._elsewhere.find(id_, owner)
        # It may have ended, or come here, between the looks.
        return found or self._registry.find(id_, owner) or await self._stored(id_, owner)

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's idempotency key means, running or over.

        Raises:
            RequestError: the store cannot be read.
        """
        found = self._registry.with_key(key, owner)
        if found is not None:
            return self._shown(found)
        result = await self._persistence.find_by_key(key, owner)
        if result is not None:
            return await self._stored(result.id, owner)
        return None if self._elsewhere is None else await self._elsewhere.find_by_key(key, owner)

    async def cancel_keys(self, owner: str, prefix: str) -> None:
        """End what still runs under an owner's keys of this beginning, here or elsewhere.

        Raises:
            RequestError: the cluster cannot say what that is.
        """
        for one in self._registry:
            if one.owner == owner and not one.ended and (one.key or "").startswith(prefix):
                one.cancel()
        if self._elsewhere is not None:
            await self._elsewhere.cancel_keys(owner, prefix)

    async def states(self, ids: Collection[str], owner: str | None) -> dict[str, State]:
        """The states of those of an owner's (None: anybody's) generations among these that there
        are, by id.

        Raises:
            RequestError: the store cannot be read.
        """
        here = {id_: one for id_ in ids if (one := self._registry.find(id_, owner)) is not None}
        found = {id_: one.state for id_, one in here.items()}
        stored = await self._persistence.states([id_ for id_ in ids if id_ not in here], owner)
        found |= {id_: State(state) for id_, state in stored.items()}
        if self._elsewhere is not None and (rest := [id_ for id_ in ids if id_ not in found]):
            found |= await self._elsewhere.states(rest, owner)
        return found

    async def result(self, id_: str, owner: str | None) -> Result:
        """All of a generation of this owner (None: of any) that is over: its request, its log.

        Raises:
            UnknownGeneration: there is none.
            InvalidRequest: it still runs.
            RequestError: its log was dropped from memory, or the store cannot be read.
        """
        here = self._registry.find(id_, owner)
        if here is None:
            async with self._reading:  # one may be large: never several in memory at a time
                found = await self._persistence.result(id_, owner)
            if found is None:
                raise unknown(id_)
            return found
        if not here.ended:
            raise InvalidRequest(
                f"the generation {id_} still runs: wait for its end, or cancel it first"
            )
        if here.lost is not None:
            raise here.lost
        return _result_of(here)

    async def results(
        self, ids: Collection[str], owner: str | None, made: Callable[[Result], _T]
    ) -> dict[str, _T]:
        """What is made of several generations of this owner (None: of any) that are over and kept.

        Args:
            made: called with one result after the other, in a thread.

        Raises:
            RequestError: the store cannot be read.
        """
        async with self._reading:
            return await self._persistence.results(ids, owner, made)

    def _shown(self, here: Generation) -> Generation:
        """One of this server, if readers may see what it has.

        Who was asleep may be asked before anything here has looked at the clock. One whose result
        is being stored has no entry any more, and may be another server's as well.

        Raises:
            LeaseLost: not now.
        """
        if self._elsewhere is not None and here.level.journalled and not here.ended:
            self._elsewhere.check_shown()
        return here

    async def _stored(self, id_: str, owner: str | None) -> Generation:
        """One that is over; all who read it share what was read from the store."""
        async with self._reading:
            found = self.replayed.get(id_) or await self._persistence.find(id_, owner)
        if found is None or owner not in (None, found.owner):
            raise unknown(id_)
        if id_ not in self.replayed:
            self.replayed[id_] = found
            self._shelf.keep(found, stored=True)
        return found

    async def stored(self, id_: str) -> Result | None:
        """The result of anybody's generation, for another server; None: there is none.

        Raises:
            RequestError: the store cannot be read.
        """
        async with self._reading:
            return await self._persistence.result(id_, None)

    async def delete(self, id_: str, owner: str | None, *, only_here: bool = False) -> str:
        """Forget a generation that is over; its idempotency key is free again.

        Who reads it just now may get the rest of it.

        Args:
            only_here: not if another server alone has it.

        Returns:
            Whose it was.

        Raises:
            UnknownGeneration: there is none.
            InvalidRequest: it still runs.
            RequestError: the store refuses.
        """
        found = self._registry.find(id_, owner)
        if found is not None and not found.ended:
            raise InvalidRequest("it still runs: cancel it first")
        deleted = await self._persistence.delete(id_, owner)
        if found is None and deleted is None:
            if only_here or self._elsewhere is None or not await self._elsewhere.delete(id_, owner):
                raise unknown(id_)
            return owner or ""
        self.replayed.pop(id_, None)
        if found is not None:
            self._registry.forget(found)
            if found.key is not None:
                self._registry.free_key(found.owner, found.key)
        if deleted is not None and deleted.key is not None:
            self._registry.free_key(deleted.owner, deleted.key)
        return found.owner if found is not None else deleted.owner if deleted is not None else ""

    async def erased(self) -> list[Erased]:
        """Forget what was erased since its time is over, as `delete` does; waits for something."""
        gone = await self._persistence.erased()
        for one in gone:
            self.replayed.pop(one.id, None)
            if one.key is not None:
                self._registry.free_key(one.owner, one.key)
        return gone


def _result_of(generation: Generation) -> Result:
    """What the store would have of one that is over and in memory only."""
    outcome = generation.outcome
    return Result(
        id=generation.id,
        state=str(generation.state),
        created=generation.created,
        finished=generation.finished or generation.created,
        request=request_of(generation),
        log=TokenLog(generation.pieces, generation.ids, generation.logprobs),
        reason=outcome.reason if generation.state is State.DONE else "",
        stop=outcome.stop,
        usage=outcome.usage,
        model=generation.model,
        level=generation.level,
        owner=generation.owner,
        switches=generation.switches,
        transient=generation.transient,
    )

"""The generations of users: each request names whose they are, and waits until the server runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

import structlog

from llcuda_net.config.users import User, view_of
from llcuda_net.errors import ShuttingDown
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.memory.budget import MemoryBudget
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.request import check_position
from llcuda_net.generation.state import State
from llcuda_net.server.generations.finder import Finder
from llcuda_net.server.generations.previous import previous_of
from llcuda_net.server.http.conversations.cache import NodeCache
from llcuda_net.server.http.delivery.leaving import Orphans
from llcuda_net.server.http.delivery.runs import Runs
from llcuda_net.server.objects import KeptObjects
from llcuda_net.storage.objects import entries
from llcuda_net.storage.records import Result
from llcuda_net.telemetry.observers import ServerState
from llcuda_net.telemetry.readiness import Startup
from llcuda_protocol import Attach, Generate

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class Generations:
    """Finds, reads and deletes them.

    Args:
        finder: looks for them, for whoever asks.
        registry: those that run.
        startup: requests wait until it is over.
        standing: whether the server stops, and how many streams are open.
        budget: of the memory that requests take.
        orphans, runs, shown, objects: what else knows of one that is deleted.
    """

    def __init__(
        self,
        finder: Finder,
        registry: Registry,
        *,
        startup: Startup,
        standing: ServerState,
        budget: MemoryBudget,
        orphans: Orphans,
        runs: Runs,
        shown: NodeCache,
        objects: KeptObjects,
    ) -> None:
        self._finder = finder
        self._registry = registry
        self._startup = startup
        self._standing = standing
        self._budget = budget
        self._orphans = orphans
        self._runs = runs
        self._shown = shown
        self._objects = objects

    def __repr__(self) -> str:
        return f"<Generations {self._registry!r}, {self._finder!r}>"

    async def find(self, request: Attach, user: User, *, only_here: bool = False) -> Generation:
        """The generation to read: one of the user; for an admin, any.

        Args:
            only_here: not if it is in the memory of another server, which is the one that asks.

        Raises:
            RequestError: there is none, or the client has more of it than there is.
        """
        await self._startup.wait()
        if self._standing.draining and not only_here:  # others read what runs here to its end
            raise ShuttingDown("the server is shutting down; attach again later", retry=True)
        self._budget.check_streams(self._standing.streams)
        found = await self._finder.find(request.id, view_of(user), only_here=only_here)
        first, epoch = request.first, request.epoch
        if first and epoch is not None:
            await found.reach(lambda: found.has(first, epoch))
        check_position(found, first, epoch)
        if request.peer is not None and "on_disconnect" in request.peer:
            found.on_disconnect = request.peer["on_disconnect"]
        return found

    async def find_previous(self, request: Generate, user: User) -> Result | Generation:
        """What a request names as the previous generation, or what its key means already.

        Raises:
            RequestError: as `previous_of`, or there is no memory for it.
        """
        await self._startup.wait()
        size = sizes.of(request.prompt) + sizes.of(request.messages)
        with self._budget.holding(user.name, size):
            return await previous_of(request, user, self._finder)

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's idempotency key means, running or over.

        Raises:
            RequestError: the store cannot be read.
        """
        return await self._finder.find_by_key(key, owner)

    async def result(self, id_: str, user: User) -> Result:
        """What is kept of a generation that is over: one of the user; for an admin, any.

        Raises:
            RequestError: as `Finder.result`.
        """
        await self._startup.wait()
        return await self._finder.result(id_, view_of(user))

    async def results(
        self, ids: Collection[str], user: User, made: Callable[[Result], _T]
    ) -> dict[str, _T]:
        """What is made of those of the user's (of an admin: any) generations that are kept, by id.

        Args:
            made: called in a thread.

        Raises:
            RequestError: as `Finder.results`.
        """
        await self._startup.wait()
        return await self._finder.results(ids, view_of(user), made)

    async def states(self, ids: Collection[str], user: User) -> dict[str, State]:
        """The states of those of the user's (of an admin: any) generations that there are.

        Raises:
            RequestError: the store cannot be read.
        """
        await self._startup.wait()
        return await self._finder.states(ids, view_of(user))

    def same_request(self, request_hash: bytes, owner: str) -> list[Generation]:
        """An owner's generations in memory that were asked just this, oldest first."""
        return self._registry.of_request(request_hash, owner)

    def running(self, owner: str | None) -> list[Generation]:
        """An owner's generations (None: everybody's) that are not over."""
        return [one for one in self._registry if owner in (None, one.owner) and not one.ended]

    async def cancel_keys(self, owner: str, prefix: str) -> None:
        """End what still runs under an owner's keys of this beginning, whichever server has it.

        Raises:
            RequestError: the cluster cannot say what that is.
        """
        await self._finder.cancel_keys(owner, prefix)

    async def delete(self, id_: str, user: User, *, only_here: bool = False) -> None:
        """Delete a generation that is over: one of the user; for an admin, any.

        Args:
            only_here: not if another server alone has it, which is the one that asks.

        Raises:
            RequestError: as `Finder.delete`.
        """
        await self._startup.wait()
        owner = await self._finder.delete(id_, view_of(user), only_here=only_here)
        self._orphans.discard(id_)
        self._runs.deleted(id_, owner)
        if self._objects.keeps:
            await self._objects.write(lambda db: entries.forget_words(db, id_))
        self._shown.forget(id_)
        log.info("generation_deleted", generation=id_, user=user.name)

    async def follow_erased(self) -> None:
        """Forget transient ones when they are erased; runs until cancelled.

        Who reads one may get the rest.
        """
        while True:
            for gone in await self._finder.erased():
                self._orphans.discard(gone.id)
                self._runs.deleted(gone.id, gone.owner)

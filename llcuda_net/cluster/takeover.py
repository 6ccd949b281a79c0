"""Takes over from servers whose leases are over: fences them, reads what they had, has it adopted.

One server after the other. Whatever is cut off is done again by whoever looks next: no step needs
to know how far an earlier one got.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
import trio

from llcuda_net.cluster import leases, recovery
from llcuda_net.cluster.membership import Membership
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.replica.interface import Former

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_WHAT = "a server cannot be taken over"
#: Called with what a life had that this server has fenced: it is this server's when it returns, as
#: far as it was the other's still, and goes on. Raises StorageError.
Adopt = Callable[[Former], Awaitable[None]]


class Takeover:
    """Looks after the others.

    Args:
        url: of the database.
        membership: says from whom to take over.
        adopt: makes generations this server's.

    Attributes:
        servers: from how many this one has taken over since its start; generations: how many it
            was to get from them.
    """

    def __init__(self, url: str, membership: Membership, adopt: Adopt) -> None:
        self.servers = self.generations = 0
        self._session = Session(url, write=True)
        self._membership = membership
        self._adopt = adopt
        self._limiter = trio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"<Takeover: {self.servers} servers, {self.generations} generations>"

    async def look(self) -> None:
        """Take over from all that are due now."""
        membership = self._membership
        for other in membership.due:
            if not membership.may_take_over():
                return
            try:
                await self._take_over(membership.number, other)
            except StorageError as error:  # whoever looks next goes on
                log.warning("takeover_failed", server=other, reason=error.message)

    async def _take_over(self, me: int, other: int) -> None:
        if not await self._do(partial(leases.fence, me=me, other=other)):
            return
        # In no transaction: a long journal takes longer than one may stand still.
        found = await self._in_thread(
            lambda: self._session.ask(_WHAT, partial(recovery.read, server=other))
        )
        log.info("taking_over", server=other, generations=len(found.generations))
        if found.generations:
            await self._adopt(found)
        if await self._do(partial(leases.adopted, me=me, other=other)):
            self.servers += 1
            self.generations += len(found.generations)
            log.info("taken_over", server=other)

    async def _do(self, change: Callable[[Connection], _T]) -> _T:
        return await self._in_thread(lambda: self._session.change(_WHAT, change))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

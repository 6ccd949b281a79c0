"""What the standing of a server means for what runs on it.

- It is *stopped*: others may take over at any moment. Every generation is set aside as it is, its
  readers get an error after which they may come again, here or elsewhere; nothing new is begun.
- It is a *member* again: what was set aside goes on, as after a restart.
- It is *fenced*: others have what it had. That is dropped, without a word to the database or the
  journal's copy there, and a new life begins, in which nothing of it is. What no other server ever
  heard of goes on in the new life.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
import trio

from llcuda_net.cluster.membership import Membership
from llcuda_net.cluster.standing import Standing
from llcuda_net.errors import LeaseLost, RequestError, StorageError
from llcuda_net.generation.persistence import Left
from llcuda_net.generation.state import State
from llcuda_net.server.cluster.host import ClusterHost

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds between two looks at the clock: a machine that was suspended is noticed by them.
LOOK = 0.25
#: Seconds from one attempt to begin a new life to the next.
_RETRY = 1.0
#: Seconds between two looks at whether what was stopped has ended.
_SETTLING = 0.01


@dataclass
class Hooks:
    """What else follows the standing.

    Attributes:
        stopped: called when the server stops being a member.
        life: called with the number of each new life, and when it is a member again.
    """

    stopped: list[Callable[[], None]] = field(default_factory=list)
    life: list[Callable[[int], None]] = field(default_factory=list)


class Life:
    """Follows the standing of a server, for what runs on it.

    Args:
        begin: begins a new life; raises StorageError.
        orphaned: which of these generations no server has, or has ended; raises RequestError.

    Attributes:
        member: whether everything runs that is to run: false from when the server stops until what
            was set aside goes on.
        changing: held by who begins a life, or makes generations this life's.
    """

    def __init__(
        self,
        membership: Membership,
        hooks: Hooks,
        begin: Callable[[], Awaitable[int]],
        orphaned: Callable[[Collection[str]], Awaitable[Collection[str]]],
    ) -> None:
        self.member = True
        self.changing = trio.Lock()
        self._membership = membership
        self._hooks = hooks
        self._begin = begin
        self._orphaned = orphaned
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Life of {self._membership!r}, {'running' if self.member else 'set aside'}>"

    def news(self) -> None:
        """The standing may have changed: look."""
        self._news.set()

    def error(self) -> RequestError:
        """For who asks while the server is no member."""
        why = self._membership.trouble or "another one may go on with what it had"
        return LeaseLost(
            f"this server has lost its lease in the cluster: {why}",
            retry=True,
            retry_after=_RETRY,
        )

    async def follow(self, host: ClusterHost) -> None:
        """Do what the standing asks; runs until cancelled."""
        while True:
            await self._wait(Standing.STOPPED, Standing.FENCED)
            self.member = False
            log.warning("lease_lost", number=self._membership.number, running=len(host.registry))
            for stopped in self._hooks.stopped:
                stopped()
            await self._stop(host)
            async with self.changing:
                await self._stop(host)  # what was taken over just now
                aside = host.left_aside()
                if await self._wait(Standing.MEMBER, Standing.FENCED) is Standing.FENCED:
                    aside = await self._begin_again(host, aside)
                    host.begin_again([one.aside() for one in aside])
                entries = [one.aside() for one in aside]
                self._end(aside)
                for life in self._hooks.life:
                    life(self._membership.number)
                log.info("lease_regained", number=self._membership.number, resumed=len(aside))
                await host.resume(entries)
            self.member = True

    async def _wait(self, *wanted: Standing) -> Standing:
        while (standing := self._membership.standing()) not in wanted:
            with trio.move_on_after(LOOK):
                await self._news.wait()
            self._news = trio.Event()
        return standing

    async def _stop(self, host: ClusterHost) -> None:
        """Stop all that runs, and tell its readers; returns when it has stopped."""
        error = self.error()
        running = [*host.registry]
        for generation in running:
            if generation.entry is not None:
                generation.conceal()
                generation.suspend()
            elif not generation.accepted or not generation.level.journalled:
                generation.hand_back(error)
        if running:
            host.listener.hand_back(error)
        # Polled, since it is rare; what commits its result just now may have to wait for it.
        while any(one in running for one in host.registry):  # noqa: ASYNC110
            await trio.sleep(_SETTLING)

    def _end(self, aside: Collection[Left]) -> None:
        """Tell who reads what was set aside without a connection, such as a batch: what goes on is
        another object, and nobody adds to this one.
        """
        running = [one for one in aside if not one.generation.ended]
        for one in running:
            one.generation.end(State.FAILED, self.error(), kept=False)

    async def _begin_again(self, host: ClusterHost, aside: list[Left]) -> list[Left]:
        """Begin a new life; what goes on in it: what readers know of, and no other server."""
        await _insist(self._begin)
        aside += host.left_aside()
        ids = [one.generation.id for one in aside]
        nobodys = await _insist(partial(self._orphaned, ids))
        stays = [one for one in aside if one.generation.accepted and one.generation.id in nobodys]
        others = [one for one in aside if one not in stays]
        for one in others:
            host.forget(one)
        self._end(others)
        return stays


async def _insist(work: Callable[[], Awaitable[_T]]) -> _T:
    """Do something until the database answers."""
    while True:
        try:
            return await work()
        except (StorageError, RequestError) as error:
            log.warning("no_new_life", reason=error.message)
            await trio.sleep(_RETRY)

"""What a simulated server does with a generation: asks for its pieces, and stores its result."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from llcuda_net.errors import StorageError
from tools.simulated_cluster.clock.scheduler import Scheduler
from tools.simulated_cluster.database.results import Stored
from tools.simulated_cluster.network import Session
from tools.simulated_cluster.outside import Outside
from tools.simulated_cluster.running import Running

if TYPE_CHECKING:
    from tools.simulated_cluster.server import Server

#: Seconds between two pieces, and from one attempt at the database to the next.
TOKEN, RETRY = 0.05, 0.5


class Runner:
    """Has generations go on.

    Args:
        storing: stores results.
    """

    def __init__(
        self, server: Server, storing: Session, outside: Outside, scheduler: Scheduler
    ) -> None:
        self._server = server
        self._storing = storing
        self._outside = outside
        self._scheduler = scheduler
        self._tokens = itertools.count()

    def generate(self) -> None:
        """One decode step of all upstreams that it may ask."""
        server = self._server
        if not server.is_member:
            return
        free = server.pool.free(one.upstream for one in server.registry)
        for one in server.registry:
            if one.entry.taken is not None or one.storing:
                continue
            if len(one.pieces) == one.wanted:
                if one.accepted and one.shown == one.wanted:
                    one.storing, one.upstream = True, ""
                    server.do(partial(self._store, one))
                continue
            if not (one.upstream and server.pool.answers(one.upstream)):
                one.upstream = next(free, "")
            if one.upstream:
                self._token(one)
        server.mirror.send()

    def _token(self, one: Running) -> None:
        server = self._server
        self._outside.asked(one.upstream, server.number, server.owners.epoch(one.upstream))
        # No two servers, and no two lives of one, ever make the same token.
        one.pieces.append(f"{server.number}.{next(self._tokens)}")
        count = len(one.pieces)
        try:
            one.entry.append([one.pieces[-1]], [None])
        except StorageError:
            return
        if not one.entry.awaited:
            one.shown = count
            return

        def committed(error: StorageError | None) -> None:
            if error is None and not one.suspended:
                one.shown = max(one.shown, count)

        self.when(server.mirror.position, committed)

    def _store(self, one: Running) -> None:
        """Store its result, as the thread that commits results does."""
        server = self._server
        stored = Stored(tuple(one.pieces), tuple(one.splices))

        def put(db: Any) -> None:
            server.mirror._release(db, [one.id])
            db.put(one.id, stored)

        while True:
            number = server.number
            try:
                self._storing.change("results cannot be stored", put)
            except StorageError as error:
                if error.code == StorageError.FENCED:
                    one.storing = False
                    server.membership.refused(number)
                    if one.suspended:
                        server.aside(one)
                    return
                self._scheduler.sleep(RETRY)
            else:
                one.ended = True
                server.registry.drop(one)
                server.over[one.id] = stored
                server.journal.forget(one.entry, 1)
                server.mirror.send()
                return

    def when(self, position: int, then: Callable[[StorageError | None], None]) -> None:
        """Call something when all up to here is committed, or why it is not."""
        try:
            if self._server.mirror.when(position, then):
                then(None)
        except StorageError as error:
            then(error)

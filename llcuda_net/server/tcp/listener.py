"""Accepts connections of both protocols, and holds them.

The first bytes of a connection say whether it speaks HTTP. Three kinds take places:

- Those that have not said what they are, or not greeted, or not sent the head of a request, are
  few: one more ends the oldest of them, since a client that means it has done so long before.
- Sessions, and HTTP connections with a request, have the places that `--max-connections` gives.
- HTTP connections between two requests have what these leave: the oldest gives way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from llcuda_net.errors import RequestError
from llcuda_net.server.http.connection import HttpConnection
from llcuda_net.server.http.exchange import HttpHost
from llcuda_net.server.http.route import Routes
from llcuda_net.server.http.routes import ROUTES
from llcuda_net.server.sockets import SparingListener
from llcuda_net.server.tcp.host import SessionHost
from llcuda_net.server.tcp.session import Session
from llcuda_net.server.tcp.wrong_protocol import speaks_http

log = structlog.get_logger(__name__)

#: Connections that may be in the handshake, or before the head of their first request, at once.
MAX_GREETING = 256
_READ = 64 << 10
#: HTTP connections without a request that are ended at once where descriptors run out.
_SPARE = 64


class Host(SessionHost, HttpHost, Protocol):
    """What connections of both protocols need of the gateway."""


class Listener:
    """The TCP side of a server: every connection, from its first byte to its last.

    Args:
        host: what connections ask for.
        max_connections: clients that may be connected at once.

    Attributes:
        sessions: of clients that have been let in.
        requests: HTTP connections with a request that is open.
        opened: connections since the start.
    """

    def __init__(self, host: Host, max_connections: int) -> None:
        self.sessions: set[Session] = set()
        self.requests: set[HttpConnection] = set()
        self.opened = 0
        self._host = host
        self._max_connections = max_connections
        self._routes = Routes(ROUTES)
        self._greeting: OrderedDict[trio.CancelScope, None] = OrderedDict()
        self._resting: OrderedDict[HttpConnection, None] = OrderedDict()
        self._accepting = trio.CancelScope()
        self._draining: float | None = None

    def __repr__(self) -> str:
        state = "accepting" if self._draining is None else "draining"
        return (
            f"<Listener {state} sessions={len(self.sessions)} requests={len(self.requests)}"
            f" resting={len(self._resting)} greeting={len(self._greeting)}>"
        )

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        nursery: trio.Nursery,
        *,
        stays: Sequence[trio.abc.Listener[Any]] = (),
    ) -> None:
        """Accept; the connections run in the nursery, and longer than that.

        Args:
            listeners: until `drain`.
            stays: until cancelled, since other servers read here what still runs.
        """
        async with trio.open_nursery() as accepting:
            if stays:
                accepting.start_soon(self._accept, stays, nursery)
            with self._accepting:
                if listeners:
                    await self._accept(listeners, nursery)

    async def _accept(
        self, listeners: Sequence[trio.abc.Listener[Any]], nursery: trio.Nursery
    ) -> None:
        # Sleeps and goes on when descriptors run out (EMFILE and its kin).
        sparing = [SparingListener(listener, self._end_resting) for listener in listeners]
        await trio.serve_listeners(self._serve, sparing, handler_nursery=nursery)

    def drain(self, grace: float) -> None:
        """Accept no more clients, and announce to every one that the server stops.

        Other servers of the cluster need not know: they go on reading what runs here.
        """
        self._draining = grace
        self._accepting.cancel()
        for session in self.sessions:
            if not session.is_peer:
                session.go_away(grace)

    def hand_back(self, error: RequestError) -> None:
        """End every request that is open."""
        for connection in self._active():
            connection.hand_back(error)

    def check_users(self) -> None:
        """The users have changed: connections take their new limits, or end."""
        for connection in self._active():
            connection.check_user()

    def _active(self) -> list[Session | HttpConnection]:
        return [*self.sessions, *self.requests]

    @property
    def busy(self) -> bool:
        """Whether a request is open or bytes wait to be sent, on any connection."""
        return any(connection.busy for connection in self._active())

    @property
    def open_streams(self) -> int:
        """Requests that are open on all connections."""
        return sum(session.open_streams for session in self.sessions) + len(self.requests)

    @property
    def resting(self) -> int:
        """HTTP connections between two requests."""
        return len(self._resting)

    # -- one connection -----------------------------------------------------------------------

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.opened += 1
        number = self.opened
        scope = trio.CancelScope()
        self._greeting[scope] = None
        if len(self._greeting) > MAX_GREETING:
            oldest, _ = self._greeting.popitem(last=False)
            oldest.cancel()
        try:
            with scope:
                await self._tell_apart(stream, number, scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("session_lost", session=number)
        except Exception:
            log.exception("session_crashed", session=number)
        finally:
            self._greeting.pop(scope, None)
            await trio.aclose_forcefully(stream)

    async def _tell_apart(
        self, stream: trio.abc.Stream, number: int, scope: trio.CancelScope
    ) -> None:
        greet_by = trio.current_time() + self._host.settings.handshake_timeout
        first = b""
        with trio.move_on_at(greet_by):
            first = bytes(await stream.receive_some(_READ))
        if self._host.settings.http and speaks_http(first):
            await self._serve_http(stream, number, first, greet_by, scope)
        else:
            await self._serve_session(stream, number, first, greet_by, scope)

    async def _serve_session(
        self,
        stream: trio.abc.Stream,
        number: int,
        first: bytes,
        greet_by: float,
        scope: trio.CancelScope,
    ) -> None:
        session = Session(
            self._host,
            stream,
            number,
            first=first,
            greet_by=greet_by,
            is_full=self._is_full,
            on_greeted=partial(self._greeted, scope),
        )
        try:
            await session.run()
        finally:
            self.sessions.discard(session)

    async def _serve_http(
        self,
        stream: trio.abc.Stream,
        number: int,
        first: bytes,
        greet_by: float,
        scope: trio.CancelScope,
    ) -> None:
        connection = HttpConnection(
            self._host,
            stream,
            number,
            first=first,
            head_by=greet_by,
            routes=self._routes,
            access=self._host.access,
            places=self,
            scope=scope,
        )
        try:
            await connection.run()
        finally:
            self.requests.discard(connection)
            self._resting.pop(connection, None)

    def _is_full(self) -> bool:
        return len(self.sessions) + len(self.requests) >= self._max_connections

    def _greeted(self, scope: trio.CancelScope, session: Session) -> None:
        self._greeting.pop(scope, None)
        self.sessions.add(session)
        self._make_room()
        if self._draining is not None and not session.is_peer:
            session.go_away(self._draining)

    # -- see http.connection.Places -----------------------------------------------------------

    def rest(self, connection: HttpConnection) -> None:
        """It has no request: it is ended where another needs its place."""
        self.requests.discard(connection)
        self._greeting.pop(connection.scope, None)
        self._resting[connection] = None
        self._resting.move_to_end(connection)
        self._make_room()

    def take(self, connection: HttpConnection) -> bool:
        """It has a request; False: every place is taken."""
        if self._is_full():
            return False
        self._greeting.pop(connection.scope, None)
        self._resting.pop(connection, None)
        self.requests.add(connection)
        self._make_room()
        return True

    def _make_room(self) -> None:
        """End the HTTP connections that have rested longest, as many as are too many."""
        taken = len(self.sessions) + len(self.requests)
        self._end_resting(taken + len(self._resting) - self._max_connections)

    def _end_resting(self, count: int = _SPARE) -> None:
        while self._resting and count > 0:
            oldest, _ = self._resting.popitem(last=False)
            oldest.scope.cancel()
            count -= 1

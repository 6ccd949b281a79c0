"""Accepts connections and holds their sessions.

Connections that have not greeted yet are few: one more ends the oldest of them, since a client that
means it has greeted long before it becomes the oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import structlog
import trio

from llcuda_net.errors import RequestError
from llcuda_net.server.sockets import SparingListener
from llcuda_net.server.tcp.host import SessionHost
from llcuda_net.server.tcp.session import Session

log = structlog.get_logger(__name__)

#: Connections that may be in the handshake at once.
MAX_GREETING = 256


class Listener:
    """The TCP side of a server: every session, from its first byte to its last.

    Args:
        host: what sessions ask for.
        max_connections: clients that may be connected at once.

    Attributes:
        sessions: of clients that have been let in.
        opened: connections since the start.
    """

    def __init__(self, host: SessionHost, max_connections: int) -> None:
        self.sessions: set[Session] = set()
        self.opened = 0
        self._host = host
        self._max_connections = max_connections
        self._greeting: OrderedDict[Session, None] = OrderedDict()
        self._accepting = trio.CancelScope()
        self._draining: float | None = None

    def __repr__(self) -> str:
        state = "accepting" if self._draining is None else "draining"
        return f"<Listener {state} sessions={len(self.sessions)} greeting={len(self._greeting)}>"

    async def run(self, listeners: Sequence[trio.abc.Listener[Any]], nursery: trio.Nursery) -> None:
        """Accept until `drain`; the sessions run in the nursery, and longer than that."""
        with self._accepting:
            # Sleeps and goes on when descriptors run out (EMFILE and its kin).
            sparing = [SparingListener(listener) for listener in listeners]
            await trio.serve_listeners(self._serve, sparing, handler_nursery=nursery)

    def drain(self, grace: float) -> None:
        """Accept nothing more, and announce to every client that the server stops."""
        self._draining = grace
        self._accepting.cancel()
        for session in self.sessions:
            session.go_away(grace)

    def hand_back(self, error: RequestError) -> None:
        """End every request that is open."""
        for session in tuple(self.sessions):
            session.hand_back(error)

    def check_users(self) -> None:
        """The users have changed: sessions take their new limits, or end."""
        for session in tuple(self.sessions):
            session.check_user()

    @property
    def busy(self) -> bool:
        """Whether a request is open or bytes wait to be sent, on any connection."""
        return any(session.busy for session in self.sessions)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.opened += 1
        number = self.opened
        session = Session(
            self._host, stream, number, is_full=self._is_full, on_greeted=self._greeted
        )
        self._greeting[session] = None
        if len(self._greeting) > MAX_GREETING:
            oldest, _ = self._greeting.popitem(last=False)
            oldest.scope.cancel()
        try:
            await session.run()
        except Exception:
            log.exception("session_crashed", session=number)
        finally:
            self._greeting.pop(session, None)
            self.sessions.discard(session)

    def _is_full(self) -> bool:
        return len(self.sessions) >= self._max_connections

    def _greeted(self, session: Session) -> None:
        self._greeting.pop(session, None)
        self.sessions.add(session)
        if self._draining is not None:
            session.go_away(self._draining)

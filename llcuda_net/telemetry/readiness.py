"""Whether a request would be served now, and if not, why: one line for whoever routes requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.telemetry.observers import ServerState


class Startup:
    """What a server does before it serves, and those that wait for it.

    Args:
        describe: what it does now; None: it has nothing to do.
    """

    def __init__(self, describe: Callable[[], str] | None = None) -> None:
        self._describe = describe
        self._waiting: deque[trio.Event] = deque()

    def __repr__(self) -> str:
        return f"<Startup: {self.reason or 'over'}, {len(self._waiting)} wait>"

    @property
    def reason(self) -> str | None:
        """Why nothing is served yet; None: it is over."""
        return None if self._describe is None else f"the server is starting: {self._describe()}"

    async def wait(self) -> None:
        """Return when it is over; those that wait go on in the order in which they came."""
        if self._describe is not None:
            event = trio.Event()
            self._waiting.append(event)
            await event.wait()

    async def finish(self) -> None:
        """It is over."""
        await self._release(len(self._waiting))
        # Clients that are answered ask again: were it not over for them now, it never would be.
        self._describe = None
        await self._release(len(self._waiting))

    async def _release(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft().set()
            await trio.lowlevel.checkpoint()  # trio runs what becomes ready together in any order


class Readiness:
    """Reads the server's state; asks nobody, since the pool keeps the backends' states fresh.

    Args:
        startup: the server's.

    Attributes:
        server: the server's state; None while it starts, and when it has stopped.
    """

    def __init__(self, startup: Startup | None = None) -> None:
        self.server: ServerState | None = None
        self._startup = startup or Startup()

    def __repr__(self) -> str:
        return f"<Readiness: {self.reason() or 'ready'}>"

    def reason(self) -> str | None:
        """Why no request would be served, by what is known now; None: one would be."""
        server = self.server
        if server is None:
            return self._startup.reason or "the server is starting, or has stopped"
        if server.draining:
            return "the server is draining"
        if server.cluster is not None and not server.cluster.is_member:
            why = server.cluster.trouble
            return f"the server has lost its lease in the cluster{f': {why}' if why else ''}"
        refusal = None if server.storage is None else server.storage.refusal
        if refusal is not None:
            return f"the store takes nothing: {refusal.message}"
        serving = [one for one in server.pool.backends if COMPLETIONS in one.roles]
        if not serving:
            return "there is no upstream for completions"
        if any(backend.state in ("up", "elsewhere") for backend in serving):
            return None
        reasons = (f"{backend.name}: {backend.reason or backend.state}" for backend in serving)
        return "no upstream answers: " + "; ".join(reasons)

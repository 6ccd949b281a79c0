"""Whether a request would be served now, and if not, why: one line for whoever routes requests."""

from __future__ import annotations

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.telemetry.observers import ServerState


class Readiness:
    """Reads the server's state; asks nobody, since the pool keeps the backends' states fresh.

    Attributes:
        server: the server's state; None while it starts, and when it has stopped.
    """

    def __init__(self) -> None:
        self.server: ServerState | None = None

    def __repr__(self) -> str:
        return f"<Readiness: {self.reason() or 'ready'}>"

    def reason(self) -> str | None:
        """Why no request would be served, by what is known now; None: one would be."""
        server = self.server
        if server is None:
            return "the server is starting, or has stopped"
        if server.draining:
            return "the server is draining"
        refusal = None if server.storage is None else server.storage.refusal
        if refusal is not None:
            return f"the store takes nothing: {refusal.message}"
        serving = [one for one in server.pool.backends if COMPLETIONS in one.roles]
        if not serving:
            return "there is no upstream for completions"
        if any(backend.state == "up" for backend in serving):
            return None
        reasons = (f"{backend.name}: {backend.reason or backend.state}" for backend in serving)
        return "no upstream answers: " + "; ".join(reasons)

"""Whether a request would be served now, and if not, why: one line for whoever routes requests."""

from __future__ import annotations

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.telemetry.observers import ServerState


class Health:
    """Reads how the server stands; asks nobody, since the pool keeps its members' states fresh.

    Attributes:
        standing: of the server; None while it starts, and when it has stopped.
    """

    def __init__(self) -> None:
        self.standing: ServerState | None = None

    def reason(self) -> str | None:
        """Why no request would be served, by what is known now; None: it would be."""
        standing = self.standing
        if standing is None:
            return "the server is starting, or has stopped"
        if standing.draining:
            return "the server is draining"
        refusal = None if standing.storage is None else standing.storage.refusal
        if refusal is not None:
            return f"the store takes nothing: {refusal.message}"
        serving = [m for m in standing.pool.backends if COMPLETIONS in m.roles]
        if not serving:
            return "there is no upstream for completions"
        if any(backend.state == "up" for backend in serving):
            return None
        told = [f"{backend.name}: {backend.reason or backend.state}" for backend in serving]
        return "no upstream answers: " + "; ".join(told)

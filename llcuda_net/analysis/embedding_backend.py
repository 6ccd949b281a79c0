"""The one upstream of a pool whose embeddings results are kept and searched with.

Vectors of two models cannot be compared, so one does it: the first that is up and has the role.
When it is down another one of its model does, or none; one of another model only when its own has
left the pool.
"""

from __future__ import annotations

from typing import Any

import trio

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import request_error
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Properties, Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import ErrorCode


class EmbeddingBackend:
    """Stands for whichever upstream it is now."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend | None:
        """Which it is; None if there is none."""
        there = list(self._pool.of("", EMBEDDINGS))
        now = self._backend
        if now is not None and now not in there:  # it has left for good
            now = next((m for m in there if m.model_key == now.model_key), None)
        if now is not None and not now.up:
            # Not one of another model: all that is kept would have to be embedded anew.
            now = next((m for m in there if m.up and m.model_key == now.model_key), now)
        self._backend = now or next((m for m in there if m.up), None)
        return self._backend if self._backend is not None and self._backend.up else None

    @property
    def requirement(self) -> Requirement:
        """What a request must ask for to be given a slot of it.

        Raises:
            RequestError: there is none.
        """
        backend = self._there()
        return Requirement(backend.model_key, EMBEDDINGS, only=backend.name)

    @property
    def properties(self) -> Properties | None:
        """What it last said of itself; None while that is not known."""
        backend = self.backend
        return None if backend is None else backend.upstream.properties

    async def ask(self) -> Properties:
        """Its properties.

        Raises:
            RequestError: it cannot be reached, or there is none.
        """
        return await self._pool.properties(self._there())

    async def embed(self, texts: list[str]) -> list[list[list[float]]]:
        """See Upstream.embed.

        Raises:
            RequestError: as `ask`.
        """
        return await self._there().upstream.embed(texts)

    def fingerprint(self) -> dict[str, Any]:
        """What is known of its model now."""
        backend = self.backend
        return {} if backend is None else backend.fingerprint()

    async def settled(self) -> None:
        """Return when nothing more will be known of its model."""
        backend = self.backend
        if backend is None:
            await trio.lowlevel.checkpoint()
        else:
            await backend.fingerprint.settled()

    def _there(self) -> Backend:
        backend = self.backend
        if backend is None:
            raise request_error(
                ErrorCode.UNSUPPORTED
                if not any(self._pool.of("", EMBEDDINGS))
                else ErrorCode.UPSTREAM_UNAVAILABLE,
                "no upstream that gives embeddings is up",
                retry=any(self._pool.of("", EMBEDDINGS)),
            )
        return backend

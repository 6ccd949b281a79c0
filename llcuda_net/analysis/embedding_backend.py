"""The one backend of a pool that embeds results, and the texts that they are searched with.

Vectors of two models cannot be compared, so one backend does it: the first that is up and has the
role. While it is down another one of its model does, or none; one of another model only when its
own has left the pool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import Unsupported, UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import EmbedTexts, Properties, Requirement
from llcuda_net.upstream.pool import Pool


class EmbeddingBackend:
    """Stands for whichever backend it is now."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._backend: Backend | None = None

    def __repr__(self) -> str:
        return f"<EmbeddingBackend: {self._backend!r}>"

    @property
    def backend(self) -> Backend | None:
        """Which it is; None if there is none."""
        there = list(self._pool.of("", EMBEDDINGS))
        now = self._backend
        if now is not None and now not in there:  # it has left for good
            now = next((one for one in there if one.model_key == now.model_key), None)
        if now is not None and not now.up:
            # Not one of another model: all that is stored would have to be embedded anew.
            now = next((one for one in there if one.up and one.model_key == now.model_key), now)
        self._backend = now or next((one for one in there if one.up), None)
        return self._backend if self._backend is not None and self._backend.up else None

    @property
    def requirement(self) -> Requirement:
        """With which a request gets a slot of it.

        Raises:
            RequestError: there is none.
        """
        backend = self.backend
        if backend is None and self._backend is not None and self._backend.loadable:
            backend = self._backend  # it is loaded for this
        backend = backend or self._current()
        return Requirement(backend.model_key, EMBEDDINGS, only=backend.name)

    @property
    def properties(self) -> Properties | None:
        """What it last reported of itself; None while that is not known."""
        backend = self.backend
        return None if backend is None else backend.upstream.properties

    async def ask(self) -> Properties:
        """Its properties.

        Raises:
            RequestError: it cannot be reached, or there is none.
        """
        return await self._pool.properties(self._current())

    async def embed(self, texts: list[str]) -> list[list[list[float]]]:
        """See Upstream.embed.

        Raises:
            RequestError: as `ask`.
        """
        return await self._current().upstream.embed(texts)

    @asynccontextmanager
    async def spare(self) -> AsyncIterator[EmbedTexts | None]:
        """What embeds many results beside it, at nobody's expense; None where nothing does."""
        backend = self.backend
        if backend is None or backend.spare is None:
            yield None
            return
        async with backend.spare() as embed:
            yield embed

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

    def _current(self) -> Backend:
        backend = self.backend
        if backend is None:
            may_come = any(self._pool.of("", EMBEDDINGS))
            error = UpstreamUnavailable if may_come else Unsupported
            raise error("no upstream that gives embeddings is up", retry=may_come)
        return backend

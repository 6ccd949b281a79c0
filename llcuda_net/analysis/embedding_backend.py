"""The one upstream of a pool whose embeddings results are kept and searched with.

Vectors of two models cannot be compared, so one does it: the first that is up and has the role.
When it is down another one of its model does, or none; one of another model only when its own has
left the pool.
"""

from __future__ import annotations

from typing import Any

import trio

from llcuda_net.config.upstreams import EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.upstream.backend import Member
from llcuda_net.upstream.interface import Properties
from llcuda_net.upstream.lease import Need
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import ErrorCode


class Elected:
    """Stands for whichever upstream it is now."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._member: Member | None = None

    @property
    def member(self) -> Member | None:
        """Which it is; None if there is none."""
        there = list(self._pool.of("", EMBEDDINGS))
        now = self._member
        if now is not None and now not in there:  # it has left for good
            now = next((m for m in there if m.group == now.group), None)
        if now is not None and not now.up:
            # Not one of another model: all that is kept would have to be embedded anew.
            now = next((m for m in there if m.up and m.group == now.group), now)
        self._member = now or next((m for m in there if m.up), None)
        return self._member if self._member is not None and self._member.up else None

    @property
    def need(self) -> Need:
        """What a request must ask for to be given a slot of it.

        Raises:
            RequestError: there is none.
        """
        member = self._there()
        return Need(member.group, EMBEDDINGS, only=member.name)

    @property
    def properties(self) -> Properties | None:
        """What it last said of itself; None while that is not known."""
        member = self.member
        return None if member is None else member.upstream.properties

    async def ask(self) -> Properties:
        """Its properties.

        Raises:
            RequestError: it cannot be reached, or there is none.
        """
        return await self._there().properties()

    async def embed(self, texts: list[str]) -> list[list[list[float]]]:
        """See Upstream.embed.

        Raises:
            RequestError: as `ask`.
        """
        return await self._there().upstream.embed(texts)

    def fingerprint(self) -> dict[str, Any]:
        """What is known of its model now."""
        member = self.member
        return {} if member is None else member.fingerprint()

    async def settled(self) -> None:
        """Return when nothing more will be known of its model."""
        member = self.member
        if member is None:
            await trio.lowlevel.checkpoint()
        else:
            await member.fingerprint.settled()

    def _there(self) -> Member:
        member = self.member
        if member is None:
            raise RequestError(
                ErrorCode.UNSUPPORTED
                if not any(self._pool.of("", EMBEDDINGS))
                else ErrorCode.UPSTREAM_UNAVAILABLE,
                "no upstream that gives embeddings is up",
                retry=any(self._pool.of("", EMBEDDINGS)),
            )
        return member

"""What a request needs of an upstream, and the slot that it was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.errors import RequestError, UpstreamStalled
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.prefix_cache import BLOCK, CHARACTERS_A_TOKEN, Chain, chain_of
from llcuda_net.upstream.slots import Slot, Use
from llcuda_protocol import ErrorCode

if TYPE_CHECKING:
    from llcuda_net.upstream.backend import Backend

#: Errors by which an upstream, not the request, is to blame; another one may do it.
BLAMED = frozenset(
    {ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_STALLED, ErrorCode.UPSTREAM_ERROR}
)
#: Of these, those after which it is not asked again before it has answered a probe.
DOWN = frozenset({ErrorCode.UPSTREAM_UNAVAILABLE, ErrorCode.UPSTREAM_STALLED})


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must be true of an upstream; equal needs can be met by the same ones.

    Attributes:
        model: of the pool's models, by its key.
        role: COMPLETIONS or EMBEDDINGS.
        long: the prompt takes so long to read that few may be read at once.
        avoid: names of upstreams that have just failed at it.
        only: the name of the one that will do.
        chain: of the prompt; where it is held already is preferred.
        until: time until which others that are down are waited for, rather than ask again those to
            avoid.
    """

    model: str
    role: str = COMPLETIONS
    long: bool = False
    avoid: frozenset[str] = frozenset()
    only: str | None = None
    chain: Chain = field(default=(), compare=False)
    until: float = 0.0


class Lease:
    """A slot that was given to one request, until `release`.

    Attributes:
        member: whose slot it is.
        slot: which.
        scope: around what uses it; cancelled when the upstream has fallen silent.
        progress: when a token came last, on trio's clock; set by whoever uses it.
        reading: a long prompt is being read.
    """

    def __init__(
        self, backend: Backend, slot: Slot, requirement: Requirement, blocks: int, holder: str
    ) -> None:
        self.backend = backend
        self.slot = slot
        self.scope = trio.CancelScope()
        self.progress: Callable[[], float] = lambda: 0.0
        self.reading = requirement.long
        self._expected = blocks * BLOCK / CHARACTERS_A_TOKEN
        self._ended = False
        self._sent = False
        self._began = trio.current_time()
        self._cut = ""
        slot.turn(Use.BUSY, holder)

    @property
    def params(self) -> dict[str, int]:
        """What a completion says to be given this very slot."""
        return {"id_slot": self.slot.number} if self.backend.table.known else {}

    def sent(self) -> None:
        """The upstream works at it from now on."""
        self._sent = True
        self._began = trio.current_time()

    def first_token(self) -> None:
        """The prompt has been read."""
        if self.reading:
            self.reading = False
            self.backend.on_change()

    def done(self, text: str, final: CompletionEvent | None) -> None:
        """The upstream has said the end, and so has released the slot.

        Args:
            text: prompt and answer, as the slot holds them now.
        """
        self._sent = False
        self.slot.chain = chain_of(text)
        self.backend.record_success()
        if final is not None and final.timings is not None:
            self.backend.trust.measured(self._expected, final.timings.cache_n)

    def failed(self, error: RequestError) -> None:
        """The upstream failed at it."""
        self.backend.failed(error)

    def cut(self, reason: str) -> None:
        """Take it from whoever uses it: the upstream has fallen silent."""
        self._cut = reason
        self.scope.cancel()

    @property
    def was_sent(self) -> bool:
        """Whether the upstream has the request, and has not said the end."""
        return self._sent

    @property
    def silent_since(self) -> float:
        """When the upstream last did anything for it, on trio's clock."""
        return max(self._began, self.progress())

    @property
    def silence(self) -> RequestError | None:
        """Why it was cut; None if it was not."""
        if not self._cut:
            return None
        return UpstreamStalled(f"the upstream {self._cut}", retry=True)

    def release(self) -> None:
        """Give the slot back; once. What was broken off is verified to have ended first."""
        if self._ended:
            return
        self._ended = True
        self.backend.leases.discard(self)
        if self._sent:
            self.slot.chain = ()
            self.slot.turn(Use.RELEASING, self.slot.holder)
            self.backend.verify(self.slot)
        else:
            self.slot.turn(Use.FREE)
        if self.backend.draining:
            self.backend.on_change()  # it may leave now


def held(lease: object) -> Lease:
    """The lease of a ticket that has its turn."""
    assert isinstance(lease, Lease)
    return lease

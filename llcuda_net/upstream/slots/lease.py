"""The lease of a slot, which one request holds, and what the upstream is seen to do for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from llcuda_net.errors import RequestError, UpstreamNotReady, UpstreamStalled
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import CompletionEvent, Properties, Requirement
from llcuda_net.upstream.prompts.prefix_cache import TOKENS_A_BLOCK, chain_of
from llcuda_net.upstream.slots.table import Slot, Use


class Times(Protocol):
    """When what an upstream does gets on, on trio's clock; of a generation."""

    @property
    def first_token(self) -> float | None:
        """When its first token came; None: none has."""

    @property
    def progress(self) -> float:
        """When its last token came; 0 before the first one."""


class Work(Protocol):
    """What an upstream works at: a generation."""

    @property
    def made(self) -> int:
        """Tokens of it so far."""

    @property
    def times(self) -> Times:
        """When they came."""


@dataclass(frozen=True, slots=True)
class _NoTokens:
    """What no tokens come of."""

    made: int = 0
    first_token: float | None = None
    progress: float = 0.0

    @property
    def times(self) -> Times:
        return self


_NO_WORK = _NoTokens()


class Lease:
    """A slot that one request holds, until `release`.

    Args:
        blocks: how many blocks of its prompt the slot is expected to hold already.
        holder: the user's name, for reports.
        on_change: called when the pool must look at the backend again.

    Attributes:
        backend: whose slot it is.
        slot: which.
        reading: a long prompt is being read.
    """

    def __init__(
        self,
        backend: Backend,
        slot: Slot,
        requirement: Requirement,
        blocks: int = 0,
        holder: str = "",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = backend
        self.slot = slot
        self.reading = requirement.long
        self._on_change = on_change
        self._scope = trio.CancelScope()
        self._work: Work = _NO_WORK
        self._earlier: int | None = None
        self._expected = blocks * TOKENS_A_BLOCK
        self._ended = False
        self._sent = False
        self._began = trio.current_time()
        self._cut = ""
        if requirement.chain:
            backend.speeds.record_prompt(backend.table.returns(requirement.chain))
        with backend.changes_slots():
            slot.turn(Use.BUSY, holder)
            backend.leases.add(self)

    def __repr__(self) -> str:
        state = "released" if self._ended else "sent" if self._sent else "held"
        cut = f", cut: {self._cut}" if self._cut else ""
        slot = f"slot {self.slot.number} of {self.backend.name}"
        return f"<Lease {slot}: {state} by {self.slot.holder or 'nobody named'}{cut}>"

    @property
    def params(self) -> dict[str, int]:
        """The parameters with which a completion runs in this very slot."""
        return {"id_slot": self.slot.number} if self.backend.table.known else {}

    @property
    def was_sent(self) -> bool:
        """Whether the upstream has the request, and has not reported its end."""
        return self._sent

    @property
    def silent_since(self) -> float:
        """When the upstream last did anything for the request, on trio's clock."""
        return max(self._began, self._work.times.progress)

    # -- as StepSamples reads it: a stream of tokens -------------------------------------------

    @property
    def tokens(self) -> int:
        """How many the upstream has made."""
        return self._work.made - (self._earlier or 0)

    @property
    def first(self) -> float | None:
        """When the first one came; None: it has not, or it is not known, as others made some."""
        return self._work.times.first_token if self._earlier == 0 else None

    @property
    def last(self) -> float:
        """When the last one came."""
        return self._work.times.progress

    # -- what is done with it ------------------------------------------------------------------

    async def properties(self) -> Properties:
        """What the upstream is; asked where that is not known.

        Raises:
            RequestError: it does not say.
        """
        properties = await self.backend.upstream.ask()
        self._report(self.backend.learn(properties))
        return properties

    @contextmanager
    def use(self, work: Work = _NO_WORK) -> Iterator[None]:
        """Enclose whatever uses the slot.

        Args:
            work: what comes of it.

        Raises:
            UpstreamStalled: the upstream has fallen silent, and `cut` was called.
        """
        self._work = work
        with self._scope:
            yield
        if self._scope.cancelled_caught and self._cut:
            raise UpstreamStalled(f"the upstream {self._cut}", retry=True)

    def sent(self) -> None:
        """The upstream works at it from now on."""
        self._sent = True
        self._began = trio.current_time()
        self._earlier = self._work.made

    def first_token(self) -> None:
        """The prompt has been read."""
        self._report(self.reading)
        self.reading = False

    def done(self, text: str, final: CompletionEvent | None, *, cut: bool = False) -> None:
        """The upstream has reported the end, and so has released the slot.

        Args:
            text: prompt and answer, as the slot holds them now.
            cut: it has not: the answer was whole, and the rest of what it sends was cut off.
        """
        self._sent = cut
        self.slot.chain = chain_of(text)
        self._report(self.backend.record_success())
        if final is not None:
            self._learn(final)

    def _learn(self, final: CompletionEvent) -> None:
        """Take account of what the upstream reports of the answer."""
        backend, timings = self.backend, final.timings
        if final.tokens_predicted:
            backend.speeds.record_answer(final.tokens_predicted)
        if timings is not None:
            backend.hit_rate.record(self._expected, timings.cache_n)
            backend.speeds.reading.record(timings.prompt_n, timings.prompt_ms)

    def failed(self, error: RequestError) -> None:
        """The upstream failed at it."""
        if isinstance(error, UpstreamNotReady):
            self._sent = False  # the slot was not used
        self._report(self.backend.record_failure(error))

    def cut(self, reason: str) -> None:
        """Cancel whatever uses the slot: the upstream has fallen silent."""
        self._cut = reason
        self._scope.cancel()

    def release(self) -> None:
        """Give the slot back; idempotent. A request that was broken off is awaited first."""
        if self._ended:
            return
        self._ended = True
        with self.backend.changes_slots():
            self.backend.leases.discard(self)
            if self._sent:
                self.backend.end_aborted(self.slot)
            else:
                self.slot.turn(Use.FREE)
        if self.backend.residence is not None:
            self.backend.residence.used()
        self._report(self.backend.draining)  # it may leave now

    def _report(self, changed: bool) -> None:
        if changed:
            self._on_change()


def held(lease: object) -> Lease:
    """The lease of a ticket that has its turn."""
    assert isinstance(lease, Lease)
    return lease

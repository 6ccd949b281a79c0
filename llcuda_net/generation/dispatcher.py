"""Has upstreams complete a generation: one after the other, where they fail at it.

1. What an upstream is to blame for is done elsewhere: unseen before the first piece, and after it
   behind what there is (see attempt/), with a splice that readers see. What the request is to blame
   for is not.
2. Nothing that a reader has is ever taken back, and nothing is doubled: the log is the truth.
3. An upstream that takes no more for now has not failed. The generation gives its slot back and
   waits for the next one: on another upstream, or there after the time that was asked for.
4. An upstream that cannot do it, as it was built or started, has not failed either: it does all
   else. It is not asked again for this generation, which ends so where no other one can.
5. A generation that upstreams fail at again and again, without a new token, is given up: it may be
   what brings them down.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import structlog
import trio

from llcuda_net.errors import RequestError, UpstreamBusy, UpstreamLacks
from llcuda_net.generation.attempt import continuation, prefill
from llcuda_net.generation.attempt.attempts import Attempts
from llcuda_net.generation.attempt.continuation import CannotContinue
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.prompt import abilities_for, text_so_far
from llcuda_net.generation.publisher import Publisher
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import DOWN, Requirement, is_for_another
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prompts import prefix_cache
from llcuda_net.upstream.slots.lease import held
from llcuda_net.util.logs import reason_of
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: How often upstreams may fail at a generation in a row, without a token from it; and how often of
#: these they may have had it and been lost.
MOST_FAILURES, MOST_LOST = 6, 3
#: Seconds to wait for an upstream that is down, rather than retry one that has refused.
OTHERS = 10.0
#: Characters of what went wrong that readers get, and what they get where it is run again.
_REASON = 200
_REPLAYED = "; run again from its start, unseen up to here"
#: Tokens from which a prompt counts as long: reading it holds up the tokens of all other slots.
LONG_PROMPT = 2048


class Dispatcher:
    """Takes generations that have their turn to upstreams."""

    def __init__(
        self, pool: Pool, scheduler: Scheduler, persistence: Persistence, publisher: Publisher
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._publisher = publisher
        self._attempts = Attempts(pool, persistence, publisher)

    def slot_request(
        self,
        generation: Generation,
        model_key: str,
        avoid: frozenset[str] = frozenset(),
        only: str | None = None,
        until: float = 0.0,
    ) -> SlotRequest:
        """What a generation asks of the queue and the upstreams.

        Args:
            group: its model's key in the pool.
            avoid: upstreams that have just failed at it.
            only: the one upstream that will do.
            until: see Need.
        """
        text = text_so_far(generation)
        tokens = prefix_cache.tokens_in(text)
        n_predict = generation.params.get("n_predict")
        most = n_predict if isinstance(n_predict, int) and n_predict >= 0 else None
        requirement = Requirement(
            model=model_key,
            long=tokens >= LONG_PROMPT,
            avoid=avoid,
            only=only,
            until=until,
            abilities=abilities_for(generation),
            chain=prefix_cache.chain_of(text),
            answer=most,
        )
        return SlotRequest(
            user=generation.user,
            model=model_key,
            key=requirement,
            priority=generation.priority,
            deadline=generation.deadline,
            prompt_tokens=tokens,
            most_tokens=most,
        )

    async def complete(self, generation: Generation, ticket: Ticket) -> None:
        """Have it completed; returns after the last event, whoever made it.

        Args:
            ticket: has its turn; may wait for another one here.

        Raises:
            RequestError: it cannot be completed.
        """
        failed: list[str] = []
        lacking: set[str] = set()
        lost = 0
        while True:
            lease = held(ticket.lease)
            made = generation.made
            try:
                await self._attempts.run(generation, lease)
                return
            except RequestError as failure:
                if not is_for_another(failure) or lease.backend.name in lacking:
                    raise
                if generation.final is not None:
                    return  # the end had come before the connection broke
                error = failure
            waits = isinstance(error, UpstreamBusy) and generation.made == made
            if isinstance(error, UpstreamLacks):
                lacking.add(lease.backend.name)
            else:
                lease.failed(error)
                if generation.made > made:
                    failed, lost = [], 0
                if not waits:
                    failed.append(lease.backend.name)
                    lost += lease.was_sent and error.code == ErrorCode.UPSTREAM_UNAVAILABLE
                if lost >= MOST_LOST or len(failed) >= MOST_FAILURES:
                    raise error
            avoid = [] if waits else failed
            slot_request = self._elsewhere(generation, ticket, lease.backend, error, avoid, lacking)
            if not waits:
                self._move(generation, lease.backend, error)
            self._scheduler.requeue(ticket, slot_request)
            await ticket.granted.wait()
            generation.dispatched()

    def _elsewhere(
        self,
        generation: Generation,
        ticket: Ticket,
        backend: Backend,
        error: RequestError,
        failed: list[str],
        lacking: Iterable[str],
    ) -> SlotRequest:
        """The slot request with which it continues after a failure.

        Args:
            backend: where it failed.
            failed: who failed at it since its last token, in order.
            lacking: who cannot do it at all.

        Raises:
            RequestError: it does not.
        """
        model_key, only = ticket.slot_request.model, None
        if not model_key and (generation.rendered is not None or generation.pieces):
            # It was asked for before the models could be told apart: now it is bound to one.
            model_key = backend.model_key
            only = None if model_key else backend.name
        slot_request = functools.partial(self.slot_request, generation, model_key, only=only)
        for avoid in (frozenset((*failed, *lacking)), frozenset((*failed[-1:], *lacking))):
            elsewhere = slot_request(avoid)
            if self._pool.can_serve(need_of(elsewhere)):
                return elsewhere
        # No other one now. Wait until one is back: for a while for another one, if this one is
        # there and refuses; if there never was another, the refusal stands.
        later = slot_request()
        until = trio.current_time() + OTHERS
        if error.code not in DOWN:
            later = slot_request(frozenset((*failed[-1:], *lacking)), until=until)
        elif lacking:
            later = slot_request(frozenset(lacking), until=until)
        if self._pool.may_recover(need_of(later)):
            return later
        raise error

    def _move(self, generation: Generation, failed: Backend, error: RequestError) -> None:
        then, told = "begins", ""
        if generation.pieces:
            then, told = ("replays", _REPLAYED) if _replays(generation) else ("continues", "")
        log.warning(
            "generation_moves",
            generation=generation.id,
            upstream=failed.name,
            pieces=len(generation.pieces),
            then=then,
            reason=reason_of(error.code, error.message),
        )
        failed.failovers += 1
        generation.fails_over(f"{failed.name}: {error.message}"[:_REASON] + told)
        self._publisher.publish()


def _replays(generation: Generation) -> bool:
    """Whether it is already known of one with pieces that it cannot be continued."""
    params = generation.params
    try:
        if generation.rendered is None and generation.prompt is None:
            parts = generation.parts(0, len(generation.pieces))
            prefill.check(generation.messages or [], params, parts)
        else:
            continuation.check_state(params)
    except CannotContinue:
        return True
    return False


def need_of(slot_request: SlotRequest) -> Requirement:
    """The requirement of a slot request."""
    assert isinstance(slot_request.key, Requirement)
    return slot_request.key

"""Has upstreams complete a generation: one after the other, where they fail at it.

1. What an upstream is to blame for is done elsewhere: unseen before the first piece, and after it
   from the token ids so far, with a splice that readers see. What the request is to blame for is
   not.
2. Nothing that a reader has is ever taken back, and nothing is doubled: the log is the truth.
3. An upstream that takes no more for now has not failed. The generation gives its slot back and
   waits for the next one: on another upstream, or there after the time that was asked for.
4. A generation that upstreams fail at again and again, without a token more, is given up: it may
   be what brings them down.
"""

from __future__ import annotations

import functools
from typing import Any

import structlog
import trio

from llcuda_net.errors import Interrupted, RequestError, UpstreamBusy, request_error
from llcuda_net.generation import continuation, sampling
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.prompt import checked_params, render, text_so_far
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.state import Outcome
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.storage.records import TokenLog
from llcuda_net.upstream import prefix_cache
from llcuda_net.upstream.backend import Backend, Lease, held
from llcuda_net.upstream.interface import (
    BLAMED,
    DOWN,
    CompletionEvent,
    OnEvents,
    Properties,
    Requirement,
    Upstream,
)
from llcuda_net.upstream.model.fingerprint import same_model
from llcuda_net.upstream.pool import Pool
from llcuda_net.util.logs import reason_of
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: How often upstreams may fail at a generation in a row, without a token from it; and how often of
#: these they may have had it and been lost.
MOST_FAILURES, MOST_LOST = 6, 3
#: Seconds to wait for an upstream that is down, rather than retry one that has refused.
OTHERS = 10.0
#: Tokens from which a prompt counts as long: reading it holds up the tokens of all other slots.
LONG_PROMPT = 2048


class Dispatcher:
    """Takes generations that have their turn to upstreams."""

    def __init__(
        self, pool: Pool, scheduler: Scheduler, persistence: Persistence, publisher: Publisher
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._persistence = persistence
        self._publisher = publisher

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
        requirement = Requirement(
            model=model_key,
            long=tokens >= LONG_PROMPT,
            avoid=avoid,
            only=only,
            until=until,
            chain=prefix_cache.chain_of(text),
        )
        most = generation.params.get("n_predict")
        return SlotRequest(
            user=generation.user,
            model=model_key,
            key=requirement,
            priority=generation.priority,
            deadline=generation.deadline,
            prompt_tokens=tokens,
            most_tokens=most if isinstance(most, int) and most >= 0 else None,
        )

    async def complete(self, generation: Generation, ticket: Ticket) -> None:
        """Have it completed; returns after the last event, whoever made it.

        Args:
            ticket: has its turn; may wait for another one here.

        Raises:
            RequestError: it cannot be completed.
        """
        failed: list[str] = []
        lost = 0
        while True:
            lease = held(ticket.lease)
            made = generation.made
            try:
                await self._attempt(generation, lease)
                return
            except RequestError as failure:
                if failure.code not in BLAMED:
                    raise
                if generation.final is not None:
                    return  # the end had come before the connection broke
                error = failure
            lease.failed(error)
            if generation.made > made:
                failed, lost = [], 0
            elif isinstance(error, UpstreamBusy):
                slot_request = self._elsewhere(generation, ticket, lease.backend, error, [])
                self._scheduler.requeue(ticket, slot_request)
                await ticket.granted.wait()
                generation.dispatched()
                continue
            failed.append(lease.backend.name)
            lost += lease.was_sent and error.code == ErrorCode.UPSTREAM_UNAVAILABLE
            if lost >= MOST_LOST or len(failed) >= MOST_FAILURES:
                raise error
            slot_request = self._elsewhere(generation, ticket, lease.backend, error, failed)
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
    ) -> SlotRequest:
        """The slot request with which it continues after a failure.

        Args:
            backend: where it failed.
            failed: who failed at it since its last token, in order.

        Raises:
            RequestError: it does not.
        """
        model_key, only = ticket.slot_request.model, None
        if not model_key and generation.rendered is not None:
            # It was asked for before the models could be told apart: now it is bound to one.
            model_key = backend.model_key
            only = None if model_key else backend.name
        slot_request = functools.partial(self.slot_request, generation, model_key, only=only)
        for avoid in (frozenset(failed), frozenset(failed[-1:])):
            elsewhere = slot_request(avoid)
            if self._pool.can_serve(need_of(elsewhere)):
                return elsewhere
        # No other one now. Wait until one is back: for a while for another one, if this one is
        # there and refuses; if there never was another, the refusal stands.
        later = slot_request()
        if error.code not in DOWN:
            later = slot_request(frozenset(failed[-1:]), until=trio.current_time() + OTHERS)
        if self._pool.may_recover(need_of(later)):
            return later
        raise error

    def _move(self, generation: Generation, failed: Backend, error: RequestError) -> None:
        log.warning(
            "generation_moves",
            generation=generation.id,
            upstream=failed.name,
            pieces=len(generation.pieces),
            reason=reason_of(error.code, error.message),
        )
        failed.failovers += 1
        generation.fails_over(f"{failed.name}: {error.message}"[:256])
        self._publisher.publish()

    # -- one attempt --------------------------------------------------------------------------

    async def _attempt(self, generation: Generation, lease: Lease) -> None:
        with lease.use(lambda: generation.times.last_token or 0.0):
            if generation.pieces:
                await self._continue(generation, lease)
            else:
                await self._start(generation, lease)

    async def _start(self, generation: Generation, lease: Lease) -> None:
        properties = await lease.properties()
        news: str | list[int] | None = None
        generation.continued(0)
        checked = checked_params(generation, properties.context)
        prompt = generation.prompt if generation.rendered is None else generation.rendered
        if prompt is None:
            assert generation.messages is not None
            prompt = news = await render(generation.messages, lease)
            generation.times.rendered = trio.current_time()
        generation.rendered = prompt
        self._dispatched(generation, lease.backend, news)
        if await self._stream(generation, lease, prompt, checked):
            self._identify(generation, lease.backend, properties)

    async def _continue(self, generation: Generation, lease: Lease) -> None:
        """Go on behind the pieces that there are."""
        backend = lease.backend
        properties = await lease.properties()
        self._check_same(generation, backend)
        prompt = generation.prompt if generation.rendered is None else generation.rendered
        if prompt is None:
            assert generation.messages is not None
            prompt = await render(generation.messages, lease)
        generation.rendered = prompt
        checked = checked_params(generation, properties.context)
        tokens = TokenLog(generation.pieces, generation.ids, counts=generation.counts)
        try:
            plan = await continuation.plan(prompt, checked, tokens, backend.upstream)
        except continuation.CannotContinue as error:
            raise Interrupted(
                f"what ran it was lost, and this cannot be continued: {error}",
                retry=True,
            ) from None
        generation.continued(plan.tokens)
        if plan.finished is not None:
            self._spliced(generation, backend)
            usage = {"completion_tokens": plan.tokens, "prompt_tokens": plan.prompt_tokens}
            name = generation.model.get("name")
            generation.conclude(Outcome(plan.finished, plan.stop, name, usage))
            return
        self._dispatched(generation, backend, None)
        if await self._stream(generation, lease, plan.prompt, plan.params):
            self._identify(generation, backend, properties)

    def _check_same(self, generation: Generation, backend: Backend) -> None:
        """Refuse to continue where another model answers now; the pool may not know of it yet."""
        if (
            backend.spec.model is not None
            or generation.upstream != backend.upstream.base_url
            or not generation.model.get("name")
            or same_model(generation.model, backend.fingerprint())
        ):
            return
        alone = len(self._pool.of("")) == 1
        raise request_error(
            ErrorCode.INTERRUPTED if alone else ErrorCode.UPSTREAM_ERROR,
            "what ran it was lost, and this cannot be continued: the upstream has another model "
            "now",
            retry=True,
        )

    def _dispatched(
        self, generation: Generation, backend: Backend, news: str | list[int] | None
    ) -> None:
        """Journal the upstream, and the prompt that was rendered of messages."""
        generation.model, generation.upstream = backend.fingerprint(), backend.upstream.base_url
        self._spliced(generation, backend)
        self._persistence.dispatched(generation, news)

    def _spliced(self, generation: Generation, backend: Backend) -> None:
        """Journal that another upstream continues from here, if one does."""
        position = len(generation.pieces)
        if generation.noted < position and any(
            one.position == position for one in generation.failovers
        ):
            generation.noted = position
            self._persistence.spliced(generation, backend.upstream.base_url)

    async def _stream(
        self,
        generation: Generation,
        lease: Lease,
        prompt: str | list[int],
        checked: dict[str, Any],
    ) -> bool:
        """Stream one answer; whether it ended by itself, and not where n_predict was ignored."""

        def sent() -> None:
            lease.sent()
            if not generation.pieces:
                generation.sent()

        upstream = lease.backend.upstream
        on_events: OnEvents = functools.partial(self._publisher.extend, generation)
        if lease.reading:
            on_events = functools.partial(self._extend_reading, generation, lease)
        held = _HeldBack(checked["stop"], on_events) if checked.get("stop") else None
        try:
            on_read = on_events if held is None else held.pass_on
            note = await upstream.complete(prompt, checked | lease.params, on_read, sent)
            if held is not None:
                await held.release(upstream)
        finally:
            self._publisher.publish()
        lease.done(text_so_far(generation), generation.final, cut=note is not None)
        return note is None

    def _extend_reading(
        self, generation: Generation, lease: Lease, events: list[CompletionEvent]
    ) -> None:
        """The same while a long prompt is read: with its first token the upstream has read it."""
        self._publisher.extend(generation, events)
        if lease.reading:
            lease.first_token()

    def _identify(self, generation: Generation, backend: Backend, properties: Properties) -> None:
        """Say which model it was, as far as can be known now, and whether it may answer again."""
        name = generation.final.model if generation.final is not None else ""
        if backend.named is None or backend.named[0] is not properties:
            backend.named = properties, name
        if name != backend.named[1]:
            # Started again with another model while we had no connection to it.
            log.warning("upstream_has_changed", upstream=backend.name, model=name)
            backend.upstream.forget()
            backend.named = None
            generation.model = {"name": name}
            return
        now = backend.fingerprint()
        if same_model(generation.model, now):
            generation.model = now  # by now the file may have been hashed
        generation.cacheable = sampling.is_deterministic(generation.params)


class _HeldBack:
    """Text that an upstream held back, since it may have become a stop string, up to the limit.

    A llama-server sends the id of such a token, and its text with a later one; at the token limit
    never. So the last event waits here until that text has been asked for.

    Args:
        stops: the stop strings.
        on_events: takes the events.
    """

    def __init__(self, stops: list[str], on_events: OnEvents) -> None:
        self._stops = stops
        self._on_events = on_events
        self._ids: list[int] = []
        self._predicted = 0  # tokens up to the last event
        self._whole = True  # each token since the last text sent its id
        self._final: CompletionEvent | None = None

    def pass_on(self, events: list[CompletionEvent]) -> None:
        """Pass events on, but for a last one that lacks text."""
        for event in events:
            if event.stop:
                lost = event.stop_type == "limit" and not event.content and self._ids
                self._final = event if lost and self._whole else None
            elif event.content:
                self._ids, self._whole = [], True
            elif event.tokens:
                # What ended within a character has sent nothing: its id is not known.
                self._whole = self._whole and event.tokens_predicted == self._predicted + 1
                self._ids += event.tokens
            self._predicted = event.tokens_predicted
        if self._final is not None:
            events = events[:-1]
        self._on_events(events)

    async def release(self, upstream: Upstream) -> None:
        """Pass on the last event, with the text that was held back."""
        if self._final is None:
            return
        try:
            text = await upstream.detokenize(self._ids)
        except RequestError:
            text = ""
        if any(text.endswith(stop[:n]) for stop in self._stops for n in range(1, len(stop))):
            self._final.content, self._final.tokens = text, self._ids[-1:]
        self._on_events([self._final])


def need_of(slot_request: SlotRequest) -> Requirement:
    """The requirement of a slot request."""
    assert isinstance(slot_request.key, Requirement)
    return slot_request.key

"""Has one upstream complete a generation, as far as it gets.

1. What has no piece yet begins. What has is continued from its token ids, if that is the same as if
   it had never been cut (continuation.py), a chat from its text (prefill.py); else it is replayed
   (replay.py).
2. A chat that only the upstream can render or parse (tools, images, reasoning) goes to its chat
   route; all else to /completion, since only there do token ids come.
3. What an attempt adds goes to the publisher, and nothing else does.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from llcuda_net.errors import Interrupted, request_error
from llcuda_net.generation import sampling
from llcuda_net.generation.attempt import continuation
from llcuda_net.generation.attempt.continuation import CannotContinue
from llcuda_net.generation.attempt.held_back import HeldBack
from llcuda_net.generation.attempt.prefill import prefill
from llcuda_net.generation.attempt.replay import Replay
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.prompt import checked_params, render, route, text_so_far
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.state import Outcome
from llcuda_net.storage.records import TokenLog
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import CompletionEvent, OnEvents, Properties
from llcuda_net.upstream.model.fingerprint import same_model
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.lease import Lease
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Asks an upstream for an answer: with on_events and on_sent, as the methods of Upstream.
_Ask = Callable[[OnEvents, Callable[[], None]], Awaitable[str | None]]


class Attempts:
    """Makes attempts at generations, each on the upstream of its lease."""

    def __init__(self, pool: Pool, persistence: Persistence, publisher: Publisher) -> None:
        self._pool = pool
        self._persistence = persistence
        self._publisher = publisher

    async def run(self, generation: Generation, lease: Lease) -> None:
        """Have it completed by one upstream; returns after its last event.

        Raises:
            RequestError: it was not. With the code `interrupted` no other upstream can, either.
        """
        with lease.use(generation):
            properties = await lease.properties()
            if generation.pieces:
                self._check_same(generation, lease.backend)
            if generation.rendered is None and route(generation, properties):
                await self._chat(generation, lease, properties)
            elif generation.pieces:
                await self._go_on(generation, lease, properties)
            else:
                await self._begin(generation, lease, properties)

    async def _begin(self, generation: Generation, lease: Lease, properties: Properties) -> None:
        generation.continued(0)
        checked = checked_params(generation, properties.context)
        news = await self._render(generation, lease)
        self._dispatched(generation, lease.backend, news)
        await self._complete(generation, lease, properties, generation.rendered, checked)

    async def _render(self, generation: Generation, lease: Lease) -> str | list[int] | None:
        """See to it that it has its prompt; what was rendered for it just now, if anything."""
        if generation.rendered is None and "input_suffix" not in generation.params:
            generation.rendered = generation.prompt
        if generation.rendered is not None:
            return None
        generation.rendered = await render(generation, lease)
        if not generation.pieces:
            generation.times.rendered = trio.current_time()
        return generation.rendered

    async def _go_on(self, generation: Generation, lease: Lease, properties: Properties) -> None:
        """Go on behind the pieces that there are."""
        backend = lease.backend
        await self._render(generation, lease)
        prompt = generation.rendered
        assert prompt is not None
        checked = checked_params(generation, properties.context)
        tokens = TokenLog(generation.pieces, generation.ids, counts=generation.counts)
        try:
            plan = await continuation.plan(prompt, checked, tokens, backend.upstream)
        except CannotContinue as error:
            replay = self._replay(generation, lease, str(error))
            await self._complete(generation, lease, properties, prompt, checked, replay)
            return
        generation.continued(plan.tokens)
        if plan.finished is not None:
            self._spliced(generation, backend)
            usage = {"completion_tokens": plan.tokens, "prompt_tokens": plan.prompt_tokens}
            name = generation.model.get("name")
            generation.conclude(Outcome(plan.finished, plan.stop, name, usage))
            return
        self._dispatched(generation, backend, None)
        await self._complete(generation, lease, properties, plan.prompt, plan.params)

    def _replay(self, generation: Generation, lease: Lease, why: str) -> Replay:
        """Begin it anew, hidden.

        Raises:
            Interrupted: nothing would make the second run like the first one.
        """
        params = generation.params
        if not (generation.seed is not None or sampling.has_seed(params) or _is_greedy(params)):
            raise Interrupted(
                f"what ran it was lost, and this cannot be continued: {why}; nor can it run again, "
                "since it was begun without a seed",
                retry=True,
            )
        replay = Replay(generation)
        generation.runs_again()
        self._dispatched(generation, lease.backend, None)
        log.info(
            "generation_replays",
            generation=generation.id,
            upstream=lease.backend.name,
            pieces=len(generation.pieces),
            reason=why,
        )
        return replay

    async def _complete(
        self,
        generation: Generation,
        lease: Lease,
        properties: Properties,
        prompt: str | list[int] | None,
        checked: dict[str, Any],
        replay: Replay | None = None,
    ) -> None:
        assert prompt is not None
        sent = checked | lease.params | _only_of(replay)
        ask = functools.partial(lease.backend.upstream.complete, prompt, sent)
        if await self._stream(generation, lease, ask, checked, replay):
            self._identify(generation, lease.backend, properties)

    async def _chat(self, generation: Generation, lease: Lease, properties: Properties) -> None:
        """Have the upstream itself render the messages and parse the answer."""
        assert generation.messages is not None
        checked = checked_params(generation, properties.context)
        messages, options, params = generation.messages, generation.chat or {}, checked
        replay = None
        if generation.pieces:
            pieces, upstream = generation.pieces, lease.backend.upstream
            parts, tokens = [*generation.parts(0, len(pieces))], sum(generation.counts)
            try:
                more = await prefill(messages, options, params, pieces, parts, tokens, upstream)
            except CannotContinue as error:
                replay = self._replay(generation, lease, str(error))
            else:
                messages, options, params = more.messages, more.options, more.params
                generation.continued(more.tokens)
                self._dispatched(generation, lease.backend, None)
        else:
            generation.continued(0)
            self._dispatched(generation, lease.backend, None)
        sent = params | lease.params | _only_of(replay)
        ask = functools.partial(lease.backend.upstream.chat, messages, options, sent)
        if await self._stream(generation, lease, ask, checked, replay):
            self._identify(generation, lease.backend, properties)

    # -- what it runs on ----------------------------------------------------------------------

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

    # -- the stream -----------------------------------------------------------------------------

    async def _stream(
        self,
        generation: Generation,
        lease: Lease,
        ask: _Ask,
        checked: dict[str, Any],
        replay: Replay | None = None,
    ) -> bool:
        """Stream one answer; whether it ended by itself, and not where n_predict was ignored."""

        def sent() -> None:
            lease.sent()
            if not generation.pieces:
                generation.sent()

        on_events: OnEvents = functools.partial(self._publisher.extend, generation)
        if replay is not None:
            on_events = functools.partial(_extend_behind, replay, generation, on_events)
        if lease.reading:
            on_events = functools.partial(_extend_reading, lease, on_events)
        held = HeldBack(checked["stop"], on_events) if checked.get("stop") else None
        try:
            note = await ask(on_events if held is None else held.pass_on, sent)
            if held is not None:
                await held.release(lease.backend.upstream)
        finally:
            self._publisher.publish()
        lease.done(text_so_far(generation), generation.final, cut=note is not None)
        return note is None

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


def _only_of(replay: Replay | None) -> dict[str, Any]:
    """Parameters that only a replay has.

    It reads its prompt as a whole. What a slot still holds of one was computed in other batches,
    and rounds differently, which is enough for other words.
    """
    return {} if replay is None else {"cache_prompt": False}


def _extend_reading(lease: Lease, extend: OnEvents, events: list[CompletionEvent]) -> None:
    """Extend while a long prompt is read: with its first token the upstream has read it."""
    extend(events)
    if lease.reading:
        lease.first_token()


def _extend_behind(
    replay: Replay, generation: Generation, extend: OnEvents, events: list[CompletionEvent]
) -> None:
    """Extend by what is behind the log; the rest was there before."""
    if replay.caught_up:
        extend(events)
        return
    unsaid = replay.unsaid(events)
    if replay.caught_up:
        log.info("generation_caught_up", generation=generation.id, pieces=len(generation.pieces))
    extend(unsaid)


def _is_greedy(params: dict[str, Any]) -> bool:
    return params.get("temperature") == 0

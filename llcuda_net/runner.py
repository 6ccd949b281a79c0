"""Runs a generation: from admission, over upstream or store, to the committed result."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from llcuda_net import continuation, params
from llcuda_net.admission import Admission, Ticket
from llcuda_net.errors import RequestError
from llcuda_net.generations import Generation, State
from llcuda_net.keeping import Keeper
from llcuda_net.outcome import Outcome
from llcuda_net.publishing import Publisher
from llcuda_net.registry import Registry, check_key
from llcuda_net.storage.pipeline import Recovered
from llcuda_net.upstream.completion import CompletionEvent
from llcuda_net.upstream.fingerprint import same_model
from llcuda_net.upstream.interface import Properties, Upstream
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds between two looks at an upstream that is not there.
_RETRY = 1.0


class Runner:
    """Runs generations on one upstream.

    Args:
        fingerprint: what is known of the upstream's model.
    """

    def __init__(
        self,
        upstream: Upstream,
        admission: Admission,
        keeper: Keeper,
        publisher: Publisher,
        registry: Registry,
        fingerprint: Callable[[], dict[str, Any]],
    ) -> None:
        self._upstream = upstream
        self._admission = admission
        self._keeper = keeper
        self._publisher = publisher
        self._registry = registry
        self._fingerprint = fingerprint

    async def properties(self) -> Properties:
        """What the upstream says of itself; its slots are those that are used from now on.

        Raises:
            RequestError: it cannot be reached.
        """
        properties = await self._upstream.ask()
        self._admission.set_slots(properties.slots)
        return properties

    # -- from the beginning, and from where the last server stopped -----------------------------

    async def run(self, generation: Generation, ticket: Ticket) -> None:
        """Run a new generation. Never raises, but when cancelled from outside."""
        ticket.on_position = functools.partial(self._queued, generation)
        await self._to_its_end(generation, functools.partial(self._begin, generation, ticket))

    async def resume(
        self, generation: Generation, entry: Recovered, ready: Callable[[Generation], None]
    ) -> None:
        """Continue a generation that ran when the last server ended.

        Args:
            ready: called when the upstream is there.
        """
        work = functools.partial(self._continue, generation, entry, ready)
        await self._to_its_end(generation, work)

    async def _to_its_end(
        self, generation: Generation, work: Callable[[], Awaitable[State]]
    ) -> None:
        kept = True
        try:
            state, error = await self._outcome(generation, work)
            if state is None:
                self._keeper.leave(generation)
                return
            generation.times.over = trio.current_time()
            # A generation that was refused before it was accepted is kept, too: it has failed.
            try:
                with trio.CancelScope(shield=True):
                    await self._keeper.finish(
                        generation,
                        state,
                        error,
                        model=self._fingerprint(),
                        upstream=self._upstream.base_url,
                    )
            except RequestError as refusal:
                state, error, kept = State.FAILED, error or refusal, False
            generation.times.stored = trio.current_time()
            generation.end(state, error, kept=kept)
        finally:
            self._publisher.forget(generation)
            self._registry.remove(generation, stored=kept and generation.level.journalled)
        self._publisher.flush()

    async def _outcome(
        self, generation: Generation, work: Callable[[], Awaitable[State]]
    ) -> tuple[State | None, RequestError | None]:
        """Do the work; how it ended, or no state where it is for the next server to go on."""
        try:
            with generation.scope:
                return await work(), None
            if generation.suspended:
                return None, None
            return State.CANCELLED if generation.error is None else State.FAILED, generation.error
        except RequestError as error:
            interrupted = error.code == ErrorCode.INTERRUPTED
            return State.INTERRUPTED if interrupted else State.FAILED, error
        except Exception as error:
            log.exception("generation_crashed", generation=generation.id)
            bug = RequestError(ErrorCode.INTERNAL, f"a bug: {type(error).__name__}")
            return State.FAILED, bug

    # -- a new one --------------------------------------------------------------------------------

    async def _begin(self, generation: Generation, ticket: Ticket) -> State:
        with trio.move_on_after(generation.timeout):
            try:
                state = await self._from_store(generation)
                if state is None:
                    await self._keep(generation)
            except BaseException:
                self._admission.leave(ticket)
                raise
            if state is not None:
                self._admission.leave(ticket)
                return state
            async with ticket:
                generation.dispatched()
                await self._complete(generation)
            return State.DONE
        raise too_late(generation.timeout)

    async def _keep(self, generation: Generation) -> None:
        self._keeper.start(generation)
        await self._keeper.accepted(generation)
        generation.accept()
        self._publisher.flush()

    async def _from_store(self, generation: Generation) -> State | None:
        """Answer it with what is stored, if it may be and there is something."""
        if generation.key is not None and not generation.fresh:
            found = await self._keeper.find_by_key(generation.key, generation.owner)
            # What did not come to its end is tried again.
            if found is not None and found.state == State.DONE:
                check_key(generation.key, found.request_hash, generation.request_hash)
                self._registry.rename(generation, found.id)
                generation.adopt(found)
                return State.DONE
        if generation.cache and params.is_deterministic(generation.params):
            await self.properties()
            found = await self._keeper.find_cached(
                self._fingerprint(), generation.request_hash, generation.owner
            )
            if found is not None:
                generation.cached_from = found.id
                await self._keep(generation)
                generation.adopt_log(found.log)
                model = found.model.get("name")
                generation.conclude(Outcome(found.reason, found.stop, model, found.usage))
                self._keeper.grew(generation, 0)
                return State.DONE
        return None

    # -- one that the last server began -----------------------------------------------------------

    async def _continue(
        self, generation: Generation, entry: Recovered, ready: Callable[[Generation], None]
    ) -> State:
        end = entry.concluded
        if end is not None:
            generation.conclude(Outcome(end.reason, end.stop, None, end.usage))
            return State.DONE
        await self._upstream_is_there()
        ready(generation)
        with trio.move_on_after(generation.timeout):
            plan = None
            if generation.splices:
                plan = await self._plan(generation, entry)
                generation.continued(plan.tokens)
                if plan.finished is not None:
                    usage = {
                        "completion_tokens": plan.tokens,
                        "prompt_tokens": plan.prompt_tokens,
                    }
                    generation.conclude(Outcome(plan.finished, plan.stop, None, usage))
                    return State.DONE
            ticket = self._admission.enter(always=True)
            ticket.on_position = functools.partial(self._queued, generation)
            self._queued(generation, ticket.position)
            async with ticket:
                generation.dispatched()
                await self._complete(generation, plan)
            return State.DONE
        raise too_late(generation.timeout)

    async def _upstream_is_there(self) -> None:
        while True:
            try:
                await self.properties()
            except RequestError as error:
                if not error.retry:
                    raise
                await trio.sleep(_RETRY)
            else:
                return

    async def _plan(self, generation: Generation, entry: Recovered) -> continuation.Plan:
        """How it goes on.

        Raises:
            RequestError: it cannot, with the code `interrupted`.
        """
        last = entry.dispatched
        while True:
            prompt = generation.prompt
            try:
                if last is not None:
                    if not same_model(last.model, self._fingerprint()):
                        raise continuation.CannotContinue("the upstream has another model now")
                    prompt = prompt if last.prompt is None else last.prompt
                if prompt is None:
                    assert generation.messages is not None
                    prompt = await self._render(generation.messages)
                context = (await self.properties()).context
                checked = params.check(generation.params, context)
                return await continuation.plan(prompt, checked, entry.log, self._upstream)
            except continuation.CannotContinue as error:
                raise RequestError(
                    ErrorCode.INTERRUPTED,
                    f"the server was stopped, and this cannot be continued: {error}",
                    retry=True,
                ) from None
            except RequestError as error:
                if error.code != ErrorCode.UPSTREAM_UNAVAILABLE:
                    raise
            await trio.sleep(_RETRY)

    # -- on the upstream ----------------------------------------------------------------------

    async def _complete(
        self, generation: Generation, plan: continuation.Plan | None = None
    ) -> None:
        upstream = self._upstream
        properties = await self.properties()
        rendered: str | None = None
        if plan is not None:
            prompt: str | list[int] | None = plan.prompt
            checked = plan.params
        else:
            checked = params.check(generation.params, properties.context)
            prompt = generation.prompt
            if generation.messages is not None:
                prompt = rendered = await self._render(generation.messages)
                generation.times.rendered = trio.current_time()
        assert prompt is not None
        self._keeper.dispatched(generation, upstream.base_url, self._fingerprint(), rendered)
        on_events = functools.partial(self._extend, generation)
        await upstream.complete(prompt, checked, on_events, generation.sent)

    def _extend(self, generation: Generation, events: list[CompletionEvent]) -> None:
        first = len(generation.pieces)
        if generation.extend(events):
            self._publisher.grew(generation, first)
        if generation.final is not None:
            self._keeper.concluded(generation)

    def _queued(self, generation: Generation, position: int) -> None:
        generation.queued(position)
        self._publisher.flush()

    async def _render(self, messages: list[dict[str, str]]) -> str:
        properties = await self.properties()
        if properties.has_template:
            return await self._upstream.render(messages)
        if len(messages) == 1 and messages[0]["role"] == "user":
            return messages[0]["content"]
        raise RequestError(
            ErrorCode.UNSUPPORTED,
            f"the model {properties.model} has no chat template; send one message, or a raw prompt",
        )


def too_late(seconds: float) -> RequestError:
    """The error for a request whose time was over."""
    return RequestError(ErrorCode.TIMEOUT, f"not finished in {seconds:g} s", retry=True)

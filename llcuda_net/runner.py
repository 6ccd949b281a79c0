"""Runs a generation: from admission, over upstream or store, to the committed result."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

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
from llcuda_net.upstream.completion import CompletionEvent
from llcuda_net.upstream.fingerprint import Fingerprint, Told, same_model
from llcuda_net.upstream.interface import Properties, Upstream
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)


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
        fingerprint: Fingerprint | Told,
    ) -> None:
        self._upstream = upstream
        self._admission = admission
        self._keeper = keeper
        self._publisher = publisher
        self._registry = registry
        self.fingerprint = fingerprint
        #: What the upstream had said of itself, and what it then called its model in an answer.
        self._named: tuple[Properties, str] | None = None

    async def properties(self) -> Properties:
        """What the upstream says of itself; its slots are those that are used from now on.

        Raises:
            RequestError: it cannot be reached.
        """
        properties = await self._upstream.ask()
        self._admission.set_slots(properties.slots)
        return properties

    async def run(self, generation: Generation, ticket: Ticket) -> None:
        """Run a new generation. Never raises, but when cancelled from outside."""
        await self.to_its_end(generation, functools.partial(self._begin, generation, ticket))

    async def to_its_end(
        self, generation: Generation, work: Callable[[], Awaitable[State]]
    ) -> None:
        """Do a generation's work, store what came of it, and tell its readers."""
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
                    await self._keeper.finish(generation, state, error)
            except RequestError as refusal:
                state, error, kept = State.FAILED, error or refusal, False
            generation.times.stored = trio.current_time()
            generation.end(state, error, kept=kept)
        finally:
            self._publisher.forget(generation)
            kept = kept or self._keeper.will_store(generation)
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
                await self.complete(generation)
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
            self._upstream.forget()  # it may have been started again with another model
            await self.properties()
            await self.fingerprint.settled()
            model = self.fingerprint()
            found = await self._keeper.find_cached(model, generation.request_hash, generation.owner)
            if found is not None:
                generation.cached_from = found.id
                generation.model, generation.upstream = model, self._upstream.base_url
                await self._keep(generation)
                generation.adopt_log(found.log)
                name = found.model.get("name")
                generation.conclude(Outcome(found.reason, found.stop, name, found.usage))
                self._keeper.grew(generation, 0)
                return State.DONE
        return None

    # -- on the upstream ----------------------------------------------------------------------

    async def complete(
        self,
        generation: Generation,
        plan: continuation.Plan | None = None,
        rendered: str | list[int] | None = None,
    ) -> None:
        """Have the upstream generate; returns after the last event.

        Args:
            plan: how to go on where there is something already.
            rendered: the prompt, where it is known already and the request does not say it.
        """
        upstream = self._upstream
        properties = await self.properties()
        prompt: str | list[int] | None
        news: str | None = None
        if plan is not None:
            prompt, checked = plan.prompt, plan.params
        else:
            checked = params.check(generation.params, properties.context)
            prompt = generation.prompt if rendered is None else rendered
            if prompt is None:
                assert generation.messages is not None
                prompt = news = await self.render(generation.messages)
                generation.times.rendered = trio.current_time()
        generation.model, generation.upstream = self.fingerprint(), upstream.base_url
        self._keeper.dispatched(generation, news)
        on_events = functools.partial(self._extend, generation)
        await upstream.complete(prompt, checked, on_events, generation.sent)
        self._identify(generation, properties)

    def _identify(self, generation: Generation, properties: Properties) -> None:
        """Say which model it was, as far as can be known now, and whether it may answer again."""
        name = generation.final.model if generation.final is not None else ""
        if self._named is None or self._named[0] is not properties:
            self._named = properties, name
        if name != self._named[1]:
            # Started again with another model while we had no connection to it.
            log.warning("upstream_has_changed", url=self._upstream.base_url, model=name)
            self._upstream.forget()
            self._named = None
            generation.model = {"name": name}
            return
        now = self.fingerprint()
        if same_model(generation.model, now):
            generation.model = now  # by now the file may have been hashed
        generation.cacheable = params.is_deterministic(generation.params)

    def _extend(self, generation: Generation, events: list[CompletionEvent]) -> None:
        first = len(generation.pieces)
        if generation.extend(events):
            self._publisher.grew(generation, first)
        if generation.final is not None:
            self._keeper.concluded(generation)

    async def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the model's chat template makes of messages.

        Raises:
            RequestError: it has none, or refuses them.
        """
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

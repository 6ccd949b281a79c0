"""Runs a generation to its committed result: a new one, or one that a restart interrupted."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import structlog
import trio

from llcuda_net.errors import (
    InternalError,
    Interrupted,
    LeaseLost,
    RequestError,
    RequestTimeout,
    UpstreamError,
    UpstreamUnavailable,
)
from llcuda_net.generation import sampling
from llcuda_net.generation.acceptance import Acceptance
from llcuda_net.generation.dispatcher import Dispatcher
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.registry import Registry, check_key
from llcuda_net.generation.state import Outcome, State
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.storage.channels import TOOL_CALL, contents, text_pieces
from llcuda_net.storage.records import Dispatched, Result
from llcuda_net.storage.starting import Recovered
from llcuda_net.upstream.constraints.checks import Checks
from llcuda_net.upstream.interface import BLAMED
from llcuda_net.upstream.pool import Pool
from llcuda_net.util.logs import reason_of
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds between two looks for an upstream that has the model of an interrupted generation: at
#: most, and at least, however often the pool changes.
_RETRY, _PAUSE = 1.0, 0.02


class Runner:
    """Runs generations on the upstreams of a pool.

    Args:
        checks: of constraints, and of the answers to them; shared with whoever resumes.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: Scheduler,
        persistence: Persistence,
        publisher: Publisher,
        registry: Registry,
        checks: Checks | None = None,
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._persistence = persistence
        self._publisher = publisher
        self._registry = registry
        self._checks = checks or Checks()
        self.dispatcher = Dispatcher(pool, scheduler, persistence, publisher)
        self.acceptance = Acceptance(persistence, publisher.publish)

    async def run(self, generation: Generation, ticket: Ticket) -> None:
        """Run a new generation. Never raises, but when cancelled from outside."""
        await self.to_its_end(generation, functools.partial(self._begin, generation, ticket))

    async def to_its_end(
        self, generation: Generation, work: Callable[[], Awaitable[State]]
    ) -> None:
        """Do a generation's work, store the outcome, and notify its readers."""
        kept, elsewhere = True, None
        try:
            state, error = await self._outcome(generation, work)
            if state is None:
                self._persistence.leave(generation)
                return
            generation.times.over = trio.current_time()
            # A generation that was refused before it was accepted is kept, too: it has failed. But
            # nobody is told now that it was accepted, when all that can follow is its error.
            if state in (State.FAILED, State.INTERRUPTED):
                self.acceptance.forget(generation)
            with trio.CancelScope(shield=True):
                refusal = await self._persistence.finish(generation, state, error)
            if isinstance(refusal, LeaseLost):  # it is another server's, and goes on there
                generation.suspended, elsewhere = True, refusal
                self._persistence.leave(generation)
            else:
                if refusal is not None:
                    state, error, kept = State.FAILED, refusal, False
                generation.times.stored = trio.current_time()
                generation.end(state, error, kept=kept)
        finally:
            self._publisher.forget(generation)
            self.acceptance.forget(generation)
            kept = kept or self._persistence.will_store(generation)
            self._registry.remove(generation, stored=kept and generation.level.journalled)
        if elsewhere is not None:  # who reads it comes again
            generation.end(State.FAILED, elsewhere, kept=False)
        self._publisher.publish()

    async def _outcome(
        self, generation: Generation, work: Callable[[], Awaitable[State]]
    ) -> tuple[State | None, RequestError | None]:
        """Do the work; how it ended, or no state where the next server continues."""
        try:
            with generation.scope:
                return await work(), None
            if generation.suspended:
                return None, None
            return State.CANCELLED if generation.error is None else State.FAILED, generation.error
        except RequestError as error:
            failure = error
        except Exception as error:
            log.exception("generation_crashed", generation=generation.id)
            failure = InternalError(f"a bug: {type(error).__name__}")
        if generation.suspended:  # it failed since what it needs was taken away with it
            return None, None
        interrupted = failure.code == ErrorCode.INTERRUPTED
        return State.INTERRUPTED if interrupted else State.FAILED, failure

    async def _begin(self, generation: Generation, ticket: Ticket) -> State:
        """Run it, while its request is journalled.

        Where nothing is to be waited for, its upstream has the request in the task's first turn.
        """
        with trio.move_on_after(generation.timeout):
            try:
                await self.check(generation)
                state = await self._from_store(generation, ticket)
                if state is None:
                    self._keep(generation)
            except BaseException:
                self._scheduler.remove(ticket)
                raise
            if state is not None:
                self._scheduler.remove(ticket)
                return state
            try:
                async with ticket:
                    generation.dispatched()
                    await self.dispatcher.complete(generation, ticket)
                    # With its slot: a disk that cannot keep up slows the work down.
                    await self.acceptance.wait(generation)
            finally:
                await self.acceptance.wait(generation)  # also with an error
            return await self.verified(generation)
        raise too_late(generation.timeout)

    async def check(self, generation: Generation) -> None:
        """Return if its constraint can be kept.

        Raises:
            InvalidRequest: it cannot.
        """
        await self._checks.check(generation.params, generation.chat)

    async def verified(self, generation: Generation) -> State:
        """Done, if its answer keeps its constraint.

        Raises:
            UpstreamError: it does not.
        """
        outcome = generation.outcome
        text = generation.text_pieces()
        await self._verify(generation.params, text, outcome.reason, outcome.stop)
        if generation.chat is not None:
            cut = outcome.reason == "length" or outcome.stop is not None
            found = contents(generation.pieces, generation.switches)
            if cut:
                del found[-1:]  # what a limit cut may be the beginning of a call
            calls = [(one.channel.name, one.text) for one in found if one.channel.kind == TOOL_CALL]
            await self._checks.verify_calls(generation.chat, calls, cut=cut)
        return State.DONE

    async def _verify(
        self, params: dict[str, Any], pieces: Iterable[str], reason: str, stop: str | None
    ) -> None:
        cut = reason == "length" or stop is not None
        await self._checks.verify(params, "".join(pieces), cut=cut)

    def _keep(self, generation: Generation) -> None:
        """Have its request journalled, and it accepted."""
        self._persistence.start(generation)
        self.acceptance.begin(generation)

    async def _from_store(self, generation: Generation, ticket: Ticket) -> State | None:
        """Answer it with what is stored, if it may be and there is something."""
        if generation.key is not None and not generation.fresh:
            found = await self._persistence.find_by_key(generation.key, generation.owner)
            # What did not come to its end is tried again.
            if found is not None and found.state == State.DONE:
                check_key(
                    generation.key,
                    found.request_hash,
                    generation.request_hash,
                    generation.earlier_hash,
                )
                self._registry.rename(generation, found.id)
                generation.adopt(found)
                return State.DONE
        if generation.cache and sampling.is_deterministic(generation.params):
            return await self._from_cache(generation, ticket.slot_request.model)
        return None

    async def _from_cache(self, generation: Generation, model_key: str) -> State | None:
        """Answer it with a stored answer of the same model to the same request."""
        try:
            models = await self._pool.fingerprints(model_key)
        except RequestError as error:
            if error.code not in BLAMED:
                raise
            return None  # as without a cache: it is for the dispatcher to wait for another one
        for model, url in models:
            found = await self._persistence.find_cached(
                model, generation.request_hash, generation.owner
            )
            if found is not None and await self._is_kept(generation, found):
                generation.cached_from = found.id
                generation.model, generation.upstream = model, url
                self._keep(generation)
                await self.acceptance.wait(generation)
                generation.adopt_log(found.log, found.switches)
                name = found.model.get("name")
                generation.conclude(Outcome(found.reason, found.stop, name, found.usage))
                self._publisher.record(generation)
                return State.DONE
        return None

    async def _is_kept(self, generation: Generation, found: Result) -> bool:
        """Whether a stored answer keeps the constraint: one of an older server may not."""
        try:
            text = text_pieces(found.log.pieces, found.switches)
            await self._verify(generation.params, text, found.reason, found.stop)
        except UpstreamError:
            return False
        return True


def too_late(seconds: float) -> RequestError:
    """The error for a request whose time was over."""
    return RequestTimeout(f"not finished in {seconds:g} s", retry=True)


class Resumer:
    """Waits for an upstream that has the model, and continues on it, or says why that cannot be.

    Args:
        enter: a place in the queue for a generation; its readers see each move.
        ready: called with a generation when its upstream is there, and its readers' time begins.
        elsewhere: returns the names of the models that other servers of the cluster have: what
            needs one of these waits, and goes there.
    """

    def __init__(
        self,
        runner: Runner,
        pool: Pool,
        scheduler: Scheduler,
        enter: Callable[[Generation, SlotRequest], Ticket],
        ready: Callable[[Generation], None],
        elsewhere: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._elsewhere = elsewhere
        self._runner = runner
        self._pool = pool
        self._scheduler = scheduler
        self._enter = enter
        self._ready = ready
        self._looking = trio.Lock()
        self._changed = trio.Event()

    def look(self) -> None:
        """The pool has changed: what waits for an upstream looks for it."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, generation: Generation, entry: Recovered) -> None:
        """Run one to its end. Never raises, but when cancelled from outside."""
        last = entry.dispatched
        if last is not None:
            generation.model, generation.upstream = last.model, last.upstream
            generation.rendered = last.prompt
        work = functools.partial(self._continue, generation, entry)
        await self._runner.to_its_end(generation, work)

    async def _continue(self, generation: Generation, entry: Recovered) -> State:
        end = entry.concluded
        if end is not None:
            name = generation.model.get("name")
            generation.conclude(Outcome(end.reason, end.stop, name, end.usage))
            return await self._runner.verified(generation)
        await self._runner.check(generation)
        model_key = await self._group_of(generation, entry.dispatched)
        # Places are taken in the order in which they were taken first.
        ticket = self._enter(
            generation, self._runner.dispatcher.slot_request(generation, model_key)
        )
        try:
            self._ready(generation)
        except BaseException:
            self._scheduler.remove(ticket)
            raise
        with trio.move_on_after(generation.timeout):
            async with ticket:
                generation.dispatched()
                await self._runner.dispatcher.complete(generation, ticket)
            return await self._runner.verified(generation)
        raise too_late(generation.timeout)

    async def _group_of(self, generation: Generation, last: Dispatched | None) -> str:
        """The key of its model in the pool, once an upstream has it.

        Raises:
            RequestError: none of them does, with the code `interrupted`.
        """
        generation.stranded = True
        told, since = "", trio.current_time()
        while True:
            changed = self._changed  # before the look
            # One looks at a time, and in their order; but none waits for another one's model.
            async with self._looking:
                try:
                    model_key = await self._look(generation, last)
                except Interrupted:
                    raise
                except RequestError as error:
                    # Of thousands that wait for a moment, as after a takeover, nothing is said.
                    if error.message != told and trio.current_time() - since >= _RETRY:
                        told = error.message
                        reason = reason_of(error.code, told)
                        log.warning("resuming_waits", generation=generation.id, reason=reason)
                else:
                    generation.stranded = False
                    return model_key
            with trio.move_on_after(_RETRY):
                await changed.wait()
                await trio.sleep(_PAUSE)

    async def _look(self, generation: Generation, last: Dispatched | None) -> str:
        known = [one for one in self._pool.of("") if one.up]
        refusal: RequestError = UpstreamUnavailable("no upstream answers")
        found = 0
        for backend in known:
            try:
                await self._pool.properties(backend)
                found += 1
            except RequestError as error:
                refusal = error
        absent = any(one.absent for one in self._pool.of(""))
        if not found and not absent:
            raise refusal
        if last is None or not generation.count:
            return self._pool.key_of(generation.wanted)
        if last.model.get("hash"):
            for backend in known:
                if backend.upstream.properties is not None:
                    await backend.fingerprint.settled()
        model_key = self._pool.key_of_fingerprint(last.model)
        if model_key is None:
            self._ask_for(last.model)
            if found < sum(not one.absent for one in self._pool.of("")):
                raise UpstreamUnavailable("its model is not there yet")
            if any(not one.model_key for one in known):
                raise UpstreamUnavailable("which models the upstreams have is not known yet")
            if last.model.get("name") in self._elsewhere():
                raise UpstreamUnavailable("another server of the cluster has its model")
            raise Interrupted(
                "the server was stopped, and this cannot be continued: "
                + (
                    "the upstream has another model now"
                    if found == 1
                    else "no upstream has its model now"
                ),
                retry=True,
            )
        return model_key

    def _ask_for(self, model: dict[str, Any]) -> None:
        """Have its model loaded, where that is one that is loaded on demand.

        Raises:
            RequestError: wait for it; or, with the code `interrupted`, it cannot be loaded.
        """
        try:
            waits = self._pool.wanted_again(model)
        except RequestError as error:
            raise Interrupted(
                f"the server was stopped, and this cannot be continued: {error.message}", retry=True
            ) from None
        if waits is not None:
            raise waits

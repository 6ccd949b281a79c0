"""Goes on with generations that ran when the last server ended."""

from __future__ import annotations

import functools
from collections.abc import Callable

import structlog
import trio

from llcuda_net.errors import Interrupted, RequestError, UpstreamUnavailable
from llcuda_net.generation.generation import Generation, State
from llcuda_net.generation.outcome import Outcome
from llcuda_net.generation.runner import Runner, too_late
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.storage.records import Dispatched
from llcuda_net.storage.storage import Recovered
from llcuda_net.upstream.pool import Pool

log = structlog.get_logger(__name__)

#: Seconds between two looks for an upstream that has the model.
_RETRY = 1.0


class Resumer:
    """Waits for an upstream that has the model, and continues on it, or says why that cannot be.

    Args:
        enter: a place in the queue for a generation, which its readers are told.
        ready: called with a generation when its upstream is there, and its readers' time begins.
    """

    def __init__(
        self,
        runner: Runner,
        pool: Pool,
        scheduler: Scheduler,
        enter: Callable[[Generation, SlotRequest], Ticket],
        ready: Callable[[Generation], None],
    ) -> None:
        self._runner = runner
        self._pool = pool
        self._admission = scheduler
        self._enter = enter
        self._ready = ready
        self._looking = trio.Lock()

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
            return State.DONE
        model_key = await self._group_of(generation, entry.dispatched)
        # Places are taken in the order in which they were taken first.
        ticket = self._enter(
            generation, self._runner.dispatcher.slot_request(generation, model_key)
        )
        try:
            self._ready(generation)
        except BaseException:
            self._admission.remove(ticket)
            raise
        with trio.move_on_after(generation.timeout):
            async with ticket:
                generation.dispatched()
                await self._runner.dispatcher.complete(generation, ticket)
            return State.DONE
        raise too_late(generation.timeout)

    async def _group_of(self, generation: Generation, last: Dispatched | None) -> str:
        """The key of its model in the pool, once an upstream has it.

        Raises:
            RequestError: none of them does, with the code `interrupted`.
        """
        generation.stranded = True
        told = ""
        while True:
            # One looks at a time, and in their order; but none waits for another one's model.
            async with self._looking:
                try:
                    model_key = await self._look(generation, last)
                except Interrupted:
                    raise
                except RequestError as error:
                    if error.message != told:
                        told = error.message
                        log.warning("resuming_waits", generation=generation.id, reason=told)
                else:
                    generation.stranded = False
                    return model_key
            await trio.sleep(_RETRY)

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
        if not found:
            raise refusal
        if last is None or not generation.pieces:
            return self._pool.key_of(generation.wanted)
        if last.model.get("hash"):
            for backend in known:
                if backend.upstream.properties is not None:
                    await backend.fingerprint.settled()
        model_key = self._pool.key_of_fingerprint(last.model)
        if model_key is None:
            if found < len(self._pool.of("")):
                raise UpstreamUnavailable("its model is not there yet")
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

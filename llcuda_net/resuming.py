"""Goes on with generations that ran when the last server ended."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import structlog
import trio

from llcuda_net import continuation, params
from llcuda_net.admission import Admission, Ticket
from llcuda_net.errors import RequestError
from llcuda_net.generations import Generation, State
from llcuda_net.outcome import Outcome
from llcuda_net.runner import Runner, too_late
from llcuda_net.storage.pipeline import Recovered
from llcuda_net.storage.records import Dispatched
from llcuda_net.upstream.fingerprint import same_model
from llcuda_net.upstream.interface import Upstream
from llcuda_protocol import ErrorCode

log = structlog.get_logger(__name__)

#: Seconds between two looks at an upstream that is not there.
_RETRY = 1.0


class Resumer:
    """Waits for the upstream, and continues on it, or says why that cannot be.

    Args:
        ready: called with a generation when the upstream is there, and its readers' time begins.
    """

    def __init__(
        self,
        runner: Runner,
        upstream: Upstream,
        admission: Admission,
        ready: Callable[[Generation], None],
    ) -> None:
        self._runner = runner
        self._upstream = upstream
        self._admission = admission
        self._ready = ready
        self._looking = trio.Lock()

    async def run(self, generation: Generation, entry: Recovered, ticket: Ticket) -> None:
        """Run one to its end. Never raises, but when cancelled from outside."""
        last = entry.dispatched
        if last is not None:
            generation.model, generation.upstream = last.model, last.upstream
        work = functools.partial(self._continue, generation, entry, ticket)
        await self._runner.to_its_end(generation, work)

    async def _continue(self, generation: Generation, entry: Recovered, ticket: Ticket) -> State:
        end = entry.concluded
        if end is not None:
            self._admission.leave(ticket)
            name = generation.model.get("name")
            generation.conclude(Outcome(end.reason, end.stop, name, end.usage))
            return State.DONE
        try:
            await self._upstream_is_there(generation)
            self._ready(generation)
        except BaseException:
            self._admission.leave(ticket)
            raise
        with trio.move_on_after(generation.timeout):
            async with ticket:
                plan = await self._planned(generation, entry)
                if plan is not None:
                    generation.continued(plan.tokens)
                if plan is not None and plan.finished is not None:
                    usage = {
                        "completion_tokens": plan.tokens,
                        "prompt_tokens": plan.prompt_tokens,
                    }
                    name = generation.model.get("name")
                    generation.conclude(Outcome(plan.finished, plan.stop, name, usage))
                    return State.DONE
                generation.dispatched()
                last = entry.dispatched
                rendered = None if last is None else last.prompt
                await self._runner.complete(generation, plan, rendered)
            return State.DONE
        raise too_late(generation.timeout)

    async def _upstream_is_there(self, generation: Generation) -> None:
        generation.stranded = True
        async with self._looking:  # one asks for all
            told = ""
            while True:
                try:
                    await self._runner.properties()
                    break
                except RequestError as error:
                    if error.message != told:
                        told = error.message
                        log.warning("resuming_waits", reason=told)
                await trio.sleep(_RETRY)
        generation.stranded = False

    async def _planned(self, generation: Generation, entry: Recovered) -> continuation.Plan | None:
        """How it goes on; None: from the beginning.

        Raises:
            RequestError: it cannot, with the code `interrupted`.
        """
        while True:
            await self._upstream_is_there(generation)
            try:
                return await self._plan(generation, entry)
            except continuation.CannotContinue as error:
                raise RequestError(
                    ErrorCode.INTERRUPTED,
                    f"the server was stopped, and this cannot be continued: {error}",
                    retry=True,
                ) from None
            except RequestError as error:
                if not error.retry:
                    raise
            await trio.sleep(_RETRY)

    async def _plan(self, generation: Generation, entry: Recovered) -> continuation.Plan | None:
        context = (await self._runner.properties()).context
        generation.params = params.within(generation.params, context)
        if not generation.pieces:
            return None
        last = entry.dispatched
        prompt = generation.prompt
        if last is not None:
            await self._check_model(last)
            prompt = prompt if last.prompt is None else last.prompt
        if prompt is None:
            assert generation.messages is not None
            prompt = await self._runner.render(generation.messages)
        checked: dict[str, Any] = params.check(generation.params, context)
        return await continuation.plan(prompt, checked, entry.log, self._upstream)

    async def _check_model(self, last: Dispatched) -> None:
        if last.model.get("hash"):
            await self._runner.fingerprint.settled()
        if not same_model(last.model, self._runner.fingerprint()):
            raise continuation.CannotContinue("the upstream has another model now")

"""Upstreams of a pool under test: their answers are known in advance, and they fail on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import RequestError, UpstreamError, UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import (
    Candidate,
    CompletionEvent,
    OnEvents,
    Probabilities,
    Properties,
    Timings,
)
from llcuda_net.upstream.llama.token_stream import stalled
from llcuda_net.upstream.model.identity import PROBE_PROMPT
from tests.support.server.memory_server import FakeUpstream

#: Seconds without a token after which a talker's completion stalls, as LlamaServer's do.
STALL = 30.0
PROMPT = "tell:"
TEXT = "tell: one two three four"
ANSWER = TEXT.removeprefix(PROMPT)


def gone(message: str = "the upstream was lost") -> RequestError:
    return UpstreamUnavailable(message, retry=True)


def broken(message: str = "the upstream answered 500") -> RequestError:
    return UpstreamError(message, retry=True)


class Talker(FakeUpstream):
    """A model of bytes that continues its prompt with what comes behind it in TEXT.

    Attributes:
        text: what it says instead of TEXT.
        says: its properties, when it is asked.
        logprobs: what it thinks of the probe's prompt, by token; None: no probabilities.
        away: every request fails with this.
        silent: nothing is answered, ever.
        mute: it says that it is well, and makes no token.
        refuses: every completion fails with this at once, that of a probe included.
        fails: each completion fails with this after `fail_after` tokens.
        has_slots: whether it has /slots.
        lingers: what was broken off works on until `finish`.
        working: slots at work; adding to it is somebody else's work.
        collisions: requests that came to a slot at work.
        cached: tokens that it says it had of each prompt.
    """

    def __init__(self, *, model: str = "fake", slots: int = 2, context: int = 512) -> None:
        super().__init__(slots=slots, context=context)
        assert self.properties is not None
        self.says = replace(self.properties, model=model)
        self.properties = None
        self.model = model
        self.text = TEXT
        self.logprobs: dict[int, float] | None = {n: -0.5 - n for n in range(20)}
        self.away: RequestError | None = None
        self.silent = False
        self.mute = False
        self.refuses: RequestError | None = None
        self.fails: RequestError | None = None
        self.has_slots = True
        self.lingers = False
        self.working: set[int] = set()
        self.collisions = 0
        self.cached = 0
        self.probes = 0
        self.embedded = 0
        self._streams: set[trio.CancelScope] = set()
        self._lost: RequestError | None = None

    # -- what a test does with it -------------------------------------------------------------

    def die(self, error: RequestError | None = None) -> None:
        """Its process ends: what runs is lost, and nobody answers."""
        self.away = self._lost = error or gone()
        self.working.clear()
        for scope in self._streams:
            scope.cancel()

    def lose(self, error: RequestError | None = None) -> None:
        """Its streams are lost, and it goes on."""
        self._lost = error or gone()
        for scope in self._streams:
            scope.cancel()

    def back(self, **changes: Any) -> None:
        """Another process answers."""
        self.away, self.silent, self.mute = None, False, False
        self.says = replace(self.says, **changes)
        self.model = self.says.model

    def finish(self) -> None:
        """What was broken off has ended by now."""
        self.working.clear()

    # -- what the server does -----------------------------------------------------------------

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        if self.away is not None:
            self.properties = None
            raise self.away

    async def ask(self) -> Properties:
        if self.properties is None:
            await self._answer()
            self.properties = replace(self.says)
        return self.properties

    async def check(self) -> None:
        await self._answer()

    async def slots(self) -> list[bool] | None:
        await self._answer()
        if not self.has_slots:
            return None
        return [number in self.working for number in range(self.says.slots)]

    def forget(self) -> None:
        super().forget()
        self.properties = None

    async def embed(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await self._answer()
        self.embedded += len(texts)
        return await super().embed(texts)

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        await self._answer()
        if self.refuses is not None:
            raise self.refuses
        probe = prompt == PROBE_PROMPT
        if probe:
            self.probes += 1
        else:
            self.calls.append(params)
            self.prompts.append(prompt)
        number = params.get("id_slot", 0)
        self.collisions += number in self.working
        self.working.add(number)
        self.active += 1
        scope = trio.CancelScope()
        self._streams.add(scope)
        ended = False
        try:
            on_sent()
            with scope:
                if self.mute:
                    await trio.sleep(STALL)
                    raise stalled(STALL)
                if probe:
                    self._say_probe(on_events)
                else:
                    await self._say(prompt, params, on_events)
                ended = True
                return
            assert self._lost is not None
            raise self._lost
        finally:
            self._streams.discard(scope)
            self.active -= 1
            if ended or not self.lingers:
                self.working.discard(number)

    def _say_probe(self, on_events: OnEvents) -> None:
        found = None
        if self.logprobs is not None:
            top = [Candidate(id=n, logprob=value) for n, value in self.logprobs.items()]
            found = [Probabilities(id=0, top_logprobs=top)]
        on_events([CompletionEvent("x", completion_probabilities=found)])
        on_events([CompletionEvent(stop=True, stop_type="limit", model=self.model)])

    async def _say(
        self, prompt: str | list[int], params: dict[str, Any], on_events: OnEvents
    ) -> None:
        ids = await self.tokenize(prompt, special=True) if isinstance(prompt, str) else prompt
        so_far = bytes(ids[1:]).decode()
        rest = self.text.removeprefix(so_far) if self.text.startswith(so_far) else " fine"
        count = 0
        for letter in rest[: params["n_predict"]]:
            if self.fails is not None and count == self.fail_after:
                raise self.fails
            if self.paused:
                with trio.move_on_after(STALL) as stall:
                    await self._gate.acquire()
                if stall.cancelled_caught:
                    raise stalled(STALL)
            count += 1
            event = CompletionEvent(letter, tokens=[ord(letter)], tokens_predicted=count)
            on_events([event])
            self.poller.end_batch()
            await trio.lowlevel.checkpoint()
        if self.fails is not None and count == self.fail_after:
            raise self.fails
        final = CompletionEvent(
            stop=True,
            stop_type="eos" if count == len(rest) else "limit",
            tokens_predicted=count,
            tokens_evaluated=len(ids),
            model=self.model,
            timings=Timings(cache_n=self.cached),
        )
        on_events([final])


def backend(upstream: Talker, name: str = "a", **spec: Any) -> Backend:
    upstream.base_url = f"fake://{name}"
    return Backend(UpstreamSpec(upstream.base_url, name, **spec), upstream)


def backends(*upstreams: Talker, **spec: Any) -> list[Backend]:
    """One backend each, named a, b, c."""
    return [backend(one, name, **spec) for one, name in zip(upstreams, "abcdef", strict=False)]


async def known(slots: int = 2) -> Backend:
    """A backend whose properties are known, and that may be down."""
    found = backend(Talker(slots=slots))
    found.watched = True
    assert found.learn(await found.upstream.ask())
    return found

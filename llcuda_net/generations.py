"""The generation: the server's run of a request, which belongs to nobody's connection.

It has an id, a state and an ordered token log. Streams read the log at their own pace, so a slow
reader never holds it up; the log is bounded by n_predict and the context.
"""

from __future__ import annotations

import math
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.completion import CompletionEvent, Probabilities
from llcuda_protocol import Done, Error, TokenLogprob, TopToken


class State(StrEnum):
    """Where a generation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


#: Which state may follow which.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED, State.INTERRUPTED}),
    State.RUNNING: frozenset({State.DONE, State.FAILED, State.CANCELLED, State.INTERRUPTED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.INTERRUPTED: frozenset(),
}

#: The logarithm of a probability that llama-server rounded to nothing: of the smallest double.
_LOG_ZERO = math.log(5e-324)
#: llama-server's stop types in our words.
_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}


@dataclass(slots=True)
class Times:
    """When each phase was over, on the monotonic clock in seconds; None while it is not."""

    received: float
    dispatched: float | None = None
    rendered: float | None = None
    sent: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    over: float | None = None
    stored: float | None = None

    def phases(self, now: float, prompt_ms: float) -> dict[str, float]:
        """Milliseconds by phase, as SPEC.md names them, of the phases that there were."""
        marks = {
            "queue": (self.received, self.dispatched),
            "template": (self.dispatched, self.rendered),
            "connect": (self.rendered or self.dispatched, self.sent),
            "first_token": (self.sent, self.first_token),
            "generation": (self.first_token, self.last_token),
            "persist": (self.over, self.stored),
            "total": (self.received, now),
        }
        phases = {
            name: round((end - start) * 1e3, 3)
            for name, (start, end) in marks.items()
            if start is not None and end is not None
        }
        if prompt_ms:
            phases["prompt"] = round(prompt_ms, 3)
        return phases


@dataclass(slots=True, eq=False)
class Generation:
    """One run of a request.

    Attributes:
        pieces: the text so far, one entry an event of the upstream.
        ids: beside each piece, the id of its last token, or None.
        logprobs: beside each piece its tokens; None unless n_probs asked for them.
        accepted: whether the request is as safe as its level says; nothing is sent before.
        visible: how many pieces may be sent: those that are as safe as the level says.
        on_change: called after the log grew or the generation ended; one entry a stream.
    """

    prompt: str | list[int] | None
    messages: list[dict[str, str]] | None
    params: dict[str, Any]
    timeout: float
    id: str = field(default_factory=lambda: uuid7())
    state: State = State.QUEUED
    pieces: list[str] = field(default_factory=list)
    ids: list[int | None] = field(default_factory=list)
    logprobs: list[list[TokenLogprob]] | None = None
    times: Times = field(default_factory=lambda: Times(trio.current_time()))
    level: str = "memory"
    accepted: bool = False
    visible: int = 0
    position: int = 0
    error: RequestError | None = None
    final: CompletionEvent | None = None
    on_change: list[Callable[[], None]] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        if self.params.get("n_probs"):
            self.logprobs = []

    @property
    def ended(self) -> bool:
        """Whether it is over, however it ended."""
        return not TRANSITIONS[self.state]

    def move(self, state: State) -> None:
        """Change the state, and tell the streams."""
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a generation cannot go from {self.state} to {state}")
        self.state = state
        self.notify()

    def notify(self) -> None:
        """Tell the streams that there is something to send."""
        for callback in tuple(self.on_change):
            callback()

    def accept(self) -> None:
        """The request is as safe as its level says: tell the streams."""
        self.accepted = True
        self.notify()

    def show(self, count: int) -> None:
        """Let the streams send the first `count` pieces."""
        self.visible = count
        self.notify()

    def extend(self, events: list[CompletionEvent]) -> bool:
        """Append what the upstream sent in one go; whether the log grew.

        The streams are told by `show`, after the new entries were kept.
        """
        now = trio.current_time()
        grown = False
        for event in events:
            if event.stop:
                self.final = event
            if event.content or event.completion_probabilities:
                self.pieces.append(event.content)
                self.ids.append(event.tokens[-1] if event.tokens else None)
                if self.logprobs is not None:
                    found = event.completion_probabilities or []
                    self.logprobs.append([_logprob(p) for p in found])
                grown = True
        if grown:
            if self.times.first_token is None:
                self.times.first_token = now
            self.times.last_token = now
        return grown

    def dispatched(self) -> None:
        """It holds a slot of the upstream."""
        self.times.dispatched = trio.current_time()
        self.move(State.RUNNING)

    def sent(self) -> None:
        """The upstream has the request."""
        self.times.sent = trio.current_time()

    def end(self, state: State, error: RequestError | None, *, kept: bool = True) -> None:
        """End it; the streams send what may be sent, and then how it ended.

        Args:
            kept: whether all of the log is as safe as its level says.
        """
        self.error = error
        if kept:
            self.visible = len(self.pieces)
        self.move(state)

    def cancel(self) -> None:
        """Stop it; its task then ends it as cancelled."""
        self.scope.cancel()

    def hand_back(self, error: RequestError) -> None:
        """Stop it because the server stops; its task then ends it with that error."""
        if not self.ended:
            self.error = error
            self.scope.cancel()

    @property
    def reason(self) -> str:
        """Why it finished: "stop" or "length"."""
        return _REASONS.get(self.final.stop_type if self.final else "", "stop")

    @property
    def stop(self) -> str | None:
        """The stop string that ended it."""
        return (self.final.stopping_word if self.final else "") or None

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of prompt and answer, as SPEC.md names them."""
        final = self.final
        if final is None:
            return {"completion_tokens": len(self.pieces)}
        usage = {"completion_tokens": final.tokens_predicted}
        if final.tokens_evaluated:
            usage["prompt_tokens"] = final.tokens_evaluated
        if final.timings is not None:
            usage["cached_tokens"] = final.timings.cache_n
        return usage

    def phases(self) -> dict[str, float]:
        """Milliseconds by phase until now."""
        timings = self.final.timings if self.final else None
        return self.times.phases(trio.current_time(), 0.0 if timings is None else timings.prompt_ms)

    def ending(self, stream: int) -> Done | Error:
        """The last frame of a stream that reads this generation."""
        error = self.error
        if self.state is State.FAILED and error is not None:
            return Error(stream, error.code, error.message, error.retry, error.retry_after)
        return Done(
            stream,
            reason="cancelled" if self.state is State.CANCELLED else self.reason,
            id=self.id,
            model=(self.final.model[:256] if self.final else "") or None,
            stop=self.stop,
            usage=self.usage,
            timings=self.phases(),
        )


def _logprob(found: Probabilities) -> TokenLogprob:
    top = found.top_logprobs or found.top_probs
    return TokenLogprob(
        found.id,
        bytes(found.bytes),
        _natural_log(found.logprob, found.prob),
        tuple(TopToken(c.id, bytes(c.bytes), _natural_log(c.logprob, c.prob)) for c in top),
    )


def _natural_log(logprob: float | None, prob: float | None) -> float:
    if logprob is not None:
        return logprob
    return math.log(prob) if prob else _LOG_ZERO


def uuid7() -> str:
    """A UUID that sorts by time: RFC 9562, section 5.7, with random bits after the milliseconds."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | (7 << 76)
    value = value & ~(0b11 << 62) | (0b10 << 62)
    return str(uuid.UUID(int=value))

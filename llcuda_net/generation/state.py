"""Where a generation stands, when each phase was over, and what its readers get at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from llcuda_net.errors import RequestError, request_error
from llcuda_net.storage.records import Result, packed
from llcuda_net.upstream.interface import CompletionEvent, Probabilities
from llcuda_protocol import ErrorCode

#: llama-server's stop types in our words.
_REASONS = {"eos": "stop", "word": "stop", "limit": "length", "tool_calls": "tool_calls"}
#: The logarithm of a probability that llama-server rounded to nothing: of the smallest double.
_LOG_ZERO = math.log(5e-324)


class State(StrEnum):
    """Where a generation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


#: Which state may follow which. What is answered from the store is done without having run.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(State) - {State.QUEUED},
    State.RUNNING: frozenset(State) - {State.QUEUED, State.RUNNING},
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.INTERRUPTED: frozenset(),
}


class Reader(Protocol):
    """What reads a generation: a stream of a client."""

    def pump(self) -> None:
        """Send what can be sent now: the log, the state or the durable part has grown."""


class Place(NamedTuple):
    """Where a generation stands in the queue; see scheduler.ticket.Ticket."""

    position: int = 0
    wait: float | None = None
    reason: str = ""


NOT_QUEUED = Place()


class Failover(NamedTuple):
    """An upstream failed, and the generation continues.

    Attributes:
        position: the number of the piece before which that was; 0: nobody has seen anything.
        at: when, on trio's clock.
        epoch: of the pieces from there on, where another server goes on with it; else 0.
    """

    position: int
    reason: str
    at: float
    epoch: int = 0


@dataclass(slots=True)
class Times:
    """When each phase was over, on the monotonic clock in seconds; None while it is not.

    Attributes:
        replayed: when the last token came that was in the log already; see Replay.
    """

    received: float
    dispatched: float | None = None
    rendered: float | None = None
    sent: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    over: float | None = None
    stored: float | None = None
    replayed: float | None = None

    @property
    def progress(self) -> float:
        """When an upstream last made a token for it; 0 before the first one."""
        return max(self.last_token or 0.0, self.replayed or 0.0)

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What readers get at the end of a generation.

    Attributes:
        reason: "stop", "length" or "tool_calls"; empty where it did not come to its end.
        stop: the stop string that ended it.
        model: its name, as the upstream reports it.
        usage: tokens of prompt and answer, as SPEC.md names them.
        timings: as SPEC.md names them; None: what was measured here.
    """

    reason: str = ""
    stop: str | None = None
    model: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] | None = None


def outcome_of(final: CompletionEvent | None, before: int, predicted: int) -> Outcome:
    """What an upstream's last event says of the end.

    Args:
        final: that event; None while there is none.
        before: tokens before the last continuation, which were part of its prompt.
        predicted: tokens since, by the upstream's count; they count where it gave no last event.
    """
    if final is None:
        return Outcome("stop", usage={"completion_tokens": before + predicted})
    usage = {"completion_tokens": before + final.tokens_predicted}
    # The prompt of a continuation is that of the request, and what was generated before.
    prompt = final.tokens_evaluated - before
    if prompt > 0:
        usage["prompt_tokens"] = prompt
    if final.timings is not None:
        usage["cached_tokens"] = min(final.timings.cache_n, max(0, prompt))
    return Outcome(
        _REASONS.get(final.stop_type, "stop"),
        final.stopping_word or None,
        final.model[:256] or None,
        usage,
    )


def stored_outcome(result: Result) -> Outcome:
    """What a stored result says of the end."""
    name = result.model.get("name") or None
    return Outcome(result.reason, result.stop, name, result.usage, result.timings)


def stored_error(result: Result) -> RequestError | None:
    """The error with which a stored result ended, if it did."""
    if result.error is None:
        return None
    return request_error(
        str(result.error.get("code", ErrorCode.INTERNAL)),
        str(result.error.get("message", "")),
        retry=bool(result.error.get("retry")),
    )


def packed_token(found: Probabilities, most: int) -> msgspec.Raw:
    """A token with its candidates, as Logprobs have it.

    Args:
        most: candidates that were asked for; more are left out.
    """
    top = found.top_logprobs or found.top_probs
    return packed(
        (
            found.id,
            bytes(found.bytes),
            _natural_log(found.logprob, found.prob),
            [(c.id, bytes(c.bytes), _natural_log(c.logprob, c.prob)) for c in top[:most]],
        )
    )


def _natural_log(logprob: float | None, prob: float | None) -> float | None:
    """None where neither is known."""
    if logprob is not None:
        return logprob
    if prob is None:
        return None
    return math.log(prob) if prob else _LOG_ZERO

"""How a generation went: when each phase was over, and what its readers get at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec

from llcuda_net.storage.records import packed
from llcuda_net.upstream.interface import Probabilities

#: The logarithm of a probability that llama-server rounded to nothing: of the smallest double.
_LOG_ZERO = math.log(5e-324)


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What readers get at the end of a generation that this server did not run.

    Attributes:
        reason: "stop" or "length"; empty where it did not come to its end.
        stop: the stop string that ended it.
        usage, timings: as SPEC.md names them; timings None: what was measured here.
    """

    reason: str = ""
    stop: str | None = None
    model: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] | None = None


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

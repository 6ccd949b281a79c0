"""How a generation went: when each phase was over, and what its readers get at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llcuda_net.upstream.interface import Probabilities
from llcuda_protocol import TokenLogprob, TopToken

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


def logprob_of(found: Probabilities) -> TokenLogprob:
    """A token with its candidates, as the wire has them."""
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


def plain(logprobs: Sequence[Sequence[TokenLogprob]]) -> list[list[Any]]:
    """Log-probabilities as lists, as they are stored: one entry a piece."""
    return [
        [(t.id, t.bytes, t.logprob, [(c.id, c.bytes, c.logprob) for c in t.top]) for t in piece]
        for piece in logprobs
    ]


def from_plain(logprobs: Sequence[Sequence[Any]]) -> list[list[TokenLogprob]]:
    """What `plain` made lists of."""
    return [
        [
            TokenLogprob(id_, bytes_, logprob, tuple(TopToken(*candidate) for candidate in top))
            for id_, bytes_, logprob, top in piece
        ]
        for piece in logprobs
    ]

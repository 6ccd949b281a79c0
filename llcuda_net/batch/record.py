"""What is known of one request: when it was meant to be sent, when what came, and how it ended."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

#: The ways that a request may take: to an llcuda-server, to another server, and to the second one
#: of a comparison, whichever it is.
GATEWAY, SERVER, DIRECT = "gateway", "server", "direct"


class Outcome(StrEnum):
    """How a request ended. Only DONE has a latency; of CUT and TIMEOUT a lower bound is known."""

    DONE = "done"
    REFUSED = "refused"  # the server said no: its queue was full, say
    FAILED = "failed"  # it broke on the way, or the server is not there
    TIMEOUT = "timeout"  # it took longer than --timeout allows
    CUT = "cut"  # the measurement ended first: it took at least so long


@dataclass(slots=True)
class Record:
    """One request. All times are in seconds since the run's start.

    Attributes:
        number: its place in the schedule, which also chooses its prompt.
        path: the way it took: GATEWAY, SERVER or DIRECT.
        intended: when it was meant to be sent; in a closed loop, when its worker was free.
        sent: when it was; nan if it never was.
        chunks: when each piece of the answer arrived.
        ended: when the answer was complete, or it was given up.
        tokens: completion tokens, as the server counted them.
        counted: False where the server gave no count, and `tokens` is the number of pieces.
        warmup: it belongs to the time before the measurement, or after it.
        phases: milliseconds by phase, as the server reports them.
        session: its session's number; None where sessions have one turn.
        turn: its place in the session, from 0.
        last: no turn follows this one.
        wanted_prompt, wanted_tokens: tokens that prompt and answer were meant to have; None where
            nobody said.
        post: seconds of work done on the answer afterwards; None where there was none.
    """

    number: int
    intended: float
    path: str = SERVER
    sent: float = math.nan
    chunks: array[float] = field(default_factory=lambda: array("d"))
    ended: float = math.nan
    outcome: Outcome = Outcome.CUT
    error: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = True
    warmup: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    session: int | None = None
    turn: int = 0
    last: bool = False
    wanted_prompt: int | None = None
    wanted_tokens: int | None = None
    post: float | None = None

    @property
    def done(self) -> bool:
        """Whether the whole answer came."""
        return self.outcome is Outcome.DONE

    @property
    def lag(self) -> float:
        """How much later than intended it was sent: this side's fault, not the server's."""
        return self.sent - self.intended

    @property
    def ttft(self) -> float | None:
        """Time to first token, from the intended moment."""
        return self.chunks[0] - self.intended if self.chunks else None

    @property
    def service_ttft(self) -> float | None:
        """Time to first token, from the sending."""
        return self.chunks[0] - self.sent if self.chunks else None

    @property
    def latency(self) -> float:
        """End to end, from the intended moment."""
        return self.ended - self.intended

    @property
    def service(self) -> float:
        """End to end, from the sending: what the answer took, had nobody waited to ask."""
        return self.ended - self.sent

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None of fewer than two."""
        if self.tokens < 2 or len(self.chunks) < 2:
            return None
        return (self.chunks[-1] - self.chunks[0]) / (self.tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Times between chunks: what a reader sees as steady or jerky."""
        return [b - a for a, b in zip(self.chunks, self.chunks[1:], strict=False)]


#: Names of what is measured of each finished request, with what they mean.
METRICS: dict[str, tuple[str, Callable[[Record], float | None]]] = {
    "ttft": ("time to first token, from the intended moment", lambda r: r.ttft),
    "tpot": ("time per output token after the first", lambda r: r.tpot),
    "latency": ("end to end, from the intended moment", lambda r: r.latency),
    "service_ttft": ("time to first token, from the sending", lambda r: r.service_ttft),
    "service": ("end to end, from the sending", lambda r: r.service),
    "lag": ("dispatch lag: sent later than intended, by the client's fault", lambda r: r.lag),
}
GAP = "gap"
GAP_MEANING = "between two chunks of one answer"


def measured(records: Iterable[Record], path: str | None = None) -> list[Record]:
    """The records that count: after the warm-up, of one path where one is named."""
    return [r for r in records if not r.warmup and path in (None, r.path)]


def values(records: Iterable[Record], metric: str) -> list[list[float]]:
    """The metric in seconds of each finished request, in order; several only of gaps."""
    done = [record for record in records if record.done]
    if metric == GAP:
        return [record.gaps for record in done]
    get = METRICS[metric][1]
    found = (get(record) for record in done)
    return [[value] for value in found if value is not None]


def outcomes(records: Iterable[Record]) -> dict[str, int]:
    """How many ended how; every outcome is named."""
    counts = dict.fromkeys(map(str, Outcome), 0)
    for record in records:
        counts[record.outcome] += 1
    return counts

"""The servers of known truth on which the tools are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tools.synthetic.known.service import Service
from tools.synthetic.known.truth import truth


@dataclass(frozen=True, slots=True)
class Case:
    """A server and what it is asked.

    Attributes:
        service: see tools/synthetic/known/service.py; `slots` answers at a time.
        rate: Poisson arrivals, requests/s.
        seconds: how long the tools are told to measure.
        tokens: of each answer.
        why: what it shows.
    """

    name: str
    title: str
    service: str
    slots: int
    rate: float
    seconds: float
    why: str
    tokens: int = 16

    @property
    def truth(self) -> dict[str, Any]:
        """What is true in the long run."""
        return truth(Service.parse(self.service), self.slots, self.rate, self.tokens)

    @property
    def options(self) -> list[str]:
        """Of tools/synthetic_upstream.py."""
        return ["--service", self.service, "--slots", str(self.slots)]

    def shortened(self, factor: float) -> Case:
        """The same for another time."""
        return replace(self, seconds=self.seconds * factor)


CASES = (
    Case(
        "fixed",
        "Every answer takes 3.0 s, 256 slots",
        "fixed:3",
        256,
        4,
        30,
        "nothing queues: every figure is 3.0 s, and the rate is what comes",
    ),
    Case(
        "bimodal",
        "A third of the answers takes 0.4 s, the others 6.05 s; a short run",
        "bimodal:0.4:6.05:0.3333",
        256,
        8,
        12,
        "who leaves out what is under way at the end counts the short answers",
    ),
    Case("mm1-50", "M/M/1 at a load of 0.5", "exponential:0.1", 1, 5, 60, "a queue"),
    Case(
        "mm1-80",
        "M/M/1 at a load of 0.8",
        "exponential:0.1",
        1,
        8,
        60,
        "a queue whose times follow from how even the arrivals are",
    ),
    Case(
        "stall",
        "0.2 s, and a stall of 1 s every 10 s",
        "stall:1:10:0.2",
        256,
        8,
        60,
        "who asks less while the server stalls does not see it",
    ),
)

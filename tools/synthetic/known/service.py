"""Laws of the service time: when each token of an answer comes, from the answer's begin on.

The answers draw in the order in which they begin, from one seeded generator, so the same seed gives
the same service times whoever asks.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from .laws import Law, atoms, exponential
from .stalls import Stalls

#: Every kind with its parameters and what it does; all times in seconds.
KINDS = {
    "fixed": ("TIME", "every answer takes TIME"),
    "bimodal": ("A:B[:SHARE]", "a SHARE (0.5) of the answers takes A, the others B"),
    "exponential": ("MEAN", "exponential times: M/M/c with c slots and Poisson arrivals"),
    "stall": ("STALL:EVERY:TIME", "every answer takes TIME; nothing happens for STALL every EVERY"),
    "gaps": ("GAP:SPIKE:SHARE", "tokens GAP apart, a SHARE of them SPIKE instead"),
}


@dataclass(frozen=True, slots=True)
class Service:
    """A law of the service time.

    Attributes:
        kind: of KINDS.
        values: its parameters.
        first: share of an answer's time that goes by before its first token; None: tokens are
            equally far apart, the first from the begin. Not for "gaps".
    """

    kind: str
    values: tuple[float, ...]
    first: float | None = None

    @classmethod
    def parse(cls, text: str, first: float | None = None) -> Service:
        """A law from KIND:PARAMETERS.

        Raises:
            ValueError: the text names none.
        """
        kind, *words = text.split(":")
        if kind not in KINDS:
            raise ValueError(f"{text!r} is no service: KIND one of {', '.join(KINDS)}")
        form = f"{kind}:{KINDS[kind][0]}"
        most = form.count(":")
        try:
            values = tuple(float(word) for word in words)
        except ValueError:
            raise ValueError(f"{text!r} is not {form}") from None
        if kind == "bimodal" and len(values) == 2:
            values = (*values, 0.5)
        if len(values) != most or not all(math.isfinite(v) and v > 0 for v in values):
            raise ValueError(f"{text!r} is not {form}, each above 0")
        if kind in ("bimodal", "gaps") and values[2] >= 1:
            raise ValueError(f"{text!r}: SHARE must be under 1")
        if kind == "stall" and values[0] + values[2] >= values[1]:
            raise ValueError(f"{text!r}: STALL and TIME together must be shorter than EVERY")
        if kind == "gaps" and first is not None:
            raise ValueError("gaps: the first token comes after a gap, too")
        return cls(kind, values, first)

    def share_before_first(self, tokens: int) -> float:
        """Share of an answer's time before its first token."""
        return 1 / max(tokens, 1) if self.first is None else self.first

    def draw(self, rng: random.Random, tokens: int) -> list[float]:
        """When the tokens of the next answer come, in seconds from its begin; one at least."""
        count = max(tokens, 1)
        if self.kind == "gaps":
            gap, spike, share = self.values
            at, out = 0.0, []
            for _ in range(count):
                at += spike if rng.random() < share else gap
                out.append(at)
            return out
        return self._spread(self._time(rng), count)

    def _time(self, rng: random.Random) -> float:
        if self.kind == "bimodal":
            a, b, share = self.values
            return a if rng.random() < share else b
        if self.kind == "exponential":
            return rng.expovariate(1 / self.values[0])
        return self.values[-1]

    def _spread(self, time: float, count: int) -> list[float]:
        head = time * self.share_before_first(count)
        if count == 1:
            return [time]
        gap = (time - head) / (count - 1)
        return [head + gap * n for n in range(count - 1)] + [time]

    def law(self, tokens: int) -> Law:
        """The law of the whole answer's service time."""
        if self.kind == "bimodal":
            a, b, share = self.values
            return atoms({a: share, b: 1 - share})
        if self.kind == "exponential":
            return exponential(self.values[0])
        if self.kind == "gaps":
            gap, spike, share = self.values
            n = max(tokens, 1)
            return atoms({gap * (n - k) + spike * k: _binomial(n, k, share) for k in range(n + 1)})
        return atoms({self.values[-1]: 1.0})

    def gap_law(self, tokens: int) -> Law | None:
        """The law of the time between two tokens; None where there is none to tell."""
        if tokens < 2 or self.kind == "stall":
            return None
        if self.kind == "gaps":
            gap, spike, share = self.values
            return atoms({gap: 1 - share, spike: share})
        share = (1 - self.share_before_first(tokens)) / (tokens - 1)
        return self.law(tokens).scaled(share)

    def first_law(self, tokens: int) -> Law:
        """The law of the service time up to the first token."""
        if self.kind == "gaps":
            return self.law(1)
        return self.law(tokens).scaled(self.share_before_first(tokens))

    def done(self, begin: float, work: float) -> float:
        """When work is done that begins at a moment; both in seconds."""
        if self.kind == "stall":
            return Stalls(*self.values[:2]).done(begin, work)
        return begin + work


def _binomial(n: int, k: int, share: float) -> float:
    return math.comb(n, k) * share**k * (1 - share) ** (n - k)

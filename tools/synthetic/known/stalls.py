"""A clock that stands still: nothing happens for so long every so often."""

from __future__ import annotations

from dataclasses import dataclass

from .laws import Law


@dataclass(frozen=True, slots=True)
class Stalls:
    """Stalls of `seconds`, the last ones of every period of `every` seconds from moment 0 on."""

    seconds: float
    every: float

    def done(self, begin: float, work: float) -> float:
        """The moment at which `work` seconds of work are done that begin at `begin`."""
        run = self.every - self.seconds  # of a period, before its stall
        period, phase = divmod(begin, self.every)
        whole, rest = divmod(min(phase, run) + work, run)
        if rest == 0 and work > 0:  # it ends just as a stall begins
            whole, rest = whole - 1, run
        elif work == 0:
            return begin
        return (period + whole) * self.every + rest

    def law(self, work: float) -> Law:
        """The response time of `work` seconds that begin at any moment of a period alike.

        With T = every, S = seconds and work < T - S there are three kinds of moment: in the stall
        (share S/T: uniform over work to work + S), so late that the stall comes before the end
        (work/T: work + S), and all others (work).
        """
        s, t = self.seconds, self.every

        def below(x: float) -> float:
            if x < work:
                return 0.0
            if x >= work + s:
                return 1.0
            return (t - s - work) / t + (x - work) / t

        return Law(work + s * (s / 2 + work) / t, below, work + s)

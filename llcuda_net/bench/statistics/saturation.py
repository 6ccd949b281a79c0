"""Whether an offered rate is carried, or whether what is under way grows without end.

What is carried is what is offered less the growth of what is under way, not the answers that end
in a window over the requests that come in it: those differ whenever more, or fewer, are under way
at its end than at its begin, which they do on any server in a window as short as a few answers. So
the growth is tested, over several windows that are independent of each other, in two ways that must
agree (J. Little, "A Proof for the Queuing Formula L = λW", 1961, makes them one in the long run):

- in number: how many more are under way at the window's end than at its begin;
- in time: by how much an answer takes longer with each second. Offered r of a capacity c, the wait
  grows by r/c - 1 seconds a second.

A server that is offered just what it carries has a queue that grows, too, as the root of time
(reflected Brownian motion: J. Harrison, "Brownian Motion and Stochastic Flow Systems", 1985). Only
growth beyond that is saturation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.statistics.censored import cut_share
from llcuda_net.bench.statistics.estimates import Estimate, student

#: Share of the offered requests that may be left, refused or failed for a rate to be carried.
TOLERANCE = 0.05
#: Requests in each window, on average, under which their chance is taken for no growth.
FEW = 10
#: Windows under which there is no interval, but only what is plain to see.
LEAST = 3


@dataclass(frozen=True, slots=True)
class Window:
    """What came and what was under way in the window of one run.

    Attributes:
        offered: requests that the rate means for the window.
        warmup: requests that it means for the time before.
        arrived: those that were meant to be sent in the window.
        before, after: those under way at its begin and end; what timed out has never ended.
        trend: seconds by which answers take longer with each second; None where that is not known.
        refused: of those that arrived, the ones that a full queue refused.
        failed: of those that arrived, the ones that it refused otherwise, or that broke.
        timeouts: of those that arrived, the ones that were given up.
    """

    offered: float
    warmup: float
    arrived: int
    before: int
    after: int
    trend: float | None
    refused: int
    failed: int
    timeouts: int

    @property
    def growth(self) -> float:
        """Of what arrived, the share by which more were under way at the end."""
        return (self.after - self.before) / self.arrived

    @property
    def left(self) -> float:
        """Of what was offered, the share that did not end: with the arrivals' chance."""
        return 1 - (self.arrived - (self.after - self.before)) / self.offered

    @property
    def slowing(self) -> float | None:
        """The share that the trend says is not carried: 1 - capacity / rate."""
        return None if self.trend is None else self.trend / (1 + max(0.0, self.trend))


def window(records: Iterable[Record], rate: float, begin: float, end: float) -> Window:
    """The window of a run at an offered rate.

    Args:
        records: all of the run's, drained.
        rate: requests/s of the schedule. A session brings more than it says, which follow its
            answers: then what arrived is taken for what was offered.
        begin, end: seconds since the run's start.
    """
    known = list(records)
    inside = [r for r in known if begin <= r.intended < end]

    def under_way(at: float) -> int:
        return sum(r.intended < at and (r.ended >= at or _stays(r)) for r in known)

    sessions = any(record.session is not None for record in known)
    full = sum(r.outcome is Outcome.REFUSED and _overloaded(r) for r in inside)
    return Window(
        offered=len(inside) if sessions else rate * (end - begin),
        warmup=len(known) - len(inside) if sessions else rate * begin,
        arrived=len(inside),
        before=under_way(begin),
        after=under_way(end),
        trend=_trend(inside),
        refused=full,
        failed=sum(r.outcome in (Outcome.REFUSED, Outcome.FAILED) for r in inside) - full,
        timeouts=sum(r.outcome is Outcome.TIMEOUT for r in inside),
    )


def _stays(record: Record) -> bool:
    """Whether it never ended, but this side gave up."""
    return record.outcome in (Outcome.TIMEOUT, Outcome.CUT)


def _overloaded(record: Record) -> bool:
    return record.error.startswith("overloaded")


def _trend(records: Sequence[Record]) -> float | None:
    """The slope of the latencies over their intended moments, by least squares."""
    some = [r for r in records if r.done or _stays(r)]
    if len(some) < LEAST or cut_share(some) > TOLERANCE:
        return None
    at = np.asarray([r.intended for r in some])
    took = np.asarray([r.latency for r in some])
    around = at - at.mean()
    spread = float(around @ around)
    return float(around @ took) / spread if spread > 0 else None


@dataclass(frozen=True, slots=True)
class Saturation:
    """What the windows of one rate say.

    Attributes:
        answer: "yes", "no", or "cannot tell".
        why: of the answer, for people; empty of a plain "no".
        carried: the share of the offered requests that was answered and left none behind.
    """

    answer: str
    why: str
    carried: Estimate | None


def judge(windows: Sequence[Window], reached: float | None = None, rate: float = 0.0) -> Saturation:
    """Whether a rate is more than is carried.

    Args:
        windows: one of each independent run.
        reached: requests/s that this server surely answered, in closed loops say.
        rate: requests/s that were offered.
    """
    some = [one for one in windows if one.arrived and one.offered]
    if not some:
        return Saturation("cannot tell", "no request was offered", None)
    carried = student([1 - one.growth - (one.refused + one.failed) / one.arrived for one in some])
    assert carried is not None
    answer, why = _verdict(some, reached is not None and rate <= reached)
    if len(some) < LEAST:
        carried = Estimate(carried.value)
    return Saturation(answer, why, carried)


def _verdict(some: Sequence[Window], less: bool) -> tuple[str, str]:
    """The answer and its reason; `less`: closed loops reached more than is offered."""
    refused = [one.refused / one.arrived for one in some]
    if _low(refused, some) > TOLERANCE:
        return "yes", f"{statistics.fmean(refused):.0%} were refused: the queue was full"
    ways = [[one.left for one in some], [one.growth for one in some]]
    slowing = [one.slowing for one in some]
    known = [each for each in slowing if each is not None]
    if len(known) == len(some):
        ways.append(known)
    # Arrivals are chance in the first, service times in both: the mean of the two has least of it.
    both = [statistics.fmean(pair) for pair in zip(ways[0], ways[-1], strict=True)]
    limit = max(critical(one) for one in some)
    grows = statistics.fmean(both)
    few = sum(one.arrived for one in some) < FEW * len(some)
    if not few and _low(both, some) > limit and min(map(statistics.fmean, ways)) > limit:
        return "yes", f"of what is offered, {grows:.0%} is left under way at the end"
    lost = [one.refused + one.failed + one.timeouts for one in some]
    failed = sum(lost) / sum(one.arrived for one in some)
    if failed > TOLERANCE:
        return "cannot tell", f"{failed:.0%} got no answer"
    if less and _low(both, some) <= 0:
        return "no", ""
    if len(some) < LEAST:
        return "cannot tell", f"under {LEAST} rounds only what is plain to see is told"
    if any(_high(each) < TOLERANCE for each in ways[1:]):
        return "no", ""
    if few:
        return "cannot tell", f"under {FEW} requests a round: measure longer"
    return "cannot tell", "what is under way varies by as much as it grows: measure longer"


def critical(one: Window) -> float:
    """The share of a window's requests that are left where just as much is offered as is carried.

    By the mean of a reflected Brownian motion without drift, √(2 v / π), at both ends of the
    window: v is twice the requests offered until then, with Poisson arrivals and as variable a
    service.
    """
    until = one.warmup + one.offered
    return 2 / math.sqrt(math.pi) * (math.sqrt(until) - math.sqrt(one.warmup)) / one.offered


def _low(values: Sequence[float], some: Sequence[Window]) -> float:
    """A bound that the truth is above, with 95 % on this side.

    Of fewer values than LEAST by three standard errors of a count whose arrivals and ends both are
    chance.
    """
    if len(values) < LEAST:
        return statistics.fmean(values) - 3 * math.sqrt(2 / sum(one.arrived for one in some))
    return statistics.fmean(values) - _half(values)


def _high(values: Sequence[float]) -> float:
    """A bound that the truth is below, with 95 % on this side."""
    return statistics.fmean(values) + _half(values)


def _half(values: Sequence[float]) -> float:
    from scipy.special import stdtrit  # a third of the start of a rank, which needs none of it

    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stdtrit(len(values) - 1, 0.95)) * error

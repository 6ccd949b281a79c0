"""Old run against new: better, worse, or cannot tell, for each figure that both have.

Two runs of the same thing differ by more than the requests within one run show. So figures are
compared by the repetitions of whole runs, by Welch's test; where there are too few of them, the
answer is that nothing can be told. Several figures are judged at once, so each must be surer
(S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979).

What is compared is the ratio, so the test is of logarithms where all values are above 0: the
interval is that of the ratio of geometric means, and knows how uncertain the old one is, too.

That no difference is seen does not mean that two agree. They do where the ratio's interval lies
within a margin (D. Schuirmann, "A Comparison of the Two One-Sided Tests Procedure and the Power
Approach for Assessing the Equivalence of Average Bioavailability", 1987; with an interval of 95 %
in place of his 90 %, which is the stricter).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llcuda_net.bench.statistics.estimates import CONFIDENCE, Difference, Estimate, welch
from llcuda_net.util.numbers import plain, probability

#: Least relative change that is reported, however sure.
RELEVANT = 0.02
#: The margin within which two figures agree.
WITHIN = 0.10
CANNOT_TELL = "cannot tell"
#: Figures of which more is better; of all others (times) less is.
_MORE_IS_BETTER = (
    *("tokens_per_s", "requests_per_s", "searches_per_s", "vectors_per_s"),
    *("goodput", "speedup", "efficiency"),
)
Repetitions = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure's verdict: "better", "worse" or "cannot tell"; or "agree" or "differ".

    Attributes:
        old, new: means of the repetitions, geometric ones where all are above 0.
        relative: the change as a share of the old, with its interval.
    """

    figure: str
    verdict: str
    old: float
    new: float
    relative: Estimate
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "figure": self.figure,
            "verdict": self.verdict,
            "old": self.old,
            "new": self.new,
            "relative": self.relative.as_dict(),
            "why": self.why,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Change:
        """The inverse of `as_dict`."""
        return cls(**{**found, "relative": Estimate.from_dict(found["relative"])})


def compare(old: Repetitions, new: Repetitions, hindered: Sequence[str] = ()) -> list[Change]:
    """Every figure that both have.

    Args:
        hindered: why nothing can be told of any of them.
    """
    return compare_all(old, [new], [hindered])[0]


def compare_all(
    old: Repetitions, others: Sequence[Repetitions], hindered: Sequence[Sequence[str]]
) -> list[list[Change]]:
    """Several runs, each against the old one: all their figures are judged together.

    Args:
        hindered: of each, why nothing can be told of it; what is hindered is not judged, and makes
            the others no less sure.
    """
    found: list[list[Change]] = [[] for _ in others]
    judged: list[tuple[float, int, int]] = []
    for which, new in enumerate(others):
        for figure, before, after in _both(old, new):
            change, p = _change(figure, before, after)
            if hindered[which]:
                change = replace(change, verdict=CANNOT_TELL, why=hindered[which][0])
            else:
                judged.append((p, which, len(found[which])))
            found[which].append(change)
    for p, which, place in _unsure(judged):
        change = found[which][place]
        if change.verdict != CANNOT_TELL:
            why = f"p {probability(p)}, not enough among {len(judged)} figures"
            found[which][place] = replace(change, verdict=CANNOT_TELL, why=why)
    return found


def agreement(old: Repetitions, new: Repetitions, within: float = WITHIN) -> list[Change]:
    """Whether two runs have the same figures: "agree", "differ" or "cannot tell".

    Args:
        within: the margin, as a share.
    """
    found: list[Change] = []
    judged: list[tuple[float, int, int]] = []
    for figure, before, after in _both(old, new):
        change, p = _change(figure, before, after)
        relative = change.relative
        if relative.low is None or relative.high is None:
            found.append(replace(change, verdict=CANNOT_TELL))
            continue
        apart = max(abs(relative.low), abs(relative.high))
        judged.append((p, 0, len(found)))
        if apart <= within:
            found.append(replace(change, verdict="agree", why=f"at most {apart:.1%} apart"))
        elif relative.low <= 0 <= relative.high:
            why = f"no difference is seen, but one of {apart:.0%} could be there"
            found.append(replace(change, verdict=CANNOT_TELL, why=why))
        else:
            found.append(replace(change, verdict="differ", why=""))
    for p, _, place in _unsure(judged):
        if found[place].verdict == "differ":
            why = f"p {probability(p)}, not enough among {len(judged)} figures"
            found[place] = replace(found[place], verdict=CANNOT_TELL, why=why)
    return found


def _both(
    old: Repetitions, new: Repetitions
) -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    for figure, before in old.items():
        after = new.get(figure)
        if before and after:
            yield figure, before, after


def _unsure(judged: list[tuple[float, int, int]]) -> Iterator[tuple[float, int, int]]:
    """Those that Holm's procedure does not accept at CONFIDENCE."""
    sure = True
    for place, one in enumerate(sorted(judged)):
        # The surest figure must pass the strictest bound; none passes after one that fails.
        sure = sure and one[0] <= (1 - CONFIDENCE) / (len(judged) - place)
        if not sure:
            yield one


def _change(figure: str, before: Sequence[float], after: Sequence[float]) -> tuple[Change, float]:
    """The verdict on a figure by itself, and the probability of as much by chance alone."""
    old, new = _middle(before, after), _middle(after, before)
    change = Change(figure, CANNOT_TELL, old, new, Estimate(0.0))
    found = ratio(before, after)
    if found is None:
        value = (new - old) / old if old else math.nan
        relative = Estimate(value if math.isfinite(value) else 0.0)
        why = "of one run each nothing is known of how runs differ: use --repeats 5"
        if min(len(before), len(after)) >= 2:
            why = "the repetitions do not differ at all"
        return replace(change, relative=relative, why=why), 1.0
    low, high = found.estimate.low, found.estimate.high
    assert low is not None
    assert high is not None
    change = replace(change, relative=found.estimate)
    if low <= 0 <= high:
        return replace(change, why="the interval holds no change, too"), found.p
    if abs(found.estimate.value) < RELEVANT:
        return replace(change, why=f"under {RELEVANT:.0%} either way"), found.p
    more = figure.split()[0] in _MORE_IS_BETTER
    better = (found.estimate.value > 0) == more
    return replace(change, verdict="better" if better else "worse"), found.p


def _middle(values: Sequence[float], others: Sequence[float]) -> float:
    """The mean that the ratio is of: the geometric one where all values have a logarithm."""
    if min(*values, *others) > 0:
        return math.exp(float(np.mean(np.log(values))))
    return float(np.mean(values))


def ratio(before: Sequence[float], after: Sequence[float]) -> Difference | None:
    """How much greater the new ones are, as a share of the old; None where nothing is known of it.

    Of values that may be 0 or less it is the difference of the means over the old mean.
    """
    if min(*before, *after) > 0:
        found = welch([math.log(v) for v in before], [math.log(v) for v in after])
        if found is None:
            return None
        e = found.estimate
        ends = [None if each is None else math.expm1(each) for each in (e.low, e.high)]
        return Difference(Estimate(math.expm1(e.value), ends[0], ends[1]), found.p)
    old = float(np.mean(before))
    found = welch(before, after)
    if found is None or not old:
        return None
    e = found.estimate
    assert e.low is not None
    assert e.high is not None
    low, high = sorted((e.low / old, e.high / old))
    return Difference(Estimate(e.value / old, low, high), found.p)


def lines(changes: Sequence[Change], hindered: Sequence[str]) -> list[str]:
    """The verdicts for a terminal."""
    out = [f"cannot compare: {reason}" for reason in hindered]
    if not changes:
        out.append("cannot tell: the two runs have no figure in common")
    figures = [(plain(change.old, 4), plain(change.new, 4)) for change in changes]
    verdicts = len(CANNOT_TELL)  # the longest of them
    names = max((len(change.figure) for change in changes), default=0)
    olds = max((len(old) for old, _ in figures), default=0)
    news = max((len(new) for _, new in figures), default=0)
    for change, (old, new) in zip(changes, figures, strict=True):
        r = change.relative
        interval = "" if r.low is None or r.high is None else f" ({r.low:+.1%} to {r.high:+.1%})"
        why = f"  {change.why}" if change.why else ""
        out.append(
            f"{change.verdict:{verdicts}}  {change.figure:{names}}  {old:>{olds}} -> {new:<{news}}"
            f"  {r.value:+.1%}{interval}{why}"
        )
    return out

"""Old run against new: better, worse, or cannot tell, for each figure that both have.

Two runs of the same thing differ by more than the requests within one run show. So figures are
compared by the repetitions of whole runs, by Welch's test; where there are too few of them, the
answer is that nothing can be told. Several figures are judged at once, so each must be surer
(S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_net.bench.statistics.estimates import CONFIDENCE, Estimate, welch
from llcuda_net.util.numbers import plain, probability

#: Least relative change that is reported, however sure.
RELEVANT = 0.02
#: Figures of which more is better; of all others (times) less is.
_MORE_IS_BETTER = (
    *("tokens_per_s", "requests_per_s", "searches_per_s", "vectors_per_s"),
    *("goodput", "speedup", "efficiency"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure's verdict: "better", "worse" or "cannot tell".

    Attributes:
        old, new: means of the repetitions.
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


def obstacles(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why the two cannot be compared at all: one line each."""
    found = []
    if measurement(old["tool"]) != measurement(new["tool"]):
        found.append(f"the old one is of {old['tool']}, the new one of {new['tool']}")
    for which, document in (("old", old), ("new", new)):
        if document["problems"]:
            found.append(f"the {which} run was INVALID: {document['problems'][0]}")
    for name in sorted({*old["settings"], *new["settings"]}):
        a, b = old["settings"].get(name), new["settings"].get(name)
        if a != b:
            found.append(f"{name} differs: {a} and {b}")
    for name in ("processor", "cores"):
        a, b = old["machine"].get(name), new["machine"].get(name)
        if a != b:
            found.append(f"the machines differ: {name} {a} and {b}")
    return found


def measurement(tool: str) -> str:
    """What a tool measures: "latency" of tools/bench_latency.py and of `llcuda bench latency`."""
    return tool.split()[-1].rpartition("/")[2].removeprefix("bench_").removesuffix(".py")


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Every figure that both documents have in their `repetitions`.

    Returns:
        the changes; all "cannot tell" where `obstacles` finds any.
    """
    hindered = obstacles(old, new)
    pending: list[tuple[float, Change]] = []
    for figure, before in old.get("repetitions", {}).items():
        after = new.get("repetitions", {}).get(figure)
        if after and before:
            pending.append(_change(figure, before, after, hindered))
    pending.sort(key=lambda item: item[0])
    found = []
    sure = True
    for place, (p, change) in enumerate(pending):
        # Holm: the surest figure must pass the strictest bound; none passes after one that fails.
        sure = sure and p <= (1 - CONFIDENCE) / (len(pending) - place)
        if not sure and change.verdict != "cannot tell":
            change = Change(
                change.figure,
                "cannot tell",
                change.old,
                change.new,
                change.relative,
                f"p {probability(p)}, not enough among {len(pending)} figures",
            )
        found.append(change)
    order = list(old.get("repetitions", {}))
    return sorted(found, key=lambda change: order.index(change.figure))


def _change(
    figure: str, before: list[float], after: list[float], hindered: list[str]
) -> tuple[float, Change]:
    old, new = float(np.mean(before)), float(np.mean(after))
    relative = Estimate((new - old) / old if old else math.nan)
    if not math.isfinite(relative.value):
        relative = Estimate(0.0)
    if hindered:
        return 1.0, Change(figure, "cannot tell", old, new, relative, hindered[0])
    difference = welch(before, after)
    if difference is None:
        why = "of one run each nothing is known of how runs differ: use --repeats 5"
        if min(len(before), len(after)) >= 2:
            why = "the repetitions do not differ at all"
        return 1.0, Change(figure, "cannot tell", old, new, relative, why)
    low, high = difference.estimate.low, difference.estimate.high
    assert low is not None
    assert high is not None
    ends = sorted((low / old, high / old))
    relative = Estimate(relative.value, ends[0], ends[1])
    if ends[0] <= 0 <= ends[1]:
        return difference.p, Change(
            figure, "cannot tell", old, new, relative, "the interval holds no change, too"
        )
    if abs(relative.value) < RELEVANT:
        why = f"under {RELEVANT:.0%} either way"
        return difference.p, Change(figure, "cannot tell", old, new, relative, why)
    more = figure.split()[0] in _MORE_IS_BETTER
    better = (relative.value > 0) == more
    return difference.p, Change(figure, "better" if better else "worse", old, new, relative)


def lines(changes: list[Change], hindered: list[str]) -> list[str]:
    """The verdicts for a terminal."""
    out = [f"cannot compare: {reason}" for reason in hindered]
    if not changes:
        out.append("cannot tell: the two runs have no figure in common")
    for change in changes:
        r = change.relative
        interval = "" if r.low is None or r.high is None else f" ({r.low:+.1%} to {r.high:+.1%})"
        why = f"  {change.why}" if change.why else ""
        old, new = plain(change.old, 4), plain(change.new, 4)
        out.append(
            f"{change.verdict:11}  {change.figure:22} {old:>10} -> {new:<10}"
            f" {r.value:+.1%}{interval}{why}"
        )
    return out

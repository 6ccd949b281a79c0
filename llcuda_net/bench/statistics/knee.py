"""Where more load brings no more: the knee of a throughput curve.

Source: V. Satopää et al., "Finding a 'Kneedle' in a Haystack" (2011), for the knee as the point
farthest above the chord.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llcuda_net.bench.statistics.estimates import Estimate

#: How far above the chord, of the whole rise, a curve must bend for its bend to be called a knee.
BEND = 0.1


@dataclass(frozen=True, slots=True)
class Knee:
    """The load at the knee, and the throughput there; `why` says why there is none."""

    load: float | None
    throughput: float | None
    why: str = ""


def knee(loads: Sequence[float], throughputs: Sequence[Estimate]) -> Knee:
    """The knee of throughput over load: from there on, more load mostly makes requests wait.

    Args:
        loads: concurrency or rate, rising.
        throughputs: what was reached at each.

    Returns:
        a knee; without a load where there are under four points, where the curve does not bend by
        more than its own uncertainty, or where it still rises at its end.
    """
    if len(loads) < 4:
        return Knee(None, None, "under four points no knee is looked for")
    best = max(range(len(loads)), key=lambda i: throughputs[i].value)
    first, top = throughputs[0].value, throughputs[best].value
    if best == 0 or loads[best] <= loads[0] or top <= first:
        return Knee(loads[0], first, "")
    high, low = throughputs[0].high, throughputs[best].low
    if high is not None and low is not None and high >= low:
        return Knee(
            None, None, "the throughputs cannot be told apart: measure longer, or more often"
        )
    if best == len(loads) - 1 and not _flat(loads, throughputs):
        return Knee(None, None, "throughput still rises at the greatest load: offer more")

    def above(i: int) -> float:
        x = (loads[i] - loads[0]) / (loads[best] - loads[0])
        y = (throughputs[i].value - first) / (top - first)
        return y - x

    found = max(range(best + 1), key=above)
    if above(found) < BEND:
        found = best  # it rises straight, then ends: a corner, and the corner is the knee
    return Knee(loads[found], throughputs[found].value)


def _flat(loads: Sequence[float], throughputs: Sequence[Estimate]) -> bool:
    """Whether the last step brought under a tenth of what its load could have, or nothing sure."""
    before, last = throughputs[-2], throughputs[-1]
    if before.high is not None and last.low is not None and last.low <= before.high:
        return True
    possible = before.value * (loads[-1] / loads[-2] - 1)
    return last.value - before.value < 0.1 * possible

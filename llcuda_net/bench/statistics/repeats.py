"""Figures with intervals from whole repeats, and the reasons for which a figure gets none.

Requests of one run share a queue. How far a run's figures are from the truth shows between runs,
not within one, so the interval is of the repeats' figures (`estimates.log_student`). Three things
can still make it miss, and each has its remedy:

- *Short repeats.* The longest waits come together, and few of them fall into one repeat: its p99 is
  too low. The jackknife takes off what the halves of the repeats say of that (M. Quenouille, "Notes
  on bias in estimation", 1956): twice the whole less the mean of the halves. It takes off all of a
  bias that falls with the length. Near saturation the bias falls more slowly, so the upper end
  moves by LEFT times as much again.
- *A long memory.* Near saturation neighbours are alike. `independent` counts how many independent
  values a repeat is worth, by the spread of the means of its parts (B. Schmeiser, "Batch size
  effects in the analysis of simulation output", 1982). Where these are too few there is no
  interval. How long that takes is in W. Whitt, "Planning queueing simulations" (1989): for M/M/1 it
  grows with 1/(1 - load)². That is judged by a rehearsal, too: among the measured runs those of
  good luck look as if they had the shorter memory, and to believe them would select them.
- *A level that moves*, within the repeats or from one to the next: then there is none to estimate.

`tools/bench_coverage.py` measures how often the intervals hold: docs/benchmarks/coverage.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llcuda_net.bench.statistics.estimates import (
    ONE_REPEAT,
    Estimate,
    Floats,
    log_student,
    not_negative,
    student,
    t_bound,
)
from llcuda_net.bench.statistics.samples import Sample, pooled
from llcuda_net.util.quantile import BEYOND, PERCENTILES, supported

#: How many times what the jackknife took off may be left.
LEFT = 3.0
#: Independent values that a repeat must be worth: of these, so many beyond the percentile; for the
#: mean and the percentiles up to p90, so many in all.
_TAIL, _BULK = 0.7, 30
#: Of these, the share that the measured repeats must show where a rehearsal shows them all.
_MEASURED = 2 / 3
#: Above this share of a repeat's values no memory is seen: then few values do, too.
_FREE = 0.5
#: Values beyond a percentile in a repeat, on average; under that it is mostly the greatest one.
_EACH = 2
#: Parts of a repeat whose means are compared.
PARTS = 8
#: Least shift of a level, as a share of it, that is called one: within repeats, and between them.
_WITHIN, _BETWEEN = 0.1, 0.05
#: Least repeats for an order of theirs to mean something.
_ORDERED = 5


@dataclass(slots=True)
class Figures:
    """What the repeats say.

    Attributes:
        mean: None of no value.
        quantiles: by name; None where the sample does not support it.
        why: by name, what is missing for those.
    """

    mean: Estimate | None = None
    quantiles: dict[str, Estimate | None] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


def figures(
    repeats: Sequence[Sample],
    *,
    rehearsal: Sample | None = None,
    shares: Mapping[str, float] = PERCENTILES,
) -> Figures:
    """Mean and percentiles of some repeats.

    Args:
        repeats: each of a run with a start of its own.
        rehearsal: of a run like them that is not among them.
        shares: percentiles by name, as shares 0 to 1.

    Returns:
        With an interval the value is the mean of the repeats' corrected figures; without one, the
        figure of all values together.
    """
    found = Figures()
    whole = pooled(repeats) if repeats else None
    if whole is None or not len(whole.values):
        found.quantiles = dict.fromkeys(shares)
        return found
    general = _general(repeats)
    worth = independent(repeats)
    known = None if rehearsal is None else independent([rehearsal])
    cut = int(whole.censored.sum())
    cut_why = f"{cut} of {whole.answers} requests were cut"
    mean = whole.mean
    if cut:
        found.mean = Estimate(mean, why=f"{cut_why}: it is at least this")
    else:
        why = general or _short(repeats, worth, known, _BULK)
        found.mean = _estimate(mean, why, _corrected(repeats, None))
    for name, share in shares.items():
        value = whole.quantile(share)
        found.quantiles[name] = None
        if value is None:
            found.why[name] = cut_why
        elif not _beyond(whole, share, value):
            found.why[name] = f"under {BEYOND} answers beyond it"
        else:
            each = _corrected(repeats, share)
            tail = min(share, 1 - share)
            why = general
            if not why and each is None:
                why = cut_why
            if not why and whole.answers / len(repeats) * tail < _EACH - 1e-9:
                why = f"under {_EACH} answers beyond it in a repeat"
            why = why or _short(repeats, worth, known, max(_BULK, _TAIL / tail))
            found.quantiles[name] = _estimate(value, why, each)
    return found


def differences(repeats: Sequence[Sample]) -> tuple[Estimate | None, Estimate | None]:
    """The median and the mean of what may be negative, with Student's interval over repeats.

    Returns:
        None of fewer than 20 values (the median), and of none (the mean).
    """
    whole = pooled(repeats) if repeats else None
    if whole is None or not len(whole.values):
        return None, None
    why = _general(repeats, level=False)
    means = [each.mean for each in repeats if len(each.values)]
    mean = _student(whole.mean, why, means)
    middle = whole.quantile(0.5)
    if middle is None or not _beyond(whole, 0.5, middle):
        return None, mean
    medians = [value for each in repeats if (value := each.quantile(0.5)) is not None]
    return _student(middle, why, medians), mean


def _student(value: float, why: str, each: Sequence[float]) -> Estimate:
    found = student(each)
    if why or found is None or found.low is None:
        return Estimate(value, why=why or ONE_REPEAT)
    return found


def independent(samples: Sequence[Sample]) -> float:
    """How many independent values one of the samples is worth, on average.

    Of which values lie above their sample's median: that is bounded, so that a few long waits do
    not decide. A sample of fewer answers than PARTS is worth its answers.
    """
    spread = single = count = 0.0
    for each in samples:
        if not len(each.values):
            continue
        above = each.values > np.median(each.values)
        variance = float(above.var())
        if each.answers < PARTS:
            inflation = len(each.values) / each.answers * variance
        else:
            edges = np.linspace(0, each.answers, PARTS + 1).astype(np.int64)[:-1]
            starts = np.searchsorted(each.owner, edges)
            ends = np.append(starts[1:], len(each.values))
            parts = np.add.reduceat(above.astype(np.float64), starts) / (ends - starts)
            inflation = len(each.values) / PARTS * float(parts.var(ddof=1))
        spread, single, count = spread + inflation, single + variance, count + len(each.values)
    return count / len(samples) / max(1.0, spread / single if single else 1.0)


def _general(repeats: Sequence[Sample], *, level: bool = True) -> str:
    """Why no figure of these repeats has an interval; empty where some may."""
    if len(repeats) < 2:
        return ONE_REPEAT
    if any(each.answers < 2 for each in repeats):
        return "a repeat has under 2 answers"
    return (_moves(repeats) or _drifts(repeats)) if level else ""


def _moves(repeats: Sequence[Sample]) -> str:
    """Whether the level rises or falls while a repeat runs: by Student's test at 1 %."""
    middles = []
    for each in repeats:
        first, second = (half.quantile(0.5) for half in each.halves())
        if first is None or second is None:
            return ""
        middles.append((first, second))
    shifts = np.asarray([second - first for first, second in middles])
    mean, level = float(shifts.mean()), abs(float(np.mean(middles)))
    error = float(shifts.std(ddof=1)) / math.sqrt(len(shifts))
    if abs(mean) <= _WITHIN * level or abs(mean) <= t_bound(len(shifts) - 1, 0.99) * error:
        return ""
    return f"it {'rose' if mean > 0 else 'fell'} while the repeats ran"


def _drifts(repeats: Sequence[Sample]) -> str:
    """Whether the repeats' medians lie on a rising or falling line: by Student's test at 1 %."""
    middles = [middle for each in repeats if (middle := each.quantile(0.5)) is not None]
    count, values = len(middles), np.asarray(middles)
    if count < _ORDERED or np.ptp(values) <= _BETWEEN * abs(float(values.mean())):
        return ""
    r = float(np.corrcoef(np.arange(count), values)[0, 1])
    t = abs(r) * math.sqrt((count - 2) / max(1e-12, 1 - r * r))
    if t <= t_bound(count - 2, 0.99):
        return ""
    return f"it {'rose' if r > 0 else 'fell'} from repeat to repeat"


def _short(repeats: Sequence[Sample], worth: float, known: float | None, least: float) -> str:
    """Whether a repeat is too short for what it remembers."""
    size = float(np.mean([len(each.values) for each in repeats]))
    needed = least if known is None else least * _MEASURED
    found, wanted = worth, needed
    if known is not None and known / least < worth / needed:
        found, wanted = known, least
    if found >= min(wanted, _FREE * size):
        return ""
    longer = max(1.1, wanted / max(found, 1.0))
    return (
        f"neighbours are alike: a repeat is worth {found:.0f} independent answers, not"
        f" {wanted:.0f}: measure {longer:.1f} times as long"
    )


def _beyond(whole: Sample, share: float, value: float) -> bool:
    """Whether ten answers, not only ten values, lie beyond a quantile."""
    if not supported(len(whole.values), share):
        return False
    # Equal values are beyond it, too; above, the quantile's own is not.
    above = len(np.unique(whole.owner[whole.values >= value]))
    below = len(np.unique(whole.owner[whole.values <= value]))
    return above > BEYOND and (share > 0.5 or below >= BEYOND)


def _corrected(repeats: Sequence[Sample], share: float | None) -> tuple[Floats, Floats] | None:
    """Each repeat's figure, and the same by the jackknife; None where one is not known.

    Args:
        share: of the quantile; None: the mean, which needs no correction.
    """
    if share is None:
        means = np.asarray([each.mean for each in repeats if len(each.values)])
        return means, means
    plain, corrected = [], []
    for each in repeats:
        parts = [part.quantile(share) for part in (each, *each.halves())]
        known = [part for part in parts if part is not None]
        if len(known) < 3:
            return None
        plain.append(known[0])
        corrected.append(2 * known[0] - (known[1] + known[2]) / 2)
    return np.asarray(plain), np.asarray(corrected)


def _estimate(value: float, why: str, each: tuple[Floats, Floats] | None) -> Estimate:
    if why or each is None:
        return Estimate(value, why=why or ONE_REPEAT)
    plain, corrected = each
    if corrected.mean() < plain.min():
        corrected = plain  # the halves say more than there is: no time is less than was measured
    found = log_student(corrected)
    assert found is not None
    assert found.high is not None
    left = LEFT * max(0.0, float(corrected.mean() - plain.mean()))
    return replace(not_negative(found), high=found.high + left)

"""Quantiles where some requests had no end yet: of those, only a lower bound is known.

A request that is cut when the measurement ends, or given up at its timeout, took at least so long:
its time is censored on the right. To leave it out makes the slow ones vanish. The estimator is that
of E. Kaplan and P. Meier, "Nonparametric Estimation from Incomplete Observations" (1958): each
observation that ends gets the weight that the censored ones before it hand on to all after them (B.
Efron, "The two sample problem with censored data", 1967). It asks that the moment of the cut does
not depend on how long the request would have taken, which holds for a schedule that was decided
before the run. A mean has no such estimate: nothing is known beyond the last observation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from llcuda_net.batch.record import GAP, METRICS, Outcome, Record

#: Seconds, and whether the truth is only known to be at least as long.
Observation = tuple[float, bool]

#: Outcomes after which the rest of a request's time is unknown.
CENSORED = frozenset({Outcome.CUT, Outcome.TIMEOUT})


def observations(records: Iterable[Record], metric: str) -> list[Observation]:
    """What the requests tell of a metric, in their order; refused and failed ones tell nothing.

    Args:
        metric: one of `METRICS`, or GAP, of which a request may have many.

    Returns:
        Of what ended: its value. Of what was cut or timed out: the value where that was known by
        then (a first token that came), else the time until then. The pace of an answer under way
        is that of its pieces so far, with the silence since the last one.

    Raises:
        KeyError: there is no such metric.
    """
    get = None if metric == GAP else METRICS[metric][1]
    found: list[Observation] = []
    for record in records:
        if record.done:
            if get is None:
                found += [(gap, False) for gap in record.gaps]
            elif (value := get(record)) is not None and not math.isnan(value):
                found.append((value, False))
        elif record.outcome in CENSORED and not math.isnan(record.ended):
            found += _of_unfinished(record, metric)
    return found


def _of_unfinished(record: Record, metric: str) -> list[Observation]:
    """What is known of a request at the moment at which it was cut or given up."""
    chunks, until = record.chunks, record.ended
    sent = not math.isnan(record.sent)
    match metric:
        case "lag":
            return [(record.lag, False) if sent else (until - record.intended, True)]
        case "latency":
            return [(record.latency, True)]
        case "ttft":
            first = record.ttft
            return [(until - record.intended, True) if first is None else (first, False)]
        case "service" if sent:
            return [(record.service, True)]
        case "service_ttft" if sent:
            first = record.service_ttft
            return [(until - record.sent, True) if first is None else (first, False)]
        case "tpot" if len(chunks) >= 2:
            return [((until - chunks[0]) / len(chunks), True)]
        case "gap" if len(chunks):
            return [*((gap, False) for gap in record.gaps), (until - chunks[-1], True)]
    return []


def quantile(observations: Sequence[Observation], share: float) -> float | None:
    """The least time by which `share` (0 to 1) of the requests had ended, by Kaplan and Meier.

    Whether the sample is large enough for it is not asked here: see `util.quantile.supported`.
    Where nothing is censored it is the nearest rank of `util.quantile`.

    Returns:
        seconds; None where so many were cut or given up that the estimate ends below `share`, and
        of nothing.
    """
    # Of equal times the ends come first: what was cut then had not ended by then.
    ordered = sorted(observations)
    left = 1.0
    for place, (value, censored) in enumerate(ordered):
        if not censored:
            left *= 1 - 1 / (len(ordered) - place)
            if 1 - left >= share - 1e-9:
                return value
    return None


def longest(records: Iterable[Record]) -> float | None:
    """p99 of the seconds of an answer, or the longest of fewer than 100; None of no answer."""
    found = observations(records, "latency")
    if len(found) >= 100 and (p99 := quantile(found, 0.99)) is not None:
        return p99
    return max((seconds for seconds, _ in found), default=None)


def censored_count(observations: Iterable[Observation]) -> int:
    """Of how many only a lower bound is known."""
    return sum(censored for _, censored in observations)


def cut_share(records: Iterable[Record]) -> float:
    """Which share (0 to 1) of the requests that were sent the end of the measurement cut."""
    sent = [record for record in records if not math.isnan(record.sent)]
    return sum(record.outcome is Outcome.CUT for record in sent) / len(sent) if sent else 0.0

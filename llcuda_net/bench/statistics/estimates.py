"""Estimates that say no more than the sample does: values with intervals, or nothing.

Sources: Student, "The probable error of a mean" (1908); X.-H. Zhou and S. Gao, "Confidence
intervals for the log-normal mean" (1997), for Cox's method; B. Welch, "The generalization of
Student's problem" (1947). Which figures get one of them, and which none: `statistics.repeats`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
#: What an estimate of a single run says in place of an interval.
ONE_REPEAT = "one repeat"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, with the interval in which the truth lies at CONFIDENCE; None: not known.

    Attributes:
        why: one short reason, for people, why there is no interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `why` only where it says something."""
        found = {"value": self.value, "low": self.low, "high": self.high}
        return {**found, "why": self.why} if self.why else found

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Estimate:
        """The inverse of `as_dict`."""
        return cls(found["value"], found.get("low"), found.get("high"), found.get("why", ""))

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        low, high = self.low, self.high
        return Estimate(
            self.value * factor,
            None if low is None else low * factor,
            None if high is None else high * factor,
            self.why,
        )


def t_bound(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Half the width of an interval at that confidence, in standard errors: Student's t."""
    from scipy.special import stdtrit  # a third of the start of a rank, which needs none of it

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def student(values: Sequence[float] | Floats) -> Estimate | None:
    """The mean of independent repetitions with Student's interval; None of nothing."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    mean = float(found.mean())
    if len(found) < 2:
        return Estimate(mean, why=ONE_REPEAT)
    half = t_bound(len(found) - 1) * float(found.std(ddof=1) / math.sqrt(len(found)))
    return Estimate(mean, mean - half, mean + half)


def log_student(values: Sequence[float] | Floats) -> Estimate | None:
    """The mean of independent repetitions of a time, by Cox's method; None of nothing.

    Near saturation a few repetitions are much slower than the others, and no normal distribution
    has their mean. Taken as lognormal, with mean y and variance s² of their n logarithms, it is
    exp(y + s²/2 ± t √(s²/n + s⁴/(2(n - 1)))). Where they differ little, that is Student's interval.

    Args:
        values: where one is not above 0, or they spread over orders of magnitude, the interval is
            Student's.
    """
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2 or found.min() <= 0:
        return student(found)
    logs, mean = np.log(found), float(found.mean())
    count, variance = len(found), float(logs.var(ddof=1))
    if variance > 1:
        return student(found)
    centre = float(logs.mean()) + variance / 2
    half = t_bound(count - 1) * math.sqrt(variance / count + variance**2 / (2 * (count - 1)))
    low, high = math.exp(centre - half), math.exp(centre + half)
    return Estimate(mean, min(low, mean), max(high, mean))


def not_negative(estimate: Estimate) -> Estimate:
    """The estimate of something that cannot be below nothing."""
    low = estimate.low
    return replace(estimate, low=None if low is None else max(0.0, low))


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus old, with its interval and the probability of as much by chance alone."""

    estimate: Estimate
    p: float


def welch(old: Sequence[float], new: Sequence[float]) -> Difference | None:
    """The difference of the means of two sets of repetitions, variances not assumed equal.

    None where either has fewer than two, or where no value differs, so that nothing is known of
    their spread.
    """
    if min(len(old), len(new)) < 2 or len(set(old)) == len(set(new)) == 1:
        return None
    from scipy.stats import ttest_ind  # a second to import, and only comparisons need it

    with warnings.catch_warnings():
        # That one of the two hardly varies makes the result no less right here.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ttest_ind(new, old, equal_var=False)
        low, high = found.confidence_interval(CONFIDENCE)
    between = float(np.mean(new) - np.mean(old))
    return Difference(Estimate(between, float(low), float(high)), float(found.pvalue))

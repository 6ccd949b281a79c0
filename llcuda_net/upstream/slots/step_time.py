"""How long a decode step takes, by how many slots are active and in how many runs: learnt.

Nothing that a llama-server reports says whether its KV cache is unified, but its steps do. They are
taken to last `whole + each * (active - 1) + split * spread(runs)` milliseconds (see `choice`). The
three are estimated by a Kalman filter whose state drifts slowly: recursive least squares with a
bounded memory (R. E. Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960). A
measurement that is further from what was expected than three standard deviations counts as being
that far away, so that one stall does not spoil what many steps have shown.

Until enough is known, a split counts for what it costs at least: one standard deviation below the
estimate. So what a slot holds is used, by which the truth is learnt (optimism in the face of
uncertainty; T. L. Lai, H. Robbins, "Asymptotically Efficient Adaptive Allocation Rules", 1985).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from llcuda_net.upstream.slots.choice import SPLIT_MS, STEP_MS, spread

#: What is not more than this share of a step is no split: the cache is unified, as far as matters.
UNIFIED = 0.1
#: In how many standard deviations above the estimate that must hold: 19 times of 20.
_SURE = 1.65
#: Measurements are off by this share, and by so many steps of those that were counted.
_NOISE, _QUANTUM = 0.1, 0.5
#: In standard deviations: how far off a measurement counts at most. By what factor the variances
#: grow with one that is: where many are, the upstream is another than it was.
_FURTHEST, _DOUBT = 3.0, 1.5
#: Of whole, each and split, as shares of the first step that was measured: estimates before that,
#: their standard deviations, and by how much they drift from one measurement to the next.
_PRIOR = (1.0, 0.02, 1.0)
_DEVIATION = (1.0, 0.1, 1.0)
_DRIFT = (0.03, 0.002, 0.0005)

#: Of a variance, what rounding may leave of it at least; and the correlation of two at most.
_ROUNDING, _CORRELATED = 1e-9, 0.999
#: Milliseconds that a step may take to be believed.
_LEAST, _MOST = 1e-3, 1e6

_Vector = tuple[float, float, float]


class KvCache(StrEnum):
    """What the steps of an upstream say of its KV cache."""

    UNKNOWN = "unknown"
    UNIFIED = "unified"
    SEPARATE = "separate"


class Sample(NamedTuple):
    """Decode steps that were made while the same slots were active.

    Attributes:
        step_ms: milliseconds a step.
        active: slots that were active.
        runs: of consecutive numbers among these.
        steps: how many were counted.
    """

    step_ms: float
    active: int
    runs: int
    steps: int


class StepTime:
    """What is known of the decode steps of one upstream.

    Args:
        unified: its KV cache is known to be unified: there is nothing to learn.
    """

    def __init__(self, unified: bool = False) -> None:
        self._told = unified
        self._scale = 0.0  # the first step that was measured; 0: none was
        self._mean: _Vector = (0.0, 0.0, 0.0)
        self._covariance: tuple[_Vector, _Vector, _Vector] = (self._mean,) * 3

    def __repr__(self) -> str:
        whole, each, split = self._mean
        return (
            f"<StepTime {whole:.3g} ms + {each:.2g} a slot + {split:.3g} split "
            f"(±{self._deviation:.2g}){', unified' if self.unified else ''}>"
        )

    def forget(self) -> None:
        """Another process answers: what the last one did says nothing of it."""
        self._scale, self._mean = 0.0, (0.0, 0.0, 0.0)

    def record(self, sample: Sample) -> None:
        """Take account of a measurement."""
        if not (_LEAST < sample.step_ms < _MOST) or sample.steps < 1 or sample.active < 1:
            return
        if not self._scale:
            self._begin(sample.step_ms)
        seen = (1.0, sample.active - 1.0, spread(sample.runs))
        expected = max(_dot(self._mean, seen), 0.01 * self._scale)
        towards = _times(self._covariance, seen)
        noise = max(expected, sample.step_ms) * (_NOISE + _QUANTUM / sample.steps)
        variance = max(0.0, _dot(towards, seen)) + noise**2
        most = _FURTHEST * math.sqrt(variance)
        off = max(-most, min(most, sample.step_ms - expected))
        self._mean = _sum(self._mean, towards, off / variance)
        doubt = _DOUBT if abs(off) == most else 1.0
        rows = zip(self._covariance, towards, strict=True)
        one, two, three = (
            _scaled(_sum(row, towards, -gain / variance), doubt) for row, gain in rows
        )
        largest = max(self._scale, sample.step_ms, expected)
        self._covariance = _bounded(self._drifted((one, two, three)), largest)

    def _begin(self, step_ms: float) -> None:
        self._scale = step_ms
        one, two, three = _PRIOR
        self._mean = (one * step_ms, two * step_ms, three * step_ms)
        one, two, three = ((share * step_ms) ** 2 for share in _DEVIATION)
        self._covariance = ((one, 0.0, 0.0), (0.0, two, 0.0), (0.0, 0.0, three))

    def _drifted(self, rows: tuple[_Vector, _Vector, _Vector]) -> tuple[_Vector, _Vector, _Vector]:
        (a, b, c), (d, e, f), (g, h, i) = rows
        whole = self.whole_ms
        one, two, three = ((share * whole) ** 2 for share in _DRIFT)
        return (a + one, b, c), (d, e + two, f), (g, h, i + three)

    @property
    def cache(self) -> KvCache:
        """Whether the slots share one KV cache: each verdict is right 19 times of 20."""
        if self.unified:
            return KvCache.UNIFIED
        least = self._mean[2] - _SURE * self._deviation
        if self._scale > 0 and least > UNIFIED * self._mean[0]:
            return KvCache.SEPARATE
        return KvCache.UNKNOWN

    @property
    def unified(self) -> bool:
        """Whether a split costs next to nothing, as far as can be said."""
        if self._told:
            return True
        most = max(0.0, self._mean[2]) + _SURE * self._deviation
        return self._scale > 0 and most < UNIFIED * self._mean[0]

    @property
    def split_ms(self) -> float:
        """Milliseconds that the worst split costs at least, as far as is known; 0: unified.

        Not less than what counts as nothing, unless that is known: neighbours are free of charge.
        """
        if self.unified:
            return 0.0
        if not self._scale:
            return SPLIT_MS
        return max(self._mean[2] - self._deviation, UNIFIED * self._mean[0], 1e-3)

    @property
    def whole_ms(self) -> float:
        """Milliseconds of a step of one slot alone."""
        return max(self._mean[0], 0.01 * self._scale) if self._scale else STEP_MS

    @property
    def _deviation(self) -> float:
        return math.sqrt(max(0.0, self._covariance[2][2]))


def _bounded(
    rows: tuple[_Vector, _Vector, _Vector], step_ms: float
) -> tuple[_Vector, _Vector, _Vector]:
    """A covariance in which no deviation is greater than before anything was known, nor negative.

    What was not seen for long would otherwise grow with each doubt, until rounding is all that is
    left of the rest. Rows and columns are scaled alike, which leaves the correlations.
    """
    most = [(share * step_ms) ** 2 for share in _DEVIATION]
    own = [max(rows[n][n], _ROUNDING * most[n]) for n in range(3)]
    by = [min(1.0, math.sqrt(most[n] / own[n])) for n in range(3)]
    roots = [math.sqrt(own[n]) * by[n] for n in range(3)]

    def cell(row: int, column: int) -> float:
        if row == column:
            return own[row] * by[row] ** 2
        both = 0.5 * (rows[row][column] + rows[column][row]) * by[row] * by[column]
        limit = _CORRELATED * roots[row] * roots[column]
        return max(-limit, min(limit, both))

    one, two, three = ((cell(row, 0), cell(row, 1), cell(row, 2)) for row in range(3))
    return one, two, three


def _dot(one: _Vector, other: _Vector) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def _scaled(vector: _Vector, by: float) -> _Vector:
    return vector[0] * by, vector[1] * by, vector[2] * by


def _times(rows: tuple[_Vector, _Vector, _Vector], vector: _Vector) -> _Vector:
    return _dot(rows[0], vector), _dot(rows[1], vector), _dot(rows[2], vector)


def _sum(one: _Vector, other: _Vector, times: float) -> _Vector:
    return one[0] + times * other[0], one[1] + times * other[1], one[2] + times * other[2]

"""The laws of `laws` fitted to measured points, with intervals that hold where a share is 0.

Each law is a sum of columns with weights that cannot be negative: the reciprocal of Amdahl's and of
the universal law's throughput, Gustafson's throughput itself. So the least squares of relative
differences under the bounds (shares from 0 to 1, kappa from 0 on) is Gauss and Newton's method with
non-negative steps (C. Lawson and R. Hanson, "Solving Least Squares Problems", 1974).

Intervals are profiles: the values of a parameter at which the others can still be chosen so that
the sum of squares is at most its least times 1 + t²/freedom (D. Bates and D. Watts, "Nonlinear
Regression Analysis and Its Applications", 1988). At a bound they are one-sided. Where sizes were
measured several times, a law is tested for lack of fit (N. Draper and H. Smith, "Applied Regression
Analysis", 1998): intervals of a law that does not hold would mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, nnls

from llcuda_net.bench.statistics.estimates import Estimate, Floats, t_bound
from llcuda_net.bench.statistics.laws import LAWS

#: Least number of different sizes for a law to be fitted.
POINTS = 4
#: Probability of as much lack of fit by chance, under which a law is said not to hold.
LACK = 0.01
#: A relative difference of this size is taken for none: it is that of floating-point numbers.
_EXACT = 1e-9
_ROUNDS = 50
#: (columns, a part that is fixed): what a curve is made of when one of its parameters is given.
_Form = tuple[list[Floats], Floats | float]


@dataclass(frozen=True, slots=True)
class Fit:
    """A law fitted to a curve.

    Attributes:
        parameters: by name, each with its interval; without one where the law does not hold.
        residual: root of the mean squared relative difference from the points.
        sizes: the different n that were measured.
        lack: probability of as much lack of fit by chance; None where no size was measured twice.
        peak: the n at which the universal law is greatest, with its interval; None where the points
            do not show that there is one.
        peak_why: why there is none, of the universal law.
    """

    law: str
    parameters: dict[str, Estimate]
    residual: float
    sizes: tuple[float, ...] = ()
    lack: float | None = None
    peak: Estimate | None = None
    peak_why: str = ""

    @property
    def holds(self) -> bool:
        """Whether the points do not speak against the law."""
        return self.lack is None or self.lack >= LACK

    def at(self, n: Sequence[float]) -> list[float]:
        """The fitted curve."""
        law, names = LAWS[self.law]
        p = np.asarray([self.parameters[name].value for name in names])
        return [float(y) for y in law(np.asarray(n, dtype=np.float64), p)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "law": self.law,
            "parameters": {name: e.as_dict() for name, e in self.parameters.items()},
            "residual": self.residual,
            "sizes": list(self.sizes),
            "lack_of_fit_p": self.lack,
            "holds": self.holds,
            "peak": None if self.peak is None else self.peak.as_dict(),
            "peak_why": self.peak_why,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Fit:
        """The inverse of `as_dict`."""
        return cls(
            found["law"],
            {name: Estimate.from_dict(e) for name, e in found["parameters"].items()},
            found["residual"],
            tuple(found["sizes"]),
            found["lack_of_fit_p"],
            None if found["peak"] is None else Estimate.from_dict(found["peak"]),
            found["peak_why"],
        )


def fit(law: str, n: Sequence[float], throughput: Sequence[float]) -> Fit | None:
    """Fit one of LAWS; None where fewer than four different n were measured.

    Args:
        n: ranks, servers or concurrency; several measurements may be of the same.
        throughput: what each of them reached.
    """
    x = np.asarray(n, dtype=np.float64)
    y = np.asarray(throughput, dtype=np.float64)
    names = LAWS[law][1]
    if len(set(n)) < POINTS or len(x) <= len(names) or y.min() <= 0:
        return None
    # In the size of what was measured: the solver must not meet numbers of other sizes than 1.
    unit = float((y / x).max())
    curve = _Curve(law, x, y / unit)
    value = curve.best()
    freedom = len(x) - len(names)
    lack = _lack_of_fit(x, np.log(y), curve.least, len(names))
    holds = lack is None or lack >= LACK
    most = curve.least * (1 + t_bound(freedom) ** 2 / freedom)
    parameters, peak, why = {}, None, ""
    for name in names:
        size = unit if name == "rate" else 1.0
        low, high = curve.interval(name, value[name], most) if holds else (None, None)
        parameters[name] = Estimate(
            value[name] * size,
            None if low is None else low * size,
            None if high is None or math.isinf(high) else high * size,
        )
    if law == "universal":
        peak, why = _peak(curve, value, most, parameters["kappa"], holds)
    residual = math.sqrt(curve.least / len(x))
    return Fit(law, parameters, residual, tuple(sorted(set(map(float, n)))), lack, peak, why)


def _peak(
    curve: _Curve, value: dict[str, float], most: float, kappa: Estimate, holds: bool
) -> tuple[Estimate | None, str]:
    """The n of the greatest throughput, or why none is known."""
    if not holds:
        return None, "the law does not hold for these points"
    if not kappa.low:
        return None, "the interval of kappa holds 0, so that throughput may have none"
    bend = value["bend"]
    if bend >= 1:
        return None, "throughput only falls"
    low, high = curve.interval("bend", bend, most)
    if not low:
        return None, "the points do not bound it"
    return Estimate(1 / math.sqrt(bend), 1 / math.sqrt(min(high, 1.0)), 1 / math.sqrt(low)), ""


class _Curve:
    """Points, and how near a law comes to them."""

    def __init__(self, law: str, n: Floats, y: Floats) -> None:
        self._law = law
        self._n = n
        # Of logarithms: what throughput varies by is a share of it, the same for small and large.
        self._wanted = np.log(y) if law == "Gustafson" else -np.log(y)
        self.least = 0.0

    def best(self) -> dict[str, float]:
        """The parameters at the least sum of squares, which is noted."""
        one, n = np.ones_like(self._n), self._n
        if self._law == "Gustafson":
            columns = [one, n]
        else:
            columns = [one, 1 / n] if self._law == "Amdahl" else [one, 1 / n, n - 1]
        self.least, weights = self._solve(columns, 0.0)
        shared, split = weights[:2]
        whole = shared + split
        if self._law != "universal":
            rate = whole if self._law == "Gustafson" else 1 / whole
            return {"rate": rate, "serial share": shared / whole}
        bend = weights[2] / split if split > 0 else math.inf
        return {
            "rate": 1 / whole,
            "sigma": shared / whole,
            "kappa": weights[2] / whole,
            "bend": bend,
        }

    def interval(self, name: str, value: float, most: float) -> tuple[float, float]:
        """Where the sum of squares can be at most `most`; infinite where it has no upper end."""
        if name == "rate":
            low, high = self.interval_of_log(value, most)
            return math.exp(low), math.exp(high)
        top = math.inf if name == "kappa" else 1.0

        def above(at: float) -> float:
            return self._profile(name, at) - most

        return _down(above, value, 0.0), _up(above, value, top)

    def interval_of_log(self, rate: float, most: float) -> tuple[float, float]:
        """Of the rate's logarithm, which has no bounds."""
        middle = math.log(rate)

        def above(at: float) -> float:
            return self._profile("rate", math.exp(at)) - most

        return (
            -_up(lambda at: above(-at), -middle, math.inf),
            _up(above, middle, math.inf),
        )

    def _profile(self, name: str, at: float) -> float:
        """The least sum of squares where a parameter is given."""
        columns, fixed = self._form(name, at)
        found, weights = self._solve(columns, fixed)
        if name == "rate" and weights[0] > 1:  # a share over 1: the least is at 1
            one = np.ones_like(self._n)
            whole = at if self._law == "Gustafson" else 1 / at
            found, _ = self._solve(columns[1:], whole * one)
        return found

    def _form(self, name: str, at: float) -> _Form:
        """What the curve is made of where a parameter is given."""
        one, n = np.ones_like(self._n), self._n
        if self._law == "Gustafson":
            if name == "rate":
                return [at * (one - n)], at * n
            return [at * one + (1 - at) * n], 0.0
        crosstalk = [n - 1] if self._law == "universal" else []
        if name == "rate":
            return [(one - 1 / n) / at, *crosstalk], 1 / n / at
        if name in ("serial share", "sigma"):
            return [at * one + (1 - at) / n, *crosstalk], 0.0
        if name == "kappa":
            return [one + at * (n - 1), 1 / n + at * (n - 1)], 0.0
        return [one, 1 / n + at * (n - 1)], 0.0  # bend: kappa / (1 - sigma)

    def _solve(self, columns: list[Floats], fixed: Floats | float) -> tuple[float, list[float]]:
        """The least sum of squares of logarithms, and the weights of the columns."""
        wanted = self._wanted
        if not columns:
            return _squares(wanted - np.log(fixed)), []
        matrix = np.stack(columns, axis=1)
        size = np.exp(wanted)
        start = np.zeros(len(columns))
        if not np.any(fixed):
            start, _ = nnls(matrix / size[:, None], np.ones_like(wanted))
        model = fixed + matrix @ start
        found, weights = _squares(wanted - np.log(model)), start
        for _ in range(_ROUNDS):
            target = wanted - np.log(model) + 1 - fixed / model
            step = nnls(matrix / model[:, None], target)[0] - weights
            before = found
            while True:
                model = fixed + matrix @ (weights + step)
                if model.min() > 0:
                    found = _squares(wanted - np.log(model))
                    if found <= before:
                        break
                step = step / 2
                if np.abs(step).max() < 1e-15:
                    return before, [float(w) for w in weights]
            weights = weights + step
            if before - found <= 1e-10 * before or found < len(wanted) * _EXACT**2:
                break
        return found, [float(w) for w in weights]


def _squares(found: Floats) -> float:
    return float(found @ found)


def _down(above: Callable[[float], float], value: float, bottom: float) -> float:
    """Where a function that is below 0 at `value` passes 0 on the way down to `bottom`."""
    if value <= bottom or above(bottom) <= 0:
        return bottom
    return _root(above, bottom, value)


def _up(above: Callable[[float], float], value: float, top: float) -> float:
    """The same on the way up; `top` where it does not pass."""
    if math.isfinite(top):
        return top if value >= top or above(top) <= 0 else _root(above, value, top)
    step = max(abs(value), 1e-6) * 0.01
    last = value
    while step < 1e12:
        at = value + step
        if above(at) > 0:
            return _root(above, last, at)
        last, step = at, step * 2
    return top


def _root(above: Callable[[float], float], low: float, high: float) -> float:
    if above(low) * above(high) > 0:  # an exact fit: there is no room
        return low if abs(above(low)) < abs(above(high)) else high
    return float(brentq(above, low, high, xtol=1e-12, rtol=1e-6))


def _lack_of_fit(n: Floats, logs: Floats, squares: float, parameters: int) -> float | None:
    """The probability of as much lack of fit by chance: an F test against repeated points."""
    from scipy.special import fdtrc

    sizes = np.unique(n)
    pure = sum(_squares(logs[n == size] - logs[n == size].mean()) for size in sizes)
    beyond, repeated = len(sizes) - parameters, len(n) - len(sizes)
    if beyond < 1 or repeated < 1:
        return None
    floor = len(n) * _EXACT**2
    ratio = max(0.0, squares - pure) / beyond / (max(pure, floor) / repeated)
    return float(fdtrc(beyond, repeated, ratio))

"""How throughput grows with ranks or servers: speedup, efficiency, and three laws fitted.

Sources: G. Amdahl, "Validity of the Single Processor Approach" (1967); J. Gustafson, "Reevaluating
Amdahl's Law" (1988); A. Karp and H. Flatt, "Measuring Parallel Processor Performance" (1990);
N. Gunther, "Guerrilla Capacity Planning" (2007), for the universal scalability law. Fits are least
squares by Levenberg and Marquardt's method, intervals by the linear approximation at the solution
with Student's t (Bates and Watts, "Nonlinear Regression Analysis and Its Applications", 1988).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from llcuda_net.bench.statistics.estimates import Estimate, Floats, t_bound

#: Least number of different sizes for a law to be fitted.
POINTS = 4
#: The residual where a law gives no throughput at all, so that the solver turns back.
_OUTSIDE = 1e3
Law = Callable[[Floats, Floats], Floats]


def speedup(base: Estimate, value: Estimate) -> Estimate:
    """value / base, its interval from both (the relative half-widths added in squares)."""
    ratio = value.value / base.value
    a, b = _relative(base), _relative(value)
    if a is None or b is None:
        return Estimate(ratio)
    half = ratio * math.hypot(a, b)
    return Estimate(ratio, ratio - half, ratio + half)


def _relative(estimate: Estimate) -> float | None:
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2 / estimate.value


def karp_flatt(speedup: float, n: float, base: float = 1) -> float | None:
    """The serial share that a measured speedup amounts to; None of one processor.

    e = (1/S - 1/p) / (1 - 1/p), where p = n / base. Rising with n, it is overhead that grows, and
    not a part that cannot be shared; negative, the speedup is more than linear.
    """
    p = n / base
    return None if p <= 1 else (1 / speedup - 1 / p) / (1 - 1 / p)


def amdahl(n: Floats, p: Floats) -> Floats:
    """Throughput p₀ / (s + (1 - s) / n), s = p₁: a part s of the work cannot be shared."""
    rate, serial = p
    return np.asarray(rate / (serial + (1 - serial) / n))


def gustafson(n: Floats, p: Floats) -> Floats:
    """Throughput p₀ (n - s (n - 1)), s = p₁: the work grows with n, and a part s of it does not."""
    rate, serial = p
    return np.asarray(rate * (n - serial * (n - 1)))


def universal(n: Floats, p: Floats) -> Floats:
    """Throughput p₀ n / (1 + p₁ (n - 1) + p₂ n (n - 1)): p₁ is waiting, p₂ crosstalk."""
    rate, sigma, kappa = p
    return np.asarray(rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)))


LAWS: dict[str, tuple[Law, tuple[str, ...]]] = {
    "Amdahl": (amdahl, ("rate", "serial share")),
    "Gustafson": (gustafson, ("rate", "serial share")),
    "universal": (universal, ("rate", "sigma", "kappa")),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """A law fitted to a curve.

    Attributes:
        parameters: by name, each with its interval.
        residual: root of the mean squared relative difference from the points.
        peak: the n at which the universal law is greatest; None where it has no peak.
    """

    law: str
    parameters: dict[str, Estimate]
    residual: float
    peak: float | None = None

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
            "peak": self.peak,
        }


def fit(law: str, n: Sequence[float], throughput: Sequence[float]) -> Fit | None:
    """Fit one of LAWS; None where fewer than four different n were measured.

    Args:
        n: ranks, servers or concurrency; several measurements may be of the same.
        throughput: what each of them reached.
    """
    x = np.asarray(n, dtype=np.float64)
    y = np.asarray(throughput, dtype=np.float64)
    function, names = LAWS[law]
    if len(set(n)) < POINTS or len(x) <= len(names) or y.min() <= 0:
        return None
    rate = float(y[x == x.min()].mean() / x.min())
    start = np.asarray([rate, 0.1, 0.001][: len(names)])
    sizes = np.asarray([rate, 1.0, 1.0])[: len(names)]

    # Of logarithms: what throughput varies by is a share of it, the same for small and large.
    def logarithm(n: Floats, p: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log(function(n, p)))

    def residuals(p: Floats) -> Floats:
        found = logarithm(x, p) - np.log(y / rate)
        return np.where(np.isfinite(found), found, _OUTSIDE)

    solved = least_squares(residuals, start / sizes, method="lm", xtol=1e-12, ftol=1e-12)
    freedom = len(x) - len(names)
    variance = float(solved.fun @ solved.fun) / freedom
    gram = solved.jac.T @ solved.jac
    spread = np.sqrt(np.maximum(0.0, np.diag(np.linalg.pinv(gram)) * variance))
    solution = solved.x
    half = t_bound(freedom) * spread
    parameters = {
        name: Estimate(float(v), float(v - h), float(v + h))
        for name, v, h in zip(names, solution * sizes, half * sizes, strict=True)
    }
    peak = None
    if law == "universal":
        sigma, kappa = solution[1:]
        if kappa > 0 and sigma < 1:
            peak = float(np.sqrt((1 - sigma) / kappa))
    return Fit(law, parameters, float(np.sqrt(np.mean(solved.fun**2))), peak)

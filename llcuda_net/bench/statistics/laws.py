"""How throughput grows with ranks or servers: speedup, efficiency, and three laws.

Sources: G. Amdahl, "Validity of the Single Processor Approach" (1967); J. Gustafson, "Reevaluating
Amdahl's Law" (1988); A. Karp and H. Flatt, "Measuring Parallel Processor Performance" (1990);
N. Gunther, "Guerrilla Capacity Planning" (2007), for the universal scalability law.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from llcuda_net.bench.statistics.estimates import Estimate, Floats

Law = Callable[[Floats, Floats], Floats]


def speedup(base: Estimate, value: Estimate) -> Estimate | None:
    """value / base, its interval from both (the relative half-widths added in squares).

    None where the base is 0.
    """
    if base.value <= 0:
        return None
    ratio = value.value / base.value
    a, b = _relative(base), _relative(value)
    if a is None or b is None:
        return Estimate(ratio)
    half = ratio * math.hypot(a, b)
    return Estimate(ratio, ratio - half, ratio + half)


def _relative(estimate: Estimate) -> float | None:
    if estimate.low is None or estimate.high is None or estimate.value <= 0:
        return None
    return (estimate.high - estimate.low) / 2 / estimate.value


def karp_flatt(speedup: float, n: float, base: float = 1) -> float | None:
    """The serial share that a measured speedup amounts to; None where there is none.

    e = (1/S - 1/p) / (1 - 1/p), where p = n / base. Rising with n, it is overhead that grows, and
    not a part that cannot be shared; negative, the speedup is more than linear. There is none of
    one processor, and none where more of them are slower than the base: no share is over 1.
    """
    p = n / base
    if p <= 1 or speedup < 1:
        return None
    return (1 / speedup - 1 / p) / (1 - 1 / p)


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

"""Response times of the M/M/c queue, and how often a server without end has so many at work.

Sources: L. Kleinrock, Queueing Systems, Volume 1: Theory (Wiley 1975), sections 3.2 (M/M/1), 3.4
(M/M/infinity) and 3.5 (M/M/m and Erlang's C formula); D. Gross, J. F. Shortle, J. M. Thompson and
C. M. Harris, Fundamentals of Queueing Theory, 4th edition (Wiley 2008), chapter 2 (waiting times).
"""

from __future__ import annotations

import math

from .laws import Law


def erlang_c(slots: int, offered: float) -> float:
    """The share of arrivals of M/M/c that must wait; `offered`: arrivals per mean service time.

    By Erlang's B, whose recursion is stable: B(0) = 1, B(k) = aB(k-1) / (k + aB(k-1)).

    Raises:
        ValueError: as much or more comes than can be served.
    """
    if offered >= slots:
        raise ValueError("as much comes as can be served, or more: the queue grows without end")
    blocked = 1.0
    for k in range(1, slots + 1):
        blocked = offered * blocked / (k + offered * blocked)
    load = offered / slots
    return blocked / (1 - load * (1 - blocked))


def response(rate: float, mean: float, slots: int, part: float = 1.0) -> Law:
    """The stationary response time of M/M/c, first come, first served.

    An arrival waits with probability C (Erlang), then for an exponential time of rate
    b = slots / mean - rate; its service is exponential of rate a = 1 / mean, and independent of the
    wait. So the response time is longer than t with probability
    (1 - C) exp(-at) + C (a exp(-bt) - b exp(-at)) / (a - b), and with
    (1 - C + C (1 + at)) exp(-at) where a = b.

    Args:
        part: only this part of the service is counted: a = 1 / (part * mean).

    Raises:
        ValueError: see erlang_c.
    """
    waits = erlang_c(slots, rate * mean)
    a, b = 1 / (part * mean), slots / mean - rate

    def longer(t: float) -> float:
        if math.isclose(a, b, rel_tol=1e-9):
            served = math.exp(-a * t) * (1 + a * t)
        else:
            served = (a * math.exp(-b * t) - b * math.exp(-a * t)) / (a - b)
        return (1 - waits) * math.exp(-a * t) + waits * served

    whole = part * mean + waits / b
    return Law(whole, lambda t: 1 - longer(t) if t > 0 else 0.0, whole)


def all_busy(slots: int, offered: float) -> float:
    """P(at least `slots` are at work) where nobody ever waits (M/G/infinity): Poisson's tail.

    It depends on the mean service time only. Where it is as good as 0, a server that has so many
    slots is one without end: nobody waits.
    """
    if offered <= 0:
        return 0.0
    total, k = 0.0, slots
    while True:
        term = math.exp(k * math.log(offered) - offered - math.lgamma(k + 1))
        total += term
        if term <= total * 1e-12 and k > offered:
            return min(total, 1.0)
        k += 1

"""Queues simulated: arrival, start and end of every request, several runs at a time.

First come, first served. One server by D. Lindley's recursion ("The theory of queues with a single
server", 1952), W(n+1) = max(0, W(n) + S(n) - A(n)), which is the cumulative sum less its running
least; several by J. Kiefer and J. Wolfowitz ("On the theory of queues with many servers", 1955).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synthetic.known.laws import Law
from tools.synthetic.known.queueing import response

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """Some runs, a row each: seconds since each run's start."""

    arrived: Array
    began: Array
    ended: Array


@dataclass(frozen=True, slots=True)
class Open:
    """Poisson arrivals before some servers.

    Attributes:
        load: of the servers' capacity, the share that is offered.
        service: mean seconds of an answer.
        fixed: every answer takes as long as the mean; else exponential.
    """

    load: float
    service: float = 0.01
    servers: int = 1
    fixed: bool = False

    @property
    def rate(self) -> float:
        """Requests/s."""
        return self.load * self.servers / self.service

    def law(self) -> Law:
        """The stationary response time; of exponential service only."""
        return response(self.rate, self.service, self.servers)

    def run(self, rng: np.random.Generator, runs: int, seconds: float) -> Trace:
        """Runs that begin without a request."""
        count = math.ceil(self.rate * seconds + 6 * math.sqrt(self.rate * seconds) + 20)
        arrived = np.cumsum(rng.exponential(1 / self.rate, (runs, count)), axis=1)
        takes = np.full((runs, count), self.service)
        if not self.fixed:
            takes = rng.exponential(self.service, (runs, count))
        if self.servers == 1:
            steps = np.zeros((runs, count))
            steps[:, 1:] = np.cumsum(takes[:, :-1] - np.diff(arrived, axis=1), axis=1)
            began = arrived + steps - np.minimum.accumulate(steps, axis=1)
            return Trace(arrived, began, began + takes)
        free = np.zeros((runs, self.servers))
        began = np.empty_like(arrived)
        rows = np.arange(runs)
        for n in range(count):
            first = free.argmin(axis=1)
            began[:, n] = np.maximum(arrived[:, n], free[rows, first])
            free[rows, first] = began[:, n] + takes[:, n]
        return Trace(arrived, began, began + takes)


@dataclass(frozen=True, slots=True)
class Closed:
    """Workers that each send when their last answer has come, before fewer servers.

    Of an answer's time: n - c requests are before it, each of which takes an exponential time of
    rate c/service, and then its own. (L. Kleinrock, Queueing Systems, Volume 1, 1975.)
    """

    workers: int = 8
    servers: int = 4
    service: float = 0.05

    @property
    def rate(self) -> float:
        """Requests/s that are answered."""
        return self.servers / self.service

    def law(self) -> Law:
        """The stationary response time: an Erlang wait and an exponential service."""
        before, rate = self.workers - self.servers, self.rate
        mean = before / rate + self.service
        waits = np.linspace(0, 12 * mean, 20_001)
        density = rate**before * waits ** (before - 1) * np.exp(-rate * waits)
        density /= math.factorial(before - 1)

        def below(t: float) -> float:
            inside = waits <= t
            served = -np.expm1(-(t - waits[inside]) / self.service)
            return float(np.trapezoid(density[inside] * served, waits[inside]))

        return Law(mean, below, 8 * mean)

    def run(self, rng: np.random.Generator, runs: int, seconds: float) -> Trace:
        """Runs in which all workers send at once at first."""
        count = math.ceil(self.rate * seconds + 6 * math.sqrt(self.rate * seconds)) + 20
        takes = rng.exponential(self.service, (runs, count))
        arrived, began = np.zeros((runs, count)), np.zeros((runs, count))
        ended = np.zeros((runs, count))
        free, rows = np.zeros((runs, self.servers)), np.arange(runs)
        for n in range(count):
            first = free.argmin(axis=1)
            # Whoever has an answer asks again, and is the last in the row of those that wait: so
            # the n-th request was sent when the (n - workers)-th answer came.
            at = free[rows, first]
            began[:, n] = at
            free[rows, first] = ended[:, n] = at + takes[:, n]
        order = np.sort(ended, axis=1)
        arrived[:, self.workers :] = order[:, : count - self.workers]
        return Trace(arrived, began, ended)

"""The last two minutes of a server: a sample per second, and where the time of its requests went.

One task takes the samples, all the time: a chart that opens is full. A sample is a few numbers that
are there anyway, some microseconds per second, and nothing is done per token.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import trio

from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.telemetry.changes import Changes
from llcuda_net.telemetry.observers import Observer
from llcuda_net.upstream.pool import Pool

#: Seconds between two samples, and how many are kept.
SECONDS = 1.0
SAMPLES = 120
#: Failovers that are kept, and those of them that are reported.
_KEPT_FAILOVERS = 200
_MOST_FAILOVERS = 20


@dataclass(slots=True)
class Phases:
    """Where the time of requests went that are over.

    Attributes:
        requests: how many; those that were answered from the store are not among them.
        ms: the sum of each phase, by its name in SPEC.md, in milliseconds.
        first_tokens, first_token_ms: requests that had one, and from their begin until then.
    """

    requests: int = 0
    ms: dict[str, float] = field(default_factory=dict)
    first_tokens: int = 0
    first_token_ms: float = 0.0

    def add(self, generation: Generation, now: float) -> None:
        """Count one that is over."""
        times, final = generation.times, generation.final
        timings = None if final is None else final.timings
        phases = times.phases(now, 0.0 if timings is None else timings.prompt_ms)
        self._count(1, phases)
        if times.first_token is not None:
            self.first_tokens += 1
            self.first_token_ms += (times.first_token - times.received) * 1e3

    def merge(self, other: Phases) -> None:
        """Count those that another one has counted."""
        self._count(other.requests, other.ms)

    def _count(self, requests: int, phases: Mapping[str, float]) -> None:
        self.requests += requests
        for name, ms in phases.items():
            self.ms[name] = self.ms.get(name, 0.0) + ms

    def report(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "requests": self.requests,
            "ms": {name: round(ms, 3) for name, ms in self.ms.items()},
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """One second.

    Attributes:
        at: its end, in seconds since 1970.
        tokens_per_second: that upstreams have made.
        running, queued: requests, at its end.
        busy, slots: slots that our requests hold, and all there are.
        phases: of the requests that ended in it.
    """

    at: float
    tokens_per_second: float
    running: int
    queued: int
    busy: int
    slots: int
    phases: Phases

    def report(self) -> dict[str, Any]:
        """As JSON."""
        ended = self.phases
        mean = ended.first_token_ms / ended.first_tokens if ended.first_tokens else None
        return {
            "at": round(self.at, 3),
            "tokens_per_second": self.tokens_per_second,
            "running": self.running,
            "queued": self.queued,
            "busy": self.busy,
            "slots": self.slots,
            "first_token": None if mean is None else round(mean, 3),
        }


class History(Observer):
    """Samples of a server, and what has happened to it lately.

    Args:
        generations: those that are not over.
        wall: the wall clock, in seconds.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: Scheduler,
        generations: Iterable[Generation],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._generations = generations
        self._wall = wall
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._all = Phases()
        self._second = Phases()
        self._failovers: deque[dict[str, Any]] = deque(maxlen=_KEPT_FAILOVERS)
        self._changes = Changes()
        self._ended_made = 0
        self._made = 0
        self._sampled = trio.current_time()

    def __repr__(self) -> str:
        return f"<History of {len(self._samples)} s, {self._all.requests} requests>"

    async def run(self) -> None:
        """Take a sample per second until cancelled."""
        self._changes.look(self._pool.backends, self._wall())
        while True:
            await trio.sleep(SECONDS)
            self.sample()

    def ended(self, generation: Generation) -> None:
        """See Observer."""
        self._ended_made += generation.made
        self._failovers.extend(self._failovers_of(generation))
        if not generation.from_store:  # else its times are those of its first answer
            now = trio.current_time()
            self._all.add(generation, now)
            self._second.add(generation, now)

    def sample(self) -> None:
        """Note how the server stands."""
        then, self._sampled = self._sampled, trio.current_time()
        before = self._made
        running = sum(one.made for one in self._generations)
        # One that is over leaves the generations a moment before it is counted as ended.
        self._made = max(before, self._ended_made + running)
        backends, at = self._pool.backends, self._wall()
        present = [one for one in backends if not one.absent]
        seconds = self._sampled - then
        self._samples.append(
            Sample(
                at,
                round((self._made - before) / seconds, 1) if seconds > 0 else 0.0,
                self._scheduler.running,
                self._scheduler.queued,
                sum(one.busy for one in present),
                sum(one.slots_here for one in backends),
                self._second,
            )
        )
        self._second = Phases()
        self._changes.look(backends, at)

    def samples(self) -> list[dict[str, Any]]:
        """All that are kept, the oldest first."""
        return [one.report() for one in self._samples]

    def report(self, user: User) -> dict[str, Any]:
        """What a status document has beside a report, as a user may know it."""
        recent = Phases()
        for one in self._samples:
            recent.merge(one.phases)
        recent.merge(self._second)
        return {
            "sample": self._samples[-1].report() if self._samples else None,
            "phases": {"all": self._all.report(), "recent": recent.report()},
            "failovers": self._latest_failovers(user),
            "changes": self._changes.report(),
        }

    def _latest_failovers(self, user: User) -> list[dict[str, Any]]:
        running = (self._failovers_of(one) for one in self._generations if one.failovers)
        found = [
            one
            for one in itertools.chain(self._failovers, *running)
            if user.admin or one["user"] == user.name
        ]
        return sorted(found, key=itemgetter("at"))[-_MOST_FAILOVERS:]

    def _failovers_of(self, generation: Generation) -> list[dict[str, Any]]:
        offset = self._wall() - trio.current_time()
        return [
            {
                "at": round(one.at + offset, 3),
                "generation": generation.id,
                "user": generation.owner,
                "position": one.position,
                "reason": one.reason,
            }
            for one in generation.failovers[-_MOST_FAILOVERS:]
        ]

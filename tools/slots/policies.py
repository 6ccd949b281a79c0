"""Rules by which a slot is chosen: the server's own, and those that it is compared with."""

from __future__ import annotations

from typing import Any, cast

import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import (
    CompletionEvent,
    Properties,
    Requirement,
    Timings,
    Upstream,
)
from llcuda_net.upstream.prompts.prefix_cache import TOKENS_A_BLOCK, Chain, shared
from llcuda_net.upstream.slots.lease import Lease
from tools.slots.simulation import Job


class SimulatedClock(trio.abc.Clock):
    """Trio's clock where nobody sleeps: the simulation says what time it is.

    Attributes:
        now: in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        """See trio."""

    def current_time(self) -> float:
        """See trio."""
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """See trio."""
        return max(0.0, deadline - self.now)


class _Work:
    """What a lease works at, as the simulation goes on."""

    def __init__(self) -> None:
        self.made = 0
        self.first_token: float | None = None
        self.progress = 0.0
        self.times = self

    def came(self, now: float) -> None:
        self.made, self.progress = self.made + 1, now
        if self.first_token is None:
            self.first_token = now


class _Idle:
    """An upstream that is asked for nothing."""

    properties: Properties | None = None


class Chosen:
    """The server's own choice, with all that it learns: on a SimulatedClock, within trio."""

    def __init__(self, slots: int, clock: SimulatedClock, *, unified: bool = False) -> None:
        self._clock = clock
        upstream = cast(Upstream, _Idle())
        self.backend = Backend(UpstreamSpec("http://127.0.0.1:1", "a"), upstream, unified=unified)
        self.backend.learn(Properties("m", slots, 4096, False, "b"))
        self._leases: dict[int, tuple[Lease, _Work]] = {}

    def choose(self, job: Job, now: float) -> int:
        """See Policy."""
        self._clock.now = now
        requirement = Requirement("", chain=job.prompt, answer=job.answer)
        found = self.backend.best(requirement)
        assert found is not None
        slot, blocks = found
        lease, work = Lease(self.backend, slot, requirement, blocks), _Work()
        with lease.use(work):
            lease.sent()
        self._leases[slot.number] = lease, work
        return slot.number

    def made(self, slot: int, now: float) -> None:
        """See Policy."""
        self._leases[slot][1].came(now)

    def ended(self, slot: int, job: Job, read: tuple[int, float], now: float) -> None:
        """See Policy."""
        self._clock.now = now
        lease, _ = self._leases.pop(slot)
        tokens, ms = read
        cached = max(0, round(len(job.prompt) * TOKENS_A_BLOCK) - tokens)
        timings = Timings(cache_n=cached, prompt_n=tokens, prompt_ms=ms)
        lease.done("", CompletionEvent(tokens_predicted=job.answer, timings=timings))
        lease.slot.chain = job.held
        lease.release()


class Rule:
    """A rule that knows what slots hold and when each was used last.

    Args:
        name: "old": most of the prompt, else idle longest; "lowest": most of it, else the lowest
            number; "llama": as a llama-server: most of it where that is a tenth, else idle longest.
    """

    def __init__(self, name: str, slots: int) -> None:
        self._name = name
        self._held: list[Chain] = [()] * slots
        self._used = [0.0] * slots
        self._free = set(range(slots))

    def choose(self, job: Job, now: float) -> int:
        """See Policy."""

        def rank(slot: int) -> tuple[Any, ...]:
            blocks = shared(self._held[slot], job.prompt)
            if self._name == "lowest":
                return blocks, -slot
            if self._name == "llama" and blocks <= 0.1 * len(job.prompt):
                blocks = 0
            return blocks, -self._used[slot], -slot

        slot = max(self._free, key=rank)
        self._free.remove(slot)
        return slot

    def made(self, slot: int, now: float) -> None:
        """See Policy."""

    def ended(self, slot: int, job: Job, read: tuple[int, float], now: float) -> None:
        """See Policy."""
        self._held[slot], self._used[slot] = job.held, now
        self._free.add(slot)

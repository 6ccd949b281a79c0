"""Servers of which every time is known."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import About, Answer


class Fake:
    """Takes `first` seconds to the first token, and `step` for each next one.

    Attributes:
        stall: nobody is answered between these two moments of the trio clock.
        fails: raised by a request, where it gives an exception for its number.
        prompts: what was asked, in order.
    """

    name = "fake"

    def __init__(self, first: float = 0.010, step: float = 0.001, tokens: int = 5) -> None:
        self.first, self.step, self.tokens = first, step, tokens
        self.stall: tuple[float, float] | None = None
        self.fails: Callable[[int], Exception | None] = lambda number: None
        self.prompts: list[Any] = []
        self.active = self.most = 0

    async def about(self) -> About:
        await trio.lowlevel.checkpoint()
        return About("fake", 4, "fake 1")

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Callable[[], float],
        **more: Any,
    ) -> Answer:
        record.sent = now()
        self.prompts.append(prompt)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            error = self.fails(record.number)
            if error is not None:
                await trio.sleep(0.001)
                raise error
            if self.stall and self.stall[0] <= trio.current_time() < self.stall[1]:
                await trio.sleep_until(self.stall[1])
            await trio.sleep(self.first)
            record.chunks.append(now())
            for _ in range(self.tokens - 1):
                await trio.sleep(self.step)
                record.chunks.append(now())
            record.tokens = self.tokens
            record.phases = {"queue": 1.0, "prompt": 2.0, "first_token": 5.0, "generation": 4.0}
            return Answer("text", "length", "fake", f"g{record.number}")
        finally:
            self.active -= 1


class Known(Fake):
    """A queue before some slots: its service times are drawn from a distribution.

    Args:
        service: seconds of an answer, drawn from a generator that is seeded.
        slots: None: as many as there are requests, so that nobody ever waits.
        seed: of the service times.
    """

    def __init__(
        self, service: Callable[[random.Random], float], slots: int | None, seed: int = 1
    ) -> None:
        super().__init__(tokens=2)
        self._service = service
        self.slots = slots
        self._random = random.Random(seed)
        self._free = trio.CapacityLimiter(slots or 1_000_000)

    async def about(self) -> About:
        await trio.lowlevel.checkpoint()
        return About("known", self.slots, "known 1")

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Callable[[], float],
        **more: Any,
    ) -> Answer:
        record.sent = now()
        took = self._service(self._random)
        async with self._free:
            await trio.sleep(took / 2)
            record.chunks.append(now())
            await trio.sleep(took / 2)
            record.chunks.append(now())
        record.tokens = self.tokens
        return Answer("text", "length", "known", f"g{record.number}")


def constant(seconds: float) -> Callable[[random.Random], float]:
    """Answers that all take as long."""
    return lambda rng: seconds


def exponential(mean: float) -> Callable[[random.Random], float]:
    """Answers of exponential length, as in M/M/c."""
    return lambda rng: rng.expovariate(1 / mean)


def either(*seconds: float) -> Callable[[random.Random], float]:
    """Answers that take one of these times, each as often."""
    return lambda rng: rng.choice(seconds)
